"""SBD's masks: files that scipy has written, whole and damaged."""

import random
import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from fuzzyseg.data import DataError
from fuzzyseg.data.io.mat import read_matlab_mask

MASK = np.random.default_rng(0).integers(0, 21, (23, 37)).astype(np.uint8)


def mat(path, values=MASK, compress=True, kind=np.uint8, field="Segmentation", name="GTcls"):
    """A file as SBD's are: a structure with cells of sparse boundaries, the mask and a list of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = np.zeros((1, 1), dtype=[("Boundaries", object), (field, object), ("CategoriesPresent", object)])
    content[0, 0] = (np.zeros((20, 1), dtype=object), np.array(values, kind), np.array([[15, 3]], np.uint8))
    savemat(path, {"first": np.eye(3), name: content}, do_compression=compress)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int8])
@pytest.mark.parametrize("shape", [(23, 37), (1, 1), (1, 3), (4, 1)])
def test_masks_are_read_as_scipy_reads_them(tmp_path, kind, shape):
    path = tmp_path / "a.mat"
    mat(path, MASK[: shape[0], : shape[1]], kind=kind)
    result = read_matlab_mask(path)
    np.testing.assert_array_equal(result, loadmat(path)["GTcls"]["Segmentation"][0, 0])
    np.testing.assert_array_equal(result, MASK[: shape[0], : shape[1]])
    assert result.dtype == kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "GTinst"}, "GTcls"),
        ({"field": "Segments"}, "Segmentation"),
        ({"kind": np.float64}, r"found float64 values of shape \(23, 37\)"),
        ({"values": np.zeros((2, 3, 4))}, r"found uint8 values of shape \(2, 3, 4\)"),
        ({"values": np.zeros((0, 3))}, "found|cannot be decoded"),
        ({"compress": False}, "not compressed"),
    ],
)
def test_other_content_is_named(tmp_path, change, message):
    mat(tmp_path / "a.mat", **change)
    with pytest.raises(DataError, match=rf"a\.mat: .*{message}.*GTcls\.Segmentation"):
        read_matlab_mask(tmp_path / "a.mat")


def test_damaged_files_are_read_right_or_named(tmp_path):
    path = tmp_path / "a.mat"
    mat(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.mat"):
            read_matlab_mask(path)
    draw, told = random.Random(0), []
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(bytes(data))
        try:
            result = read_matlab_mask(path)
        except DataError as error:
            told.append(str(error))
            continue
        np.testing.assert_array_equal(result, MASK)
    assert len(told) > 50
    assert all("a.mat" in text for text in told)


def test_what_unpacks_to_more_than_a_mask_is_refused(tmp_path):
    path = tmp_path / "a.mat"
    mat(path)
    packed = zlib.compress(bytes(2**28 + 8), 9)
    path.write_bytes(path.read_bytes()[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(DataError, match=r"a\.mat: .*too large"):
        read_matlab_mask(path)
