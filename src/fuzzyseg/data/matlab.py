"""SBD's masks: MATLAB files with a structure `GTcls` whose field `Segmentation` holds a class index a pixel.

Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from fuzzyseg.data.items import DataError

SUFFIX = ".mat"
LARGEST = 16 * 2**20
"""Bytes; SBD's files have some 10 thousand. They are compressed, so a larger one could unpack to anything."""


def read_matlab_mask(path: Path) -> NDArray[np.integer]:
    """The class mask (H, W) of one file of SBD's `cls/` folder: 0 background, 1 to 20. Raises DataError."""
    expected = "expected a mask of SBD's folder cls/, with GTcls.Segmentation"
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise DataError(f"{path}: has {size} bytes; {expected}, of at most {LARGEST} bytes")
        content = loadmat(path, variable_names=["GTcls"], struct_as_record=True, squeeze_me=True)
        mask = np.asarray(content["GTcls"]["Segmentation"].item())
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        raise DataError(f"{path}: cannot be decoded ({type(error).__name__}: {error}); {expected}") from None
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "iu":
        raise DataError(
            f"{path}: found {mask.dtype} values of shape {mask.shape}; {expected}, integers of shape (H, W)"
        )
    return mask
