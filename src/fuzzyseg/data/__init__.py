"""What is learnt from: files, layouts, splits, views, streams."""

from typing import TYPE_CHECKING, Any

from fuzzyseg.data.datasets.ade20k import ADE20K
from fuzzyseg.data.datasets.cityscapes import Cityscapes
from fuzzyseg.data.datasets.combine import gather
from fuzzyseg.data.datasets.manifest import Manifest
from fuzzyseg.data.datasets.read import CamVid, Folder, Layout, read_dataset
from fuzzyseg.data.datasets.split_files import Lists
from fuzzyseg.data.datasets.voc import VOC
from fuzzyseg.data.sample import VOID, DataError, DataSet, Item

if TYPE_CHECKING:
    from fuzzyseg.data.loading.reader import Reader

DATASETS: dict[str, Layout] = {
    "folder": Folder(),
    "camvid": CamVid(),
    "voc": VOC(),
    "voc_plain": VOC(augmented=False),
    "cityscapes": Cityscapes(),
    "ade20k": ADE20K(),
    "lists": Lists(),
    "manifest": Manifest(),
}
"""Layouts by name; `read_dataset(layout="auto")` takes the one that matches."""

__all__ = ["DATASETS", "VOID", "DataError", "DataSet", "Item", "Layout", "Reader", "gather", "read_dataset"]


def __getattr__(name: str) -> Any:
    """Import `Reader` on first use: its transforms import torchvision, which takes seconds."""
    if name != "Reader":
        raise AttributeError(f"module 'fuzzyseg.data' has no attribute {name!r}")
    from fuzzyseg.data.loading.reader import Reader

    return Reader
