"""Datasets, labels, splits, transforms and data loading."""

from typing import TYPE_CHECKING, Any

from fuzzyseg.data.datasets.combine import combine
from fuzzyseg.data.datasets.read import read_dataset
from fuzzyseg.data.datasets.registry import DATASETS, Layout
from fuzzyseg.data.sample import VOID, DataError, DataSet, Item

if TYPE_CHECKING:
    from fuzzyseg.data.loading.reader import Reader

__all__ = ["DATASETS", "VOID", "DataError", "DataSet", "Item", "Layout", "Reader", "combine", "read_dataset"]


def __getattr__(name: str) -> Any:
    """Import `Reader` on first use: its transforms import torchvision, which takes seconds."""
    if name != "Reader":
        raise AttributeError(f"module 'fuzzyseg.data' has no attribute {name!r}")
    from fuzzyseg.data.loading.reader import Reader

    return Reader
