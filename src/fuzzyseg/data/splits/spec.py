"""Parsers for image selections: counts, fractions, folds and list files."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from fuzzyseg.data.datasets.pairing import composed
from fuzzyseg.data.datasets.tables import COMMENT, fields
from fuzzyseg.data.labels.class_lists import numbered_lines
from fuzzyseg.data.sample import DataError, Item
from fuzzyseg.data.text import nearest, short


def parse_amount(text: str, count: int, what: str = "images", *, option: str = "") -> int | Path:
    """Parse `46` (a count), `1/8` or `0.2` (a fraction of `count`, rounded, at least 1), or the path of a list file.

    option: command-line option named in error messages. Raises DataError for a number out of range.
    """
    prefix = f"{option}: " if option else ""
    expected = f"expected a count from 1 to {count}, a fraction such as 1/8 or 0.2, or a list file"
    text = text.strip()
    try:
        number = Fraction(text)
    except ValueError:
        return Path(text)
    except ZeroDivisionError:
        raise DataError(f"{prefix}found {text} {what}; {expected}") from None
    is_count = text.lstrip("+-").isdigit()
    if number <= 0 or number > (count if is_count else 1):
        raise DataError(f"{prefix}found {text} of {count} {what}; {expected}")
    return int(number) if is_count else max(1, int(number * count + Fraction(1, 2)))


EVERY = "every:"
FOLD = "fold:"


def parse_every(text: str) -> int | None:
    """Return N for `every:N`, and None for any other text. Raises DataError unless N is a positive integer."""
    if not text.startswith(EVERY):
        return None
    number = text.removeprefix(EVERY)
    if not number.isdigit() or int(number) < 1:
        raise DataError(f"found {text!r}; expected every:N with a whole number, such as every:16")
    return int(number)


def parse_fold(text: str) -> tuple[int, int] | None:
    """Return (K, N) for `fold:K/N`, None for any other text. Raises DataError unless 1 <= K <= N and N >= 2."""
    if not text.startswith(FOLD):
        return None
    number, _, folds = text.removeprefix(FOLD).partition("/")
    if not (number.isdigit() and folds.isdigit() and 1 <= int(number) <= int(folds) >= 2):
        raise DataError(f"found {text!r}; expected fold:K/N, the Kth of N folds, such as fold:1/5")
    return int(number), int(folds)


def read_list(path: Path, items: Sequence[Item], root: Path, held_out: Sequence[Item] = ()) -> list[Item]:
    """Return the items listed in a text file, one per line, by name, stem or image path.

    Lines starting with # are comments. Names in quotation marks have the format of `quoted`. Published lists are
    supported (see `tables.fields`): in `image mask` lines, only the image is used. If such a line, or one with a
    leading slash, refers to another layout of the dataset (CPS on Cityscapes), the image is matched by stem. held_out:
    validation and test images, for error messages. Raises a DataError with file and line if no image or several images
    match.
    """
    lines = numbered_lines(path, "surrogateescape")
    names: dict[str, list[Item]] = {}
    stems: dict[str, list[Item]] = {}
    for item in items:
        paths = {item.image.name, item.image.as_posix(), item.image.resolve().as_posix()}
        if item.image.is_relative_to(root):
            paths.add(item.image.relative_to(root).as_posix())
        for key in {item.name, *paths, *(key[: -len(item.image.suffix)] for key in paths)}:
            names.setdefault(composed(key), []).append(item)
        for stem in _stems(item):
            stems.setdefault(stem, []).append(item)
    exact = {item.name: [item] for item in items}
    scored = {stem for item in held_out for stem in _stems(item)}
    chosen: dict[str, Item] = {}
    for number, text in lines.items():
        if text.startswith("#"):
            continue
        name, mask = fields(text)
        written, fits = name, exact.get(name)
        if not fits and "\\" in name:  # written on Windows; C:/ counts as a leading slash
            name = re.sub("^[A-Za-z]:/", "/", name.replace("\\", "/"))
        fits = fits or names.get(composed(name)) or names.get(composed(Path(name).resolve().as_posix()))
        if not fits and (mask or name.startswith("/")):
            fits = names.get(composed(name.lstrip("/"))) or stems.get(Path(name).stem)
        if not fits:
            place = f"{path}, line {number}:"
            if Path(name).stem in scored:
                raise DataError(f"{place} {written!r} is a validation or test image, not a training image")
            near = nearest(name, sorted({*exact, *stems})) + COMMENT * (" #" in name)
            raise DataError(f"{place} found no image {written!r}.{near}")
        if len(fits) > 1:
            raise DataError(f"{path}, line {number}: {name!r} matches {short([item.name for item in fits])}; write one")
        chosen[fits[0].name] = fits[0]
    if not chosen:
        raise DataError(f"{path}: lists no image; expected one name per line")
    return list(chosen.values())


def _stems(item: Item) -> set[str]:
    return {Path(item.name).name, item.image.stem}
