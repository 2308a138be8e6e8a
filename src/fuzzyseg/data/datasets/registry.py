"""The dataset layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets import folder, public, tables, voc
from fuzzyseg.data.sample import Files, PublicDataset


@dataclass(frozen=True)
class Layout:
    """A folder structure of datasets.

    expected: description for messages. matches: whether a root (a folder, or the file that names the images) has this
    layout. files: lists the items of each split of a matching root, or raises DataError. public: the public dataset
    with this layout, if any. automatic: tried by `layout="auto"`.
    """

    expected: str
    matches: Callable[[Path, Description], bool]
    files: Callable[[Path, Description], Files]
    public: PublicDataset | None = None
    automatic: bool = True


DATASETS = {
    "folder": Layout(folder.EXPECTED, folder.matches, folder.list_files),
    "camvid": Layout(public.CAMVID_EXPECTED, public.is_camvid, public.camvid, public.CAMVID),
    "voc": Layout(voc.EXPECTED, voc.matches, voc.list_files, voc.VOC),
    "voc_plain": Layout(voc.EXPECTED, voc.matches, partial(voc.list_files, augmented=False), voc.VOC, automatic=False),
    "cityscapes": Layout(public.CITYSCAPES_EXPECTED, public.is_cityscapes, public.cityscapes, public.CITYSCAPES),
    "ade20k": Layout(public.ADE20K_EXPECTED, public.is_ade20k, public.ade20k, public.ADE20K),
    "lists": Layout(tables.LISTS_EXPECTED, tables.has_lists, tables.read_lists),
    "manifest": Layout(tables.MANIFEST_EXPECTED, tables.has_manifest, tables.read_manifest),
}
"""Layouts by name; `read_dataset(layout="auto")` takes the one that matches."""
