"""Finding the image and mask files in a folder, and pairing masks with images."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from unicodedata import normalize

from fuzzyseg.data.io.find import Found, counts, find_images, is_hidden
from fuzzyseg.data.sample import DataError, Files, Item
from fuzzyseg.data.text import nearest, short

Key = tuple[str | None, str]
"""(split or None, path relative to the split folder, without suffix)."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Common names of split folders and lists, mapped to the split."""

_AROUND = re.compile(r"[ _.-]?((19|20)\d\d|(set|images|data|split)$)")


def split_named(name: str) -> str | None:
    """Return the split (train, val or test) that the name of a folder or list denotes, or None. Case is ignored.

    A year or a final word such as `set` is ignored (`val2017`, `valset`, `val_images`). The rest must match exactly:
    `latest` is not a test split.
    """
    return SPLIT_NAMES.get(_AROUND.sub("", name.lower()))


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return the folders in `root` that are named after splits, as (split, folder)."""
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [(split, path) for path in folders if (split := split_named(path.name)) is not None]


def note_other_folders(root: Path, known: Sequence[Path], what: str, subfolders: Sequence[str] = ("",)) -> list[str]:
    """Return a note on the folders in `root` other than the split folders `known`; empty if there are none.

    what: how these folders are treated. subfolders: only folders that contain one of these subfolders are listed.
    """
    if not known:
        return []
    folders = (path for path in sorted(root.iterdir()) if path not in known and not is_hidden(path.name))
    others = [f"{path.name}/" for path in folders if any((path / name).is_dir() for name in subfolders)]
    return [f"{root}: {what}: {short(others)}"] if others else []


def composed(text: str) -> str:
    """Return the text in Unicode NFC; macOS file names may be decomposed (e + accent)."""
    return normalize("NFC", text)


def name_finder(known: Collection[str]) -> Callable[[str], str]:
    """Return a function that maps any Unicode form of a known name to that name, and other names to themselves."""
    forms = {composed(name): name for name in known}
    return lambda name: name if name in known else forms.get(composed(name), name)


def existing(path: Path) -> Path:
    """Return the file that matches `path` up to Unicode form and slash direction, or `path` if there is none."""
    names = (str(path), str(path).replace("\\", "/"))
    forms = (Path(normalize(form, name)) for name in names for form in ("NFC", "NFD"))
    return path if path.is_file() else next((form for form in forms if form.is_file()), path)


def image_files(folder: Path) -> tuple[dict[str, Path], Counter[str]]:
    """Return the image files below `folder`, keyed by relative path without suffix, and counts of other files.

    Hidden files are skipped, links are followed. Raises DataError if two files differ only in suffix.
    """
    images = find_images(folder)
    return by_name(images), images.others


def by_name(images: Found) -> dict[str, Path]:
    """Return image files keyed by relative path without suffix. Raises DataError if two differ only in suffix."""
    files: dict[str, Path] = {}
    for path in images.files:
        key = path.relative_to(images.root).with_suffix("").as_posix()
        if key in files:
            raise DataError(f"{path} and {files[key]} have the same name; expected one file per name: delete one")
        files[key] = path
    return files


def note_ignored(folder: Path, others: Counter[str], what: str) -> list[str]:
    """Return a note on files of other formats, if any."""
    return [f"{folder}: not read as {what}: {counts(others)}"] if others else []


def add_files(keys: dict[Key, Path], folder: Path, split: str | None, kind: str, notes: list[str]) -> None:
    """Add the files of a folder, if it exists, to `keys`, and notes on ignored files to `notes`.

    split: split of all files. Default: the first split folder in each file's path, if any. kind: image or mask. Raises
    DataError if two files have the same split and name.
    """
    if not folder.is_dir():
        return
    files, others = image_files(folder)
    notes += note_ignored(folder, others, f"{kind}s")
    for name, path in files.items():
        *above, stem = name.split("/")
        place = next((at for at, part in enumerate(above if split is None else ()) if split_named(part)), None)
        key = (split, name)
        if place is not None:  # also `site/val/a`, which must not be trained on
            key = (split_named(above[place]), "/".join([*above[:place], *above[place + 1 :], stem]))
        if key in keys:
            raise DataError(f"{path} and {keys[key]} are the same {kind} of split {key[0]}; expected one")
        keys[key] = path


def pair_folders(places: Iterable[tuple[str, str | None, Path]], notes: list[str]) -> Files:
    """Pair the files of (image or mask, split, folder) entries; see `add_files` and `pair`. Raises DataError."""
    keys: dict[str, dict[Key, Path]] = {"image": {}, "mask": {}}
    for kind, split, folder in places:
        add_files(keys[kind], folder, split, kind, notes)
    return pair(keys["image"], keys["mask"], notes)


def pair(images: dict[Key, Path], masks: dict[Key, Path], notes: list[str]) -> Files:
    """Pair masks with images by split and path, or by path alone where only one side has split folders.

    An image outside split folders belongs to the split of its mask, or else to train. Names match in any Unicode form.
    notes: passed on to the result. Raises DataError if a mask matches several images or an image has two masks.
    """
    by_path: dict[str, list[Key]] = {}
    for key in images:
        by_path.setdefault(composed(key[1]), []).append(key)
    owner: dict[Key, Key] = {}
    unmatched: list[Path] = []
    for key, path in masks.items():
        alike = [key] if key in images else by_path.get(composed(key[1]), [])
        candidates = [c for c in alike if c[0] == key[0]] or [c for c in alike if None in (c[0], key[0])]
        if not candidates:
            unmatched.append(path)
        elif len(candidates) > 1:
            raise DataError(f"{path}: matches several images: {short([images[c] for c in candidates])}; expected one")
        elif candidates[0] in owner:
            first, image = masks[owner[candidates[0]]], images[candidates[0]]
            raise DataError(f"{image}: has two masks, {first} and {path}; expected one")
        else:
            owner[candidates[0]] = key
    splits: dict[str, list[Item]] = {}
    for key, path in images.items():
        mask = owner.get(key)
        split = key[0] or (mask[0] if mask else None)
        item = Item(path, masks[mask] if mask else None, f"{split}/{key[1]}" if split else key[1])
        splits.setdefault(split or "train", []).append(item)
    ordered = {split: sorted(items, key=lambda item: item.name) for split, items in splits.items()}
    return Files(ordered, notes, unmatched)


def check_unmatched(files: Files) -> None:
    """Raise DataError if any mask has no image."""
    if files.unmatched_masks:
        path, count = files.unmatched_masks[0], len(files.unmatched_masks)
        total = sum(item.mask is not None for items in files.splits.values() for item in items) + count
        raise DataError(
            f"{path}: is a mask without an image ({count} of {total} masks); expected an image of the same name."
            f"{suggest_image(path, files)} Rename or delete it"
        )


def suggest_image(mask: Path, files: Files) -> str:
    """Return a sentence that suggests the image name most similar to the mask's; empty if none is similar."""
    stems = sorted({item.image.stem for items in files.splits.values() for item in items})
    for stem in stems:
        if stem.casefold() == mask.stem.casefold() and stem != mask.stem:
            return f" The image {stem!r} differs from it only in case."
    text = nearest(mask.stem, stems)
    return text if text.startswith(" Did") else ""
