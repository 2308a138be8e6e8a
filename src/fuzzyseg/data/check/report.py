"""Report of a dataset check."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzzyseg.data.check.files import FileInfo
from fuzzyseg.data.check.findings import Finding
from fuzzyseg.data.check.labels import Masks
from fuzzyseg.data.sample import Size


@dataclass(frozen=True)
class ClassShare:
    """Pixel count of a class, and the number of masks that contain it.

    `held_*` fields cover the validation and test masks; the others cover the training masks.
    """

    name: str
    index: int
    pixels: int
    images: int
    held_pixels: int
    held_images: int


@dataclass
class Report:
    """Statistics and findings of a dataset.

    lists: (images, images with a mask) for labelled, unlabelled, val and test, excluding unusable files. images, masks:
    number of files by description. sizes: number of images by (H, W). classes, void: pixel counts, if the labels could
    be resolved. notes: messages, for example about the encoding.
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
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of warnings, including those among the notes."""
        return len(self.findings) - self.errors + sum(note.startswith("warning: ") for note in self.notes)

    def count_files(self, images: Sequence[FileInfo] = (), masks: Sequence[FileInfo] = ()) -> None:
        """Count images and masks by description, and images by size."""
        self.images.update(each.words for each in images if each.problem is None)
        self.masks.update(each.words for each in masks if each.problem is None)
        self.sizes.update(each.size for each in images if each.size is not None)

    def count_masks(self, names: Sequence[str], training: Masks, held_out: Masks) -> None:
        """Set the class and void counts from mask statistics."""

        def sums(masks: Masks, index: int) -> tuple[int, int]:
            values = [each.counts[index] for each in masks if each.counts]
            return sum(values), sum(value > 0 for value in values)

        self.classes = [ClassShare(name, i, *sums(training, i), *sums(held_out, i)) for i, name in enumerate(names)]
        self.void, self.held_void = sum(each.void for each in training), sum(each.void for each in held_out)

    def record(self) -> dict[str, Any]:
        """Return the report as a JSON-serialisable dict."""
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
            "found": self.notes,
            "findings": [finding.record() for finding in self.findings],
            "errors": self.errors,
            "warnings": self.warnings,
        }
