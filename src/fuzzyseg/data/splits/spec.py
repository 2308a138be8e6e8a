"""How many images, or which: counts, fractions, list files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from fuzzyseg.data.dataset_yaml import nearest
from fuzzyseg.data.datasets.split_files import fields
from fuzzyseg.data.sample import DataError, Item
from fuzzyseg.data.text import short


def parse_amount(text: str, count: int, what: str = "images", *, option: str = "") -> int | Path:
    """`46` (a count), `1/8` or `0.2` (a share of `count`, rounded to the nearest, at least 1), else the path of a list.

    option: the one that it was given by. Raises DataError, which names it, for a number that is not in reach.
    """
    asked = f"{option}: " if option else ""
    expected = f"expected a count from 1 to {count}, a fraction such as 1/8 or 0.2, or a list file"
    text = text.strip()
    try:
        number = Fraction(text)
    except ValueError:
        return Path(text)
    except ZeroDivisionError:
        raise DataError(f"{asked}found {text} {what}; {expected}") from None
    is_count = text.lstrip("+-").isdigit()
    if number <= 0 or number > (count if is_count else 1):
        raise DataError(f"{asked}found {text} of {count} {what}; {expected}")
    return int(number) if is_count else max(1, int(number * count + Fraction(1, 2)))


EVERY = "every:"


def parse_every(text: str) -> int | None:
    """The N of `every:N`, None for anything else. Raises DataError where N is no number from 1 on."""
    if not text.startswith(EVERY):
        return None
    number = text.removeprefix(EVERY)
    if not number.isdigit() or int(number) < 1:
        raise DataError(f"found {text!r}; expected every:N with a whole number, such as every:16")
    return int(number)


def read_list(path: Path, items: Sequence[Item], root: Path, held: Sequence[Item] = ()) -> list[Item]:
    """The items that a text file names, one a line: by name, stem or image path. Lines from # on are comments.

    Published lists are read as they are (see `listed.fields`): of `image mask` the image counts; where such a line, or
    one with a slash at its start, names a file of another arrangement of the data set (CPS on Cityscapes), the image of
    that stem is meant. held: images of validation and test, which are told by name where they are listed. Raises
    DataError naming the file and the line for a name that fits no item, or several.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of images ({error}); expected one name a line") from None
    names: dict[str, list[Item]] = {}
    for item in items:
        paths = {item.image.name, item.image.as_posix(), item.image.resolve().as_posix()}
        if item.image.is_relative_to(root):
            paths.add(item.image.relative_to(root).as_posix())
        for key in {item.name, item.image.stem, *paths, *(key[: -len(item.image.suffix)] for key in paths)}:
            names.setdefault(key, []).append(item)
    exact = {item.name: [item] for item in items}
    stems: dict[str, list[Item]] = {}
    for item in items:
        for stem in {Path(item.name).name, item.image.stem}:
            stems.setdefault(stem, []).append(item)
    known = sorted({*exact, *(item.image.stem for item in items)})
    scored = {stem for item in held for stem in (Path(item.name).name, item.image.stem)}
    chosen: dict[str, Item] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition(" #")[0].strip()
        if not name or name.startswith("#"):
            continue
        line, (name, mask) = name, fields(name)
        fits = exact.get(name) or names.get(name) or names.get(Path(name).resolve().as_posix())
        if not fits and (mask or name.startswith("/")):
            fits = names.get(name.lstrip("/")) or stems.get(Path(name).stem)
        if not fits:
            if Path(name).stem in scored:
                raise DataError(f"{path}, line {number}: {line!r} is an image of validation or test, not of training")
            raise DataError(f"{path}, line {number}: found no image {line!r}.{nearest(name, known)}")
        if len(fits) > 1:
            raise DataError(f"{path}, line {number}: {name!r} fits {short([item.name for item in fits])}; write one")
        chosen[fits[0].name] = fits[0]
    if not chosen:
        raise DataError(f"{path}: names no image; expected one name a line")
    return list(chosen.values())
