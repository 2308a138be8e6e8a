"""Detection of problems in dataset files, without changing them."""

from fuzzyseg.data.check.duplicates import Group, exact_duplicates, near_duplicates
from fuzzyseg.data.check.files import FileInfo, inspect_file
from fuzzyseg.data.check.findings import Finding
from fuzzyseg.data.check.labels import MaskStatistics, mask_statistics
from fuzzyseg.data.check.report import Report

__all__ = [
    "FileInfo",
    "Finding",
    "Group",
    "MaskStatistics",
    "Report",
    "exact_duplicates",
    "inspect_file",
    "mask_statistics",
    "near_duplicates",
]
