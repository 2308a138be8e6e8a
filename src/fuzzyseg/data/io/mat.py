"""SBD's masks: MATLAB files (version 5) with a structure `GTcls` whose field `Segmentation` is a class index a pixel.

Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011. The files are walked here, by MathWorks'
"MAT-file format", with every length checked: scipy's reader ends the whole process (segmentation fault) on some damaged
ones.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.sample import DataError

SUFFIX = ".mat"
LARGEST = 2**25
"""Bytes that a compressed variable may unpack to; SBD's largest have some hundred thousand."""

HEADER = 128
MATRIX, COMPRESSED = 14, 15
CELL, STRUCTURE = 1, 2
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Code of stored numbers -> numpy's."""
KINDS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Class of an array -> numpy's. Numbers may be stored in a smaller type than they have."""


class _Wrong(ValueError):
    """What does not fit the format."""


@dataclass(frozen=True)
class _Matrix:
    """An array as stored: its class, dimensions, name, and the bytes that follow these."""

    kind: int
    shape: tuple[int, ...]
    name: str
    content: memoryview


def read_matlab_mask(path: Path) -> NDArray[np.integer]:
    """The class mask (H, W) of one file of SBD's `cls/` folder: 0 background, 1 to 20. Raises DataError naming it."""
    expected = "expected a mask of SBD's folder cls/, with GTcls.Segmentation"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        mask = _segmentation(data)
    except (_Wrong, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be decoded ({error}); {expected}") from None
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "iu":
        raise DataError(f"{path}: found {mask.dtype} values of shape {mask.shape}; {expected}, integers (H, W)")
    return mask


def _segmentation(data: bytes) -> NDArray[Any]:
    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        raise _Wrong("it is no MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    for code, content in _elements(memoryview(data)[HEADER:], order):
        if code == COMPRESSED:
            code, content = next(_elements(memoryview(_unpacked(content)), order))
        if code == MATRIX and (matrix := _matrix(content, order)).name == "GTcls":
            return _numbers(_field(matrix, "Segmentation", order), order)
    raise _Wrong("it has no variable GTcls")


def _unpacked(content: memoryview) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(content, LARGEST)
    if not unpacker.eof:
        raise _Wrong("its compressed data is cut or too large")
    return data


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The data elements of a sequence: type code and content. Short ones are stored within their own tag."""
    place = 0
    while place < len(data):
        (first,) = struct.unpack_from(f"{order}I", data, place)
        if first >> 16:
            code, size, start, end = first & 0xFFFF, first >> 16, place + 4, place + 8
            if size > 4:
                raise _Wrong("a short element is too long")
        else:
            code, (size,) = first, struct.unpack_from(f"{order}I", data, place + 4)
            start = place + 8
            end = start + size + (-size % 8 if code != COMPRESSED else 0)
        if start + size > len(data):
            raise _Wrong("an element is longer than the file")
        yield code, data[start : start + size]
        place = end


def _matrix(content: memoryview, order: str) -> _Matrix:
    parts = _elements(content, order)
    head = []
    for _ in range(3):
        part = next(parts, None)
        if part is None:
            raise _Wrong("an array is cut")
        head.append(part[1])
    (flags,) = struct.unpack_from(f"{order}I", head[0])
    if len(head[1]) % 4 or not 2 <= len(head[1]) // 4 <= 8:
        raise _Wrong("an array has no dimensions")
    shape = struct.unpack(f"{order}{len(head[1]) // 4}i", head[1])
    rest = content[_length(content, 3, order) :]
    return _Matrix(flags & 0xFF, shape, bytes(head[2]).decode("ascii"), rest)


def _length(content: memoryview, count: int, order: str) -> int:
    """How many bytes the first elements take."""
    place = 0
    for _ in range(count):
        (first,) = struct.unpack_from(f"{order}I", content, place)
        size = 0 if first >> 16 else struct.unpack_from(f"{order}I", content, place + 4)[0]
        place += 8 + size + -size % 8
    return place


def _field(matrix: _Matrix, name: str, order: str) -> _Matrix:
    """The array in a field of a structure of one element."""
    if matrix.kind != STRUCTURE or any(side != 1 for side in matrix.shape):
        raise _Wrong("GTcls is no single structure")
    parts = list(_elements(matrix.content, order))
    if len(parts) < 2 or len(parts[0][1]) != 4:
        raise _Wrong("GTcls has no fields")
    (width,) = struct.unpack(f"{order}i", parts[0][1])
    text = bytes(parts[1][1])
    if width < 1 or len(text) % width:
        raise _Wrong("the names of the fields of GTcls are cut")
    names = [text[i : i + width].split(b"\0")[0].decode("ascii") for i in range(0, len(text), width)]
    if name not in names or len(parts) != 2 + len(names) or parts[2 + names.index(name)][0] != MATRIX:
        raise _Wrong(f"GTcls has no field {name}")
    return _matrix(parts[2 + names.index(name)][1], order)


def _numbers(matrix: _Matrix, order: str) -> NDArray[Any]:
    """The values of a numeric array, stored down the columns."""
    code, content = next(_elements(matrix.content, order), (0, memoryview(b"")))
    if matrix.kind not in KINDS or code not in STORED:
        raise _Wrong("Segmentation holds no numbers")
    kind = np.dtype(order + STORED[code])
    count = 1
    for side in matrix.shape:
        count *= max(side, 0)
    if count * kind.itemsize != len(content):
        raise _Wrong(f"Segmentation has {len(content)} bytes, its dimensions {matrix.shape} say {count} numbers")
    values = np.frombuffer(content, kind).astype(KINDS[matrix.kind])
    return np.ascontiguousarray(values.reshape(matrix.shape, order="F"))
