"""Datasets, labels, splits, transforms and data loading."""

from fuzzyseg.data.datasets.base import Layout
from fuzzyseg.data.datasets.combine import combine
from fuzzyseg.data.datasets.read import read_dataset
from fuzzyseg.data.datasets.registry import DATASETS
from fuzzyseg.data.loading.reader import Reader
from fuzzyseg.data.sample import VOID, DataError, DataSet, Item

__all__ = ["DATASETS", "VOID", "DataError", "DataSet", "Item", "Layout", "Reader", "combine", "read_dataset"]
