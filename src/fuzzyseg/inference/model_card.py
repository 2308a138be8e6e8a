"""The model card: everything besides the weights that is needed to use a model on image files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.sample import Colour, Encoding, LabelMap, Size

CARD_NAME = "fuzzyseg.json"


def _version() -> str | None:
    try:
        return metadata.version("fuzzyseg")
    except metadata.PackageNotFoundError:  # run from its sources without installation
        return None


@dataclass(frozen=True)
class ModelCard:
    """How a model was trained and what input it expects.

    classes: names in index order. colours: (r, g, b) of each class, if any. ignore_index: the files' value for void.
    encoding: of the masks; None: class indices. mean, std: per channel, for images scaled to [0, 1], or by `levels` if
    they have other than 8 bits. bands: those used of an image file, from 1; None: all. image_size: (H, W) that images
    are resized to, if any. crop: (H, W) of the training crops. arch, encoder: None for a network of the user's own.
    step: finished steps. version: of fuzzyseg.
    """

    classes: list[str]
    mean: list[float]
    std: list[float]
    crop: Size
    channels: int = 3
    image_size: Size | None = None
    bands: list[int] | None = None
    levels: Levels | None = None
    encoding: Encoding | None = None
    colours: list[Colour] | None = None
    ignore_index: int = 255
    arch: str | None = None
    encoder: str | None = None
    method: str | None = None
    loss: str | None = None
    step: int = 0
    version: str | None = field(default_factory=_version)

    @property
    def label_map(self) -> LabelMap:
        """Classes, void value, encoding and colours of the masks that it was trained with."""
        return LabelMap(self.classes, self.ignore_index, self.encoding, self.colours)

    def write(self, folder: Path) -> None:
        """Store the card in the folder."""
        (folder / CARD_NAME).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_folder(path: Path) -> Path | None:
    """The model folder of a path: itself, the folder of a file in it, or model/ of a run folder; None if none."""
    for folder in (path, path / "model", path.parent if path.is_file() else path):
        if (folder / CARD_NAME).is_file():
            return folder
    return None


def read_card(path: str | Path) -> ModelCard | None:
    """The card of a model folder, a file in it, or a run folder; None without a card.

    Raises DataError for a damaged card.
    """
    folder = model_folder(Path(path))
    if folder is None:
        return None
    file = folder / CARD_NAME
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        known = {f.name for f in fields(ModelCard)}
        card = ModelCard(**{k: _tuples(k, v) for k, v in values.items() if k in known})
        _check(card)
        return card
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(f"{file}: is no model card ({error}); copy the model folder again") from None


def _check(card: ModelCard) -> None:
    """Raises ValueError for values of another type, and for numbers that no training writes."""
    lists: dict[str, type] = {"classes": str, "mean": float, "std": float, "crop": int, "image_size": int, "bands": int}
    for name, kind in lists.items():
        value = getattr(card, name)
        if value is not None and not _holds(value, kind):
            raise ValueError(f"{name}: found {str(value)[:60]!r}, expected a list of {kind.__name__}")
    if not _holds([card.channels, card.ignore_index, card.step], int):
        raise ValueError("channels, ignore_index, step: expected whole numbers")
    if card.levels is not None and not all(_holds(end or (), float) for end in (card.levels.low, card.levels.high)):
        raise ValueError(f"levels: found {str(card.levels)[:60]}, expected numbers")
    colours = [] if card.colours is None else card.colours
    coded = (card.encoding.colours or ()) if card.encoding is not None else ()
    if not all(_holds(colour, int) and len(colour) >= 3 for colour in (*colours, *coded)):
        raise ValueError("colours: expected (red, green, blue) of each class")
    if len(card.classes) < 2 or card.channels < 1:
        raise ValueError(f"found {len(card.classes)} classes and {card.channels} channels; expected 2 and 1 or more")
    if not len(card.mean) == len(card.std) == card.channels:
        raise ValueError(f"found {len(card.mean)} means and {len(card.std)} deviations for {card.channels} channels")
    if not all(map(math.isfinite, card.mean)) or not all(0 < value < math.inf for value in card.std):
        raise ValueError(f"found mean {card.mean} and std {card.std}; expected finite numbers, std above 0")
    if min(*card.crop, *(card.image_size or ()), *(card.bands or ())) < 1:
        raise ValueError(
            f"found crop {card.crop}, image_size {card.image_size}, bands {card.bands}; expected 1 or more"
        )


def _holds(value: Any, kind: type) -> bool:
    """Whether it is a list or tuple of such values; whole numbers are numbers, true and false are not."""
    kinds = (int, float) if kind is float else (kind,)
    return isinstance(value, list | tuple) and all(type(each) in kinds for each in value)


def _tuples(key: str, value: Any) -> Any:
    """JSON lists as the types of the card."""
    if key in ("crop", "image_size") and value is not None:
        height, width = value
        return height, width
    if key == "encoding" and value is not None:
        return Encoding.from_record(value)
    if key == "levels" and value is not None:
        return Levels(*(None if value[end] is None else tuple(value[end]) for end in ("low", "high")))
    return [tuple(colour) for colour in value] if key == "colours" and value is not None else value
