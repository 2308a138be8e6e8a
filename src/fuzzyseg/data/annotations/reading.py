"""What the readers of annotation files share: what they give, and how untrusted values are looked at."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.dataset_yaml import nearest
from fuzzyseg.data.io.pillow import most_pixels
from fuzzyseg.data.labels.class_lists import BACKGROUND, IGNORE, check_names, plain
from fuzzyseg.data.sample import VOID, Colour, DataError, Size

Json = Any
"""What a JSON file holds: nothing is known of it before it was looked at."""


FAR = 10
"""Coordinates may lie outside of the image, but not by more than so many times its longer side: an edge of a polygon is
walked along pixel by pixel."""


@dataclass(frozen=True)
class Picture:
    """An image and what is annotated in it.

    name: where it will lie below images/, without suffix, split folder included. image: its file, or None where the
    annotation file `origin` holds the image itself. annotated: False for an image that nobody has annotated.
    """

    name: str
    image: Path | None
    origin: Path
    annotated: bool = True


class Source(Protocol):
    """Annotations of one kind.

    kind: in words. classes: names in index order. colours: one a class, or None. found: sentences for the user.
    """

    kind: str
    classes: list[str]
    colours: list[Colour] | None
    pictures: list[Picture]
    found: list[str]

    def mask(self, picture: Picture, size: Size) -> NDArray[np.uint8]:
        """(H, W) class indices, 255 void, for an image of `size`. Raises DataError naming the file."""

    def image_bytes(self, picture: Picture) -> tuple[bytes, str]:
        """The image of a picture that has no file of its own, and a suffix for it. Raises DataError."""


class Classes:
    """Names in index order, and what a label means.

    background: the index of what is under no shape, VOID where there is no such class.
    """

    def __init__(self, labels: list[str] | None, found: list[str], where: Path) -> None:
        """labels: as given by the user, else `found` with a background in front. Raises DataError."""
        names = [plain(name) for name in (labels if labels is not None else found) if name != IGNORE]
        if labels is None and "background" not in names:
            names = ["background", *names]
        self.given = labels is not None
        check_names(names, str(where))
        self.names = names
        self.background = names.index("background") if "background" in names else VOID
        self._index = {name: index for index, name in enumerate(names)} | {IGNORE: VOID, BACKGROUND: self.background}

    def index(self, label: str, where: str) -> int:
        """The class index of a label, VOID for `__ignore__`. Raises DataError for a label that is not listed."""
        if label not in self._index:
            raise DataError(
                f"{where}: found the label {label!r}, which is none of the {len(self.names)} labels given."
                f"{nearest(label, self.names)} Add it to the file of labels; {IGNORE} in the annotations is void"
            )
        return self._index[label]

    def sentence(self) -> str:
        """What becomes of pixels under no shape."""
        if self.background == VOID:
            return "no class is named background: pixels under no shape are void"
        return f"pixels under no shape are class {self.background}, background"


def load_json(path: Path) -> Json:
    """The content of a JSON file. Raises DataError naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError among them
        raise DataError(f"{path}: is not valid JSON ({error}); export it again") from None


def inside(root: Path, base: Path, text: str, where: str) -> Path:
    """The path that an annotation file names, relative to `base`. Raises DataError if it leaves `root`.

    Where it leads is told from its text: links that lie in the data folder are the user's own and are followed.
    """
    if "\0" in text or not text.strip():
        raise DataError(f"{where}: found the path {text!r}; expected the path of a file")
    path = Path(os.path.normpath(base / text.replace("\\", "/")))
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):  # both without `..`
        raise DataError(
            f"{where}: found the path {text!r}, which leaves the data folder {root}; refused: move the file into it, "
            "mend the path, or name a folder above both"
        )
    return path


def number(value: Json, where: str) -> float:
    """A finite number. Raises DataError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:  # an integer beyond floats
            pass
    raise DataError(f"{where}: found {str(value)[:40]!r}; expected a number")


def near(points: list[tuple[float, float]], size: Size, where: str) -> None:
    """Raises DataError for (x, y) points that lie far outside of an image of `size`."""
    limit = FAR * max(size)
    for x, y in points:
        if abs(x) > limit or abs(y) > limit:
            raise DataError(
                f"{where}: found the point ({x:g}, {y:g}) in an image of {size[0]}x{size[1]} (height x width); "
                "expected points in it or close to it"
            )


def check_pixels(size: Size, where: str) -> None:
    """Raises DataError for images that are too large to be drawn safely."""
    most = 2 * most_pixels()
    if size[0] < 1 or size[1] < 1 or size[0] * size[1] > most:
        raise DataError(f"{where}: found a size of {size[0]}x{size[1]}; expected 1 to {most} pixels")
