"""What is learnt from: files, layouts, splits, views, streams."""

from fuzzyseg.data.ade20k import ADE20K
from fuzzyseg.data.cityscapes import Cityscapes
from fuzzyseg.data.gathering import gather
from fuzzyseg.data.items import VOID, DataError, DataSet, Item
from fuzzyseg.data.layouts import CamVid, Folder, Layout, read_dataset
from fuzzyseg.data.listed import Lists
from fuzzyseg.data.manifest import Manifest
from fuzzyseg.data.reader import Reader
from fuzzyseg.data.voc import VOC

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
