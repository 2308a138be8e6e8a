"""What is learnt from: files, layouts, splits, views, streams."""

from fuzzyseg.data.items import VOID, DataError, DataSet, Item
from fuzzyseg.data.layouts import CamVid, Folder, Layout, read_dataset
from fuzzyseg.data.reader import Reader

DATASETS: dict[str, Layout] = {"folder": Folder(), "camvid": CamVid()}
"""Layouts by name; `read_dataset(layout="auto")` takes the one that matches."""

__all__ = ["DATASETS", "VOID", "DataError", "DataSet", "Item", "Layout", "Reader", "read_dataset"]
