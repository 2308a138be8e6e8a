"""What is wrong with a data set's files, in words; nothing is changed."""

from fuzzyseg.data.check.duplicates import Group, exact_groups, near_groups
from fuzzyseg.data.check.files import Seen, look_at
from fuzzyseg.data.check.findings import Finding
from fuzzyseg.data.check.labels import Labels, count_labels
from fuzzyseg.data.check.report import Report

__all__ = ["Finding", "Group", "Labels", "Report", "Seen", "count_labels", "exact_groups", "look_at", "near_groups"]
