"""The model card: everything except the weights that is needed to use a model on image files."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.loading.value_range import compare
from fuzzyseg.data.sample import Colour, Encoding, LabelMap, Size
from fuzzyseg.data.text import problems
from fuzzyseg.run.environment import version_of

CARD_NAME = "fuzzyseg.json"


@dataclass(frozen=True)
class ModelCard:
    """How a model was trained and what input it expects.

    classes: names in index order. colours: (r, g, b) per class, if any. ignore_index: void value in the mask files.
    encoding: mask encoding; None for class indices. mean, std: per channel, for images scaled to [0, 1] (by `levels` if
    they are not 8-bit). value_range: smallest and largest value of the training images by dtype; None if not recorded.
    bands: bands read from an image file, counted from 1; None for all. image_size: (H, W) to which images are resized,
    if any. crop: (H, W) of the training crops. arch, encoder: None for a custom network. step: number of finished
    steps. version: fuzzyseg version. temperature: divides the logits before the softmax to calibrate the probabilities;
    labels do not change. record: data, scores, calibration and licences of the run.
    """

    classes: list[str]
    mean: list[float]
    std: list[float]
    crop: Size
    channels: int = 3
    image_size: Size | None = None
    bands: list[int] | None = None
    levels: Levels | None = None
    value_range: dict[str, tuple[float, float]] | None = None
    encoding: Encoding | None = None
    colours: list[Colour] | None = None
    ignore_index: int = 255
    arch: str | None = None
    encoder: str | None = None
    method: str | None = None
    loss: str | None = None
    step: int = 0
    version: str | None = field(default_factory=partial(version_of, "fuzzyseg"))
    temperature: float = 1.0
    record: dict[str, Any] | None = None

    @property
    def label_map(self) -> LabelMap:
        """Classes, void value, encoding and colours of the training masks."""
        return LabelMap(self.classes, self.ignore_index, self.encoding, self.colours)

    @property
    def resizing(self) -> str:
        """Description of how images are resized for the network, and how logits are resized back."""
        if self.image_size is None:
            return "none: the network sees images at the size of their files"
        height, width = self.image_size
        return (
            f"images are resized to {height}x{width} (height x width), whatever their aspect ratio, bilinearly with "
            "antialiasing; logits are resized bilinearly to the size of the file"
        )

    def reader(self, ignore_index: int | None = None, **options: Any) -> Reader:
        """Return a reader configured as in training. Default `ignore_index`: the card's. options: see `Reader`."""
        void = self.ignore_index if ignore_index is None else ignore_index
        bands = None if self.bands is None else tuple(self.bands)
        return Reader(self.channels, len(self.classes), void, bands=bands, levels=self.levels, **options)

    def range_warnings(self, items: Sequence[Item]) -> list[str]:
        """Return warnings for images whose value ranges differ from those of the training images."""
        return compare(items, self.value_range, self.channels, self.bands, self.levels)

    def write(self, folder: Path) -> None:
        """Write the card into the folder, including `resizing` for human readers."""
        content = {**asdict(self), "resizing": self.resizing}
        (folder / CARD_NAME).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_folder(path: Path) -> Path | None:
    """Return the model folder for `path` (that folder, a file in it, or a run folder with model/), or None."""
    for folder in (path, path / "model", path.parent if path.is_file() else path):
        if (folder / CARD_NAME).is_file():
            return folder
    return None


def read_card(path: str | Path) -> ModelCard | None:
    """Return the card of a model folder, a file in it, or a run folder; None if there is no card.

    Raises DataError if the card is damaged.
    """
    folder = model_folder(Path(path))
    if folder is None:
        return None
    file = folder / CARD_NAME
    try:
        card = TypeAdapter(ModelCard).validate_json(file.read_bytes(), strict=True)
        _check(card)
        return card
    except ValidationError as error:
        reason = "; ".join(problems(error))
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    raise DataError(f"{file}: is not a model card ({reason}); copy the model folder again")


def _check(card: ModelCard) -> None:
    """Raise ValueError for values that training never writes."""
    colours = [*(card.colours or ()), *((card.encoding.colours or ()) if card.encoding is not None else ())]
    if any(len(colour) < 3 for colour in colours):
        raise ValueError("colours: expected (red, green, blue) of each class")
    if len(card.classes) < 2 or card.channels < 1:
        raise ValueError(f"found {len(card.classes)} classes and {card.channels} channels; expected 2 and 1 or more")
    if not len(card.mean) == len(card.std) == card.channels:
        raise ValueError(f"found {len(card.mean)} means and {len(card.std)} deviations for {card.channels} channels")
    if not all(map(math.isfinite, card.mean)) or not all(0 < value < math.inf for value in card.std):
        raise ValueError(f"found mean {card.mean} and std {card.std}; expected finite numbers, std above 0")
    if not 0 < card.temperature < math.inf:
        raise ValueError(f"found temperature {card.temperature}; expected a finite number above 0")
    if min(*card.crop, *(card.image_size or ()), *(card.bands or ())) < 1:
        raise ValueError(
            f"found crop {card.crop}, image_size {card.image_size}, bands {card.bands}; expected 1 or more"
        )
