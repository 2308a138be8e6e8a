"""Image outputs: PNG, or GeoTIFF if the image is georeferenced, written band by band."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.data import VOID, DataError
from fuzzyseg.data.io.image import Pixels
from fuzzyseg.data.io.pillow import decoding, open_header
from fuzzyseg.data.io.raster import NO_SIDECARS
from fuzzyseg.data.io.write import class_colours, legend, overlay, stack, to_picture, written_beside
from fuzzyseg.data.labels.decode import encode_labels
from fuzzyseg.data.sample import Colour, Size
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.outputs.band import Band

MAX_OVERLAY_PIXELS = 2**26
"""Overlays of larger images are downsampled for viewing, unless they are GeoTIFFs."""

CACHE_MB = 128
"""Size of GDAL's cache of unwritten tiles, in MB."""

Put = Callable[[Band, Pixels], None]
Write = Callable[[Band], None]
Georeference = dict[str, Any]


class Raster(NamedTuple):
    """An image output. pixels: returns (rows,W) or (rows,W,3) uint8 for a band.

    many: `pixels` returns (C,rows,W), for one file per class in a folder per image.
    """

    folder: str
    pixels: Callable[[Band], Pixels]
    needs_probabilities: bool = False
    many: bool = False


def colours_of(card: ModelCard) -> list[Colour]:
    """Return the class colours: the card's or, if it has none, distinct default colours."""
    return card.colours or class_colours(len(card.classes))


def _mask(band: Band) -> Pixels:
    if not band.encoded:
        return band.mask
    array = encode_labels(band.mask, band.card.encoding, band.card.ignore_index, Path("--encoded"))
    if array.dtype != "uint8":
        raise DataError(f"the training masks have values up to {array.max()}; expected at most 255: omit --encoded")
    return array


def coloured(mask: Pixels, card: ModelCard) -> Pixels:
    """Colour a mask (H,W) by class, giving (H,W,3); void is black."""
    table = np.zeros((VOID + 1, 3), np.uint8)
    table[: len(card.classes)] = colours_of(card)
    pixels: Pixels = table[mask]
    return pixels


def _overlay(band: Band) -> Pixels:
    assert band.image is not None
    return overlay(to_picture(band.image, band.card.mean, band.card.std), band.mask, colours_of(band.card))


def _bytes(values: torch.Tensor, band: Band) -> Pixels:
    """Scale values (...,rows,W) from [0, 1] to 0 to 255; 0 where the image has no data."""
    scaled = (255 * values).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return np.where(band.mask == VOID, np.uint8(0), scaled)


def _uncertainty(band: Band) -> Pixels:
    """Return the entropy of the probabilities, divided by its maximum, log C."""
    entropy = torch.special.entr(band.calibrated).sum(0)
    return _bytes(entropy / math.log(len(band.card.classes)), band)


def _k(band: Band) -> Pixels:
    return np.where(band.mask == VOID, np.uint8(0), band.sets.sum(0).to(torch.uint8).cpu().numpy())


RASTERS = {
    "mask": Raster("masks", _mask),
    "overlay": Raster("overlays", _overlay),
    "colour": Raster("colours", lambda band: coloured(band.mask, band.card)),
    "uncertainty": Raster("uncertainty", _uncertainty, True),
    "k": Raster("k", _k, True),
    "probabilities8": Raster("probabilities8", lambda band: _bytes(band.calibrated, band), True, many=True),
}
"""Image outputs by name."""


def georeference(path: Path) -> Georeference | None:
    """Return the coordinate system and transform of a GeoTIFF; None for other files, or without rasterio."""
    if path.suffix.lower() not in (".tif", ".tiff") or find_spec("rasterio") is None:
        return None
    import rasterio

    with warnings.catch_warnings(), rasterio.Env(**NO_SIDECARS):
        warnings.simplefilter("ignore")
        try:
            with rasterio.open(path, driver="GTiff") as file:
                reference = {"crs": file.crs, "transform": file.transform}
                return reference if file.crs is not None or not file.transform.is_identity else None
        except rasterio.errors.RasterioError:
            return None


def is_georeferenced(path: Path) -> bool:
    """Return whether a file has TIFF tags for pixel scale, transform or coordinate system; does not need rasterio."""
    with suppress(DataError), decoding(path), path.open("rb") as file:
        return not {33550, 34264, 34735}.isdisjoint(getattr(open_header(file), "tag_v2", ()))
    return False


@contextmanager
def opened_raster(
    kind: str, path: Path, size: Size, card: ModelCard, geo: Georeference | None, *, encoded: bool
) -> Iterator[Write]:
    """Yield a function that writes a band to its output files. They replace older files on exit.

    path: the file without suffix, or the folder for `many` files. geo: georeference of the GeoTIFF to write; None: PNG.
    """
    _, pixels, _, many = RASTERS[kind]
    palette = card.colours if kind == "mask" and not encoded else None
    nodata = {"mask": None if encoded else VOID, "k": 0}.get(kind)
    targets = files_of(kind, path, card, geo=geo is not None)
    with ExitStack() as files:
        if geo is None:
            puts = [files.enter_context(_png(target, size, palette, kind == "overlay")) for target in targets]
        else:
            puts = [files.enter_context(_geotiff(target, size, {**geo, "nodata": nodata})) for target in targets]

        def write(band: Band) -> None:
            converted = pixels(band)
            for put, part in zip(puts, converted if many else [converted], strict=True):
                put(band, part)

        yield write


def files_of(kind: str, path: Path, card: ModelCard, *, geo: bool) -> list[Path]:
    """Return the files that `opened_raster` writes. geo: GeoTIFF instead of PNG."""
    suffix = ".tif" if geo else ".png"
    if not RASTERS[kind].many:
        return [path.with_name(path.name + suffix)]
    names = ["".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name) for name in card.classes]
    return [path / f"{place:03}_{name[:60]}{suffix}" for place, name in enumerate(names)]


@contextmanager
def _png(path: Path, size: Size, palette: list[Colour] | None, shown: bool) -> Iterator[Put]:
    """Write a PNG file, built in memory. shown: downsample a large one, and add a class legend below."""
    step = math.ceil(math.sqrt(size[0] * size[1] / MAX_OVERLAY_PIXELS)) if shown else 1
    array: Pixels | None = None
    counts, card = np.zeros(VOID + 1, np.int64), None

    def put(band: Band, part: Pixels) -> None:
        nonlocal array, counts, card
        if array is None:
            array = np.empty((-(-size[0] // step), -(-size[1] // step), *part.shape[2:]), np.uint8)
        first = -(-band.box[0] // step)
        part = part[first * step - band.box[0] :: step, ::step]
        array[first : first + len(part)] = part
        if shown:
            counts, card = counts + np.bincount(band.mask.ravel(), minlength=VOID + 1), band.card

    with written_beside(path) as file:
        yield put
        assert array is not None
        image = Image.fromarray(array if card is None else stack(array, _legend(counts, card, array.shape[1])))
        if palette is not None:
            image.putpalette([value for colour in palette for value in colour])
        image.save(file)


def _legend(pixels: NDArray[np.int64], card: ModelCard, width: int) -> Pixels:
    """Return a legend of the classes that occur, with colours and area fractions, largest first."""
    colours = colours_of(card)
    entries = [
        (f"{'no data' if label == VOID else card.classes[label]} {100 * pixels[label] / pixels.sum():.1f} %", label)
        for label in np.argsort(-pixels, kind="stable").tolist()
        if pixels[label]
    ]
    # black classes are not tinted, so their square is empty
    shown = [(text, colours[label] if label != VOID and any(colours[label]) else None) for text, label in entries]
    return legend(shown, width)


@contextmanager
def _geotiff(path: Path, size: Size, profile: dict[str, Any]) -> Iterator[Put]:
    """Write a tiled, compressed GeoTIFF file, band by band, with a mask of missing data if there is no nodata value.

    It has no palette, because fuzzyseg and other tools cannot read files with a palette in windows.
    """
    import rasterio
    from rasterio.windows import Window

    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    with written_beside(path) as part, ExitStack() as opened:
        file: Any = None

        def put(band: Band, array: Pixels) -> None:
            nonlocal file
            bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
            if file is None:
                opened.enter_context(rasterio.Env(**NO_SIDECARS, GDAL_CACHEMAX=CACHE_MB, GDAL_TIFF_INTERNAL_MASK=True))
                kind = {"height": size[0], "width": size[1], "count": len(bands), "dtype": "uint8", **tiles, **profile}
                file = opened.enter_context(rasterio.open(part, "w", driver="GTiff", **kind))
            window = Window(0, band.box[0], size[1], bands.shape[1])
            file.write(bands, window=window)
            if profile["nodata"] is None:
                file.write_mask(band.mask != VOID, window=window)

        yield put
