"""Reader of images and masks at training resolution, with a cache. Very large files are read in windows."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.io.image import Levels, open_windows, read_image
from fuzzyseg.data.io.pillow import TooLarge, check_pixels, pixel_limit
from fuzzyseg.data.io.raster import Raster
from fuzzyseg.data.labels.blocks import label_reader
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.data.loading.disk_cache import DiskCache, Entry, Key
from fuzzyseg.data.sample import VOID, Box, DataError, Item, Size
from fuzzyseg.data.transforms.lazy import Large
from fuzzyseg.data.views import known_pixels


def stamp(path: Path) -> tuple[str, int, int, int]:
    """Return the absolute path, mtime, ctime and size of a file. Raises DataError if it cannot be read.

    ctime is included because files from an archive may have equal mtimes, and uncompressed images of equal dimensions
    have equal file sizes.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    return os.path.abspath(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size


@dataclass
class MemoryCache:
    """LRU cache of at most `limit` bytes. It is pickled without entries, so each process has a separate cache."""

    limit: int
    entries: OrderedDict[Key, Entry] = field(default_factory=OrderedDict)
    used: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryCache, (self.limit,)

    def get(self, key: Key) -> Entry | None:
        """Return a copy of the entry, or None if it is not cached."""
        with self.lock:
            entry = self.entries.get(key)
            if entry is None:
                return None
            self.entries.move_to_end(key)
        return Entry(entry.array.copy(), entry.original)

    def put(self, key: Key, entry: Entry) -> None:
        """Store a copy of the entry if it fits, and evict the least recently used entries beyond the limit."""
        with self.lock:
            if entry.array.nbytes > self.limit or key in self.entries:
                return
            self.entries[key] = Entry(entry.array.copy(), entry.original)
            self.used += entry.array.nbytes
            while self.used > self.limit:
                _, old = self.entries.popitem(last=False)
                self.used -= old.array.nbytes


@dataclass
class Reader:
    """Reader of images and masks.

    channels: number of image channels. classes, ignore_index: number of classes and void value of the masks.
    image_size: (H, W) to which images and masks are resized. Default: not resized. bands, levels: see `read_image`;
    with levels, images are float32 in units. megapixels: see `pixel_limit`. cache_bytes: size limit of the cache of
    decoded, resized files; 0: no cache. The cache is in the memory of each process or, if cache_dir is set, in that
    folder, shared by all processes. Modified files are read again. A pickled copy has an empty memory cache.
    """

    channels: int
    classes: int
    ignore_index: int
    image_size: Size | None = None
    cache_bytes: int = 0
    cache_dir: Path | None = None
    bands: tuple[int, ...] | None = None
    levels: Levels | None = None
    megapixels: int | None = None
    _cache: MemoryCache | DiskCache | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.cache_bytes > 0:
            folder, limit = self.cache_dir, self.cache_bytes
            self._cache = MemoryCache(limit) if folder is None else DiskCache(folder, limit)

    def read(self, item: Item, with_mask: bool) -> tuple[Tensor, Tensor | None]:
        """Read the image (C,H,W) and, if with_mask, the mask (H,W) uint8 with 255 for void.

        The image is uint8, or float32 scaled to [0, 1] if a value range (data.low, data.high) is set. Images are
        resized with antialiased bilinear interpolation, masks with nearest-neighbour interpolation. An image that may
        have missing data is (C+1,H,W): the last band marks known pixels, and the mask is void elsewhere (see
        `with_known` in `read_image`). Modifying the tensors never changes the cache. Raises a DataError that names the
        file.
        """
        entry = self._entry("image", item.image, item)
        image = _tensor(entry)
        if not with_mask:
            return image, None
        if item.mask is None:
            raise DataError(f"{item.image}: has no mask, but one is required")
        mask = self._entry("mask", item.mask, item)
        if mask.original != entry.original:
            raise DataError(_mismatch(item, entry.original, mask.original))
        labels, known = _tensor(mask), known_pixels(image, self.channels)
        return image, labels if known is None else labels.masked_fill(~known, VOID)

    def _entry(self, kind: str, path: Path, item: Item) -> Entry:
        if self._cache is None:
            return self._load(kind, path, item)
        image, mask = (self.channels, self.bands, self.levels), (self.classes, self.ignore_index, item.encoding)
        key = (kind, *stamp(path), self.image_size, *(image if kind == "image" else mask))
        entry = self._cache.get(key)
        if entry is None:
            entry = self._load(kind, path, item)
            self._cache.put(key, entry)
        return entry

    def _load(self, kind: str, path: Path, item: Item) -> Entry:
        with pixel_limit(self.megapixels):
            if kind == "image":
                options: dict[str, Any] = {"bands": self.bands, "levels": self.levels}
                array: NDArray[Any] = read_image(path, self.channels, **options, with_known=True)
            else:
                array = training_labels(item, classes=self.classes, ignore_index=self.ignore_index)
        original = (array.shape[0], array.shape[1])
        if self.image_size is not None and self.image_size != original:
            resampling = Image.Resampling.BILINEAR if kind == "image" else Image.Resampling.NEAREST
            array = _resize(array, self.image_size, resampling)
        return Entry(np.ascontiguousarray(array), original)


@dataclass
class LazyReader:
    """A `Reader` for training that returns `Large` for files with too many pixels to decode whole.

    Supports NumPy files and tiled or striped TIFF files above the pixel limit, which are not cached. With `image_size`,
    such files raise DataError, because resizing requires the whole file.
    """

    reader: Reader

    def read(self, item: Item, with_mask: bool) -> tuple[Tensor | Large, Tensor | Large | None]:
        """Like `Reader.read`. Raises DataError for files that can be neither decoded whole nor read in windows."""
        reader = self.reader
        try:
            return reader.read(item, with_mask)
        except TooLarge:
            if reader.image_size is not None:
                raise
        with pixel_limit(reader.megapixels):
            windows = open_windows(item.image, reader.channels, bands=reader.bands, levels=reader.levels)
            if windows is None:  # raises an error if the image is too large; otherwise, only the mask is
                image: Tensor | Large = reader.read(item, False)[0]
            else:
                read, bands = partial(windows.read, with_known=True), reader.channels + windows.raster.may_miss
                image = self._large((bands, *windows.size), read, windows.raster)
            if not with_mask:
                return image, None
            labels = label_reader(item, classes=reader.classes, ignore_index=reader.ignore_index)
            check_sizes([item])
        return image, self._large(image.shape[-2:], labels)

    def _large(
        self, shape: tuple[int, ...], read: Callable[[Box], NDArray[Any]], raster: Raster | None = None
    ) -> Large:
        """Wrap `read` as `Large`. raster: an image's header, used to limit the size of crops. None: a mask."""

        def within_limit(box: Box) -> NDArray[Any]:
            with pixel_limit(self.reader.megapixels):
                if raster is not None:
                    check_pixels(raster.path, box[2] - box[0], box[3] - box[1], raster.bands, part="crops")
                return read(box)

        return Large(shape, within_limit)


def _tensor(entry: Entry) -> Tensor:
    values = torch.from_numpy(entry.array)
    return values.movedim(-1, 0) if values.dim() == 3 else values


def check_sizes(items: Sequence[Item]) -> None:
    """Compare the sizes of images and masks in their headers. Raises DataError for the first mismatch."""
    for item in items:
        if item.mask is not None:
            image, mask = file_size(item.image), file_size(item.mask)
            if image != mask:
                raise DataError(_mismatch(item, image, mask))


def _resize(array: NDArray[Any], size: Size, resampling: Image.Resampling) -> NDArray[Any]:
    """Resize (H,W) or (H,W,C), uint8 or float32, with Pillow: RGB at once, other images one band at a time."""
    if array.ndim == 3 and not (array.shape[2] == 3 and array.dtype == np.uint8):
        bands = [_resize(np.ascontiguousarray(array[..., band]), size, resampling) for band in range(array.shape[2])]
        return np.stack(bands, 2)
    return np.array(Image.fromarray(array).resize((size[1], size[0]), resampling), dtype=array.dtype)


def _mismatch(item: Item, image: Size, mask: Size) -> str:
    sizes = f"is {mask[0]}x{mask[1]} (height x width), but its image {item.image} is {image[0]}x{image[1]}"
    advice = "; the sides are swapped, as if the image's EXIF orientation had been ignored: rotate the mask"
    return f"{item.mask}: {sizes}; expected the same size" + advice * (mask == image[::-1])
