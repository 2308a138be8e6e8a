"""What a check found, as numbers, and as what JSON holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzzyseg.data.check.files import Seen
from fuzzyseg.data.check.findings import Finding
from fuzzyseg.data.check.labels import Labels
from fuzzyseg.data.sample import Size


@dataclass(frozen=True)
class ClassShare:
    """A class in the training masks, and in those of validation and test: pixels and masks that hold it."""

    name: str
    index: int
    pixels: int
    images: int
    held_pixels: int
    held_images: int


@dataclass
class Report:
    """A data set as it was found.

    lists: images and, of those, images with a mask, by what they are for (labelled, unlabelled, val, test); the files
    that cannot be used are not in them. images, masks: number of files of each kind. sizes: of the images. classes and
    void: pixels, empty where the masks were not understood. found: sentences, among them one on the encoding.
    """

    data: str
    layout: str
    lists: dict[str, tuple[int, int]] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    sizes: Counter[Size] = field(default_factory=Counter)
    classes: list[ClassShare] = field(default_factory=list)
    void: int = 0
    held_void: int = 0
    found: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of findings that are warnings."""
        return len(self.findings) - self.errors

    def count_files(self, images: Sequence[Seen] = (), masks: Sequence[Seen] = ()) -> None:
        """Takes in what the files are."""
        self.images.update(each.words for each in images if each.problem is None)
        self.masks.update(each.words for each in masks if each.problem is None)
        self.sizes.update(each.size for each in images if each.size is not None)

    def count_labels(self, names: Sequence[str], learnt: Sequence[Labels], held: Sequence[Labels]) -> None:
        """Takes in what the masks hold."""

        def sums(found: Sequence[Labels], index: int) -> tuple[int, int]:
            values = [each.counts[index] for each in found if each.counts]
            return sum(values), sum(value > 0 for value in values)

        self.classes = [
            ClassShare(name, index, *sums(learnt, index), *sums(held, index)) for index, name in enumerate(names)
        ]
        self.void, self.held_void = sum(each.void for each in learnt), sum(each.void for each in held)

    def record(self) -> dict[str, Any]:
        """As what JSON holds."""
        pixels = max(1, sum(each.pixels for each in self.classes))
        return {
            "data": self.data,
            "layout": self.layout,
            "lists": {name: {"images": count, "masks": masks} for name, (count, masks) in self.lists.items()},
            "images": dict(self.images),
            "masks": dict(self.masks),
            "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in self.sizes.most_common()],
            "classes": [{**vars(each), "share": each.pixels / pixels} for each in self.classes],
            "void": {"pixels": self.void, "held_pixels": self.held_void},
            "found": self.found,
            "findings": [finding.record() for finding in self.findings],
            "errors": self.errors,
            "warnings": self.warnings,
        }
