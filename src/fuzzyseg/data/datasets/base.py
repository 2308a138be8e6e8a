"""Interface of a dataset layout."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.sample import Files, PublicDataset


class Layout(Protocol):
    """A folder structure of datasets.

    expected: description for messages. public: the public dataset with this layout, if any. automatic: tried by
    `layout="auto"`.
    """

    expected: str
    public: PublicDataset | None
    automatic: bool

    def matches(self, root: Path, description: Description) -> bool:
        """Whether `root` (a folder, or the file that names the images) has this layout."""

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split of a matching root. Raises DataError."""
