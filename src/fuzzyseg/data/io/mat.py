"""SBD masks: MATLAB files (version 5) whose `GTcls.Segmentation` contains the class index of each pixel.

Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011. On damaged data, scipy's reader may crash the
process (segmentation fault). SBD's variables are compressed and have a checksum, which is therefore verified first.
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
"""Maximum size of a decompressed variable, in bytes. The largest in SBD is a few hundred kB."""

HEADER, COMPRESSED = 128, 15


def read_matlab_mask(path: Path) -> NDArray[np.integer]:
    """Read a class mask (H, W) from SBD's `cls/`: 0 is background, 1 to 20 are classes. Raises DataError."""
    from scipy.io import loadmat

    expected = "expected a mask of SBD's folder cls/, with GTcls.Segmentation"
    data = read_bytes(path)
    try:
        _verify(data)
        mask = np.ascontiguousarray(loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises many types
        raise DataError(f"{path}: cannot be decoded ({error}); {expected}") from None
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "iu":
        raise DataError(f"{path}: found {mask.dtype} values of shape {mask.shape}; {expected}, integers (H, W)")
    return mask


def _verify(data: bytes) -> None:
    """Raise ValueError, struct.error or zlib.error unless the file is a sequence of complete compressed variables."""
    if data[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise ValueError("it is not a MATLAB 5 file")
    place = HEADER
    while place < len(data):
        code, size = struct.unpack_from("<II" if data[126:128] == b"IM" else ">II", data, place)
        place += 8 + size
        unpacker = zlib.decompressobj()
        if code != COMPRESSED or place > len(data):
            raise ValueError("a variable is not compressed or is truncated")
        unpacker.decompress(data[place - size : place], LARGEST)
        if not unpacker.eof:
            raise ValueError("its compressed data is truncated or too large")
