"""SBD's masks: MATLAB files (version 5) with a structure `GTcls` whose field `Segmentation` is a class index a pixel.

Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011. scipy's reader may end the process
(segmentation fault) on damaged data. SBD's variables are compressed, with a checksum: it is verified first, so that
scipy sees whole data only.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.pillow import read_bytes
from fuzzyseg.data.sample import DataError

SUFFIX = ".mat"
LARGEST = 2**25
"""Bytes that a compressed variable may unpack to; SBD's largest have some hundred thousand."""

HEADER, COMPRESSED = 128, 15


def read_matlab_mask(path: Path) -> NDArray[np.integer]:
    """The class mask (H, W) of one file of SBD's `cls/` folder: 0 background, 1 to 20. Raises DataError naming it."""
    from scipy.io import loadmat

    expected = "expected a mask of SBD's folder cls/, with GTcls.Segmentation"
    data = read_bytes(path)
    try:
        _verify(data)
        mask = np.ascontiguousarray(loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises nearly anything
        raise DataError(f"{path}: cannot be decoded ({error}); {expected}") from None
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "iu":
        raise DataError(f"{path}: found {mask.dtype} values of shape {mask.shape}; {expected}, integers (H, W)")
    return mask


def _verify(data: bytes) -> None:
    """Raises ValueError, struct.error or zlib.error unless the file is a sequence of whole compressed variables."""
    if data[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise ValueError("it is no MATLAB file of version 5")
    place = HEADER
    while place < len(data):
        code, size = struct.unpack_from("<II" if data[126:128] == b"IM" else ">II", data, place)
        place += 8 + size
        unpacker = zlib.decompressobj()
        if code != COMPRESSED or place > len(data):
            raise ValueError("a variable is not compressed, or cut")
        unpacker.decompress(data[place - size : place], LARGEST)
        if not unpacker.eof:
            raise ValueError("its compressed data is cut or too large")
