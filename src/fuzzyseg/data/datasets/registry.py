"""Table of the dataset layouts."""

from __future__ import annotations

from fuzzyseg.data.datasets.ade20k import ADE20K
from fuzzyseg.data.datasets.base import Layout
from fuzzyseg.data.datasets.camvid import CamVid
from fuzzyseg.data.datasets.cityscapes import Cityscapes
from fuzzyseg.data.datasets.folder import Folder
from fuzzyseg.data.datasets.manifest import Manifest
from fuzzyseg.data.datasets.split_files import Lists
from fuzzyseg.data.datasets.voc import VOC

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
