"""Evaluation data for the report, stored in the run folder: pictures, confusion matrix and calibration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fuzzyseg.analysis.diagnosis import Diagnosis, diagnose
from fuzzyseg.analysis.pixels import PixelMaps
from fuzzyseg.config import EvaluateConfig
from fuzzyseg.data import VOID, Item, Reader
from fuzzyseg.data.io.write import class_colours, to_picture
from fuzzyseg.data.labels.blocks import open_large
from fuzzyseg.inference import Predictor, Protocol
from fuzzyseg.inference.model import replacing_folder
from fuzzyseg.ops import distributed
from fuzzyseg.run.logs import write_json

SIDE = 480
"""Maximum side length of the pictures in pixels."""

MAX_MEASURED = 200
"""Maximum number of images on which calibration is measured if no diagnosis is given."""

K_COLOURS = ((0, 0, 0), (253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
"""Viridis colours for K = 1 (black, drawn transparent), 2, ...; larger K use the last colour."""

_BLUE, _WHITE, _RED = np.array([(33, 102, 172), (247, 247, 247), (178, 24, 43)])
SCORE_COLOURS = [
    tuple(map(int, (_WHITE + abs(r) * ((_RED if r > 0 else _BLUE) - _WHITE)).round())) for r in np.linspace(-1, 1, 63)
]
"""Colours for scores R from -1 to 1."""

Maps = Callable[[Item], Iterator[tuple[PixelMaps, Tensor]]]
"""Yields maps and mask (1,H,W) of an image at the training scale, or of each tile of a large image."""


def write_evaluation(
    folder: Path,
    predictor: Predictor,
    items: Sequence[Item],
    counts: tuple[Tensor, Tensor],
    maps: Maps,
    result: Mapping[str, Any],
    settings: EvaluateConfig,
    ignore_index: int,
    calibration: Mapping[str, Any],
    **facts: Any,
) -> None:
    """Write evaluation.json and pictures of `settings.gallery` images to a folder, replacing its content.

    The old content is kept if writing fails (OSError).

    counts: the arguments that `inference.evaluate` passed to `keep` when it computed `result` for `items`.
    ignore_index: mask value of void. calibration: result of `reliability` for the same images. facts: further entries,
    such as split. Half of the pictures are the images with the lowest mIoU; the others are evenly spaced over the rest,
    so that the gallery does not show only failures.
    """
    with replacing_folder(folder) as part:
        card = predictor.card
        colours = card.colours or class_colours(len(card.classes))
        protocol = Protocol(settings.mode, settings.window, tuple(settings.scales), settings.flip)
        painter = _Painter(part, predictor, card.reader(ignore_index), maps, protocol, colours)
        hit, truth, predicted = counts[1].double().unbind(1)
        scores = (hit / (truth + predicted - hit)).nanmean(1)
        order = [place for place in scores.argsort().tolist() if scores[place] == scores[place]]
        shown = []
        for rank in _chosen(len(order), settings.gallery):
            place = order[rank]
            if files := painter.draw(f"{rank:05d}", items[place]):
                entry = {"name": items[place].name, "miou": float(scores[place]), "rank": rank + 1, "files": files}
                shown.append(entry)
        content = {
            **facts,
            "classes": list(card.classes),
            "colours": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (colour[:3] for colour in colours)],
            "result": dict(result),
            "matrix": counts[0].tolist(),
            "calibration": dict(calibration),
            "gallery": shown,
        }
        write_json(part / "evaluation.json", content)


def _chosen(total: int, count: int) -> list[int]:
    """Return `count` indices below `total`: half of them 0, 1, ..., the others evenly spaced over the rest."""
    worst = min(total, -(-count // 2))
    rest, more = total - worst, min(total, count) - worst
    return [*range(worst), *(worst + (2 * n + 1) * rest // (2 * more) for n in range(more))]


def reliability(items: Sequence[Item], maps: Maps, total: Diagnosis | None = None) -> dict[str, Any]:
    """Return the reliability and coverage of the fuzzy sets for each K.

    total: diagnosis of the items; default: measured on at most `MAX_MEASURED` of them.
    """
    every = 1 if total is not None else -(-len(items) // MAX_MEASURED)
    total = total or diagnosis_of(items[::every], maps)
    return {**({} if total is None else total.numbers()), "images": len(items[::every])}


def diagnosis_of(items: Sequence[Item], maps: Maps) -> Diagnosis | None:
    """Return the sum over all items, or None without items. Must be called on every process; each handles a part."""
    own: Diagnosis | None = None
    for item in items[distributed.rank() :: distributed.world_size()]:
        for pixels, target in maps(item):
            counts = diagnose(pixels, target)
            own = counts if own is None else own.plus(counts)
    parts = [part for part in distributed.gather_objects(own) if part is not None]
    return reduce(Diagnosis.plus, parts) if parts else None


def save_layer(target: Path | BinaryIO, layer: Image.Image, palette: Sequence[Sequence[int]]) -> None:
    """Write a PNG overlay of palette indices (mode L). Black, and indices beyond the palette, are transparent."""
    layer.putpalette(bytes(part for colour in palette for part in colour[:3]).ljust(768, b"\0"))
    opaque = bytes(255 * any(colour[:3]) for colour in palette)
    layer.save(target, "png", transparency=opaque.ljust(256, b"\0"))


@dataclass
class _Painter:
    """Renders the views of images and saves them to a folder."""

    folder: Path
    predictor: Predictor
    reader: Reader
    maps: Maps
    protocol: Protocol
    colours: Sequence[Sequence[int]]

    def draw(self, stem: str, item: Item) -> dict[str, str]:
        """Write the pictures of an image. Returns view -> file name; empty for an image too large to decode whole."""
        reader, card = self.reader, self.predictor.card
        if open_large(item.image, reader.channels, bands=reader.bands, levels=reader.levels) is not None:
            return {}
        image, mask = reader.read(item, with_mask=True)
        assert mask is not None
        label = self.predictor.batch_labels(image.unsqueeze(0), self.protocol)[0].cpu()
        pixels, _ = next(self.maps(item))
        height, width = mask.shape
        scale = min(1.0, SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = to_picture(image.movedim(0, -1).numpy(), card.mean, card.std)
        shown = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")
        files = {"image": f"{stem}-image.jpg"}
        shown.resize(size, Image.Resampling.BILINEAR).save(self.folder / files["image"], quality=85)
        wrong = torch.where(mask == VOID, VOID, (label != mask).to(torch.uint8))
        score = ((pixels.score.fuzzy[0] + 1) / 2 * (len(SCORE_COLOURS) - 1)).round().nan_to_num(VOID)
        layers = {
            "truth": (mask, self.colours),
            "prediction": (label, self.colours),
            "error": (wrong, ((0, 0, 0), (222, 62, 30))),
            "k": (pixels.k[0].clamp(max=len(K_COLOURS)) - 1, K_COLOURS),
            "score": (score, SCORE_COLOURS),
        }
        for view, (values, palette) in layers.items():
            files[view] = f"{stem}-{view}.png"
            layer = Image.fromarray(values.cpu().numpy().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            save_layer(self.folder / files[view], layer, palette)
        return files
