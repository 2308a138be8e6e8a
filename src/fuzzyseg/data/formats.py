"""All that opens or writes an image or mask file, by one name. Whatever is wrong becomes a DataError that names it."""

from __future__ import annotations

from fuzzyseg.data.headers import Header, file_size, read_header
from fuzzyseg.data.images import Image, Levels, Pixels, Windows, open_windows, read_image, read_native
from fuzzyseg.data.masks import Colour, palette_of, read_colours, read_mask, save_index_png, to_training_mask, values_in
from fuzzyseg.data.opening import SUFFIXES, check_pixels, counted, pixel_limit, short
from fuzzyseg.data.pictures import PngRows, default_colours, overlay, save_array, save_picture, to_picture
from fuzzyseg.data.rasters import ORIENTATION, Box

__all__ = [
    "ORIENTATION",
    "SUFFIXES",
    "Box",
    "Colour",
    "Header",
    "Image",
    "Levels",
    "Pixels",
    "PngRows",
    "Windows",
    "check_pixels",
    "counted",
    "default_colours",
    "file_size",
    "open_windows",
    "overlay",
    "palette_of",
    "pixel_limit",
    "read_colours",
    "read_header",
    "read_image",
    "read_mask",
    "read_native",
    "save_array",
    "save_index_png",
    "save_picture",
    "short",
    "to_picture",
    "to_training_mask",
    "values_in",
]
