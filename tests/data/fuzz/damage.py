"""Ways in which a file is damaged: bytes -> bytes, drawn from a generator."""

from __future__ import annotations

import random
import re
import struct
import zlib


def _place(rng, data):
    return rng.randrange(max(1, len(data)))


def untouched(rng, data):
    """Shows that files are read at all."""
    return data


def truncated(rng, data):
    return data[: rng.randrange(1, max(2, len(data)))]


def last_bytes_lost(rng, data):
    return data[: -rng.randrange(1, 13)]


def nothing_left(rng, data):
    return b""


def zeros(rng, data):
    return bytes(len(data))


def one_bit(rng, data):
    damaged = bytearray(data)
    damaged[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def early_bit(rng, data):
    """Headers lie at the start, where a random place seldom falls."""
    damaged = bytearray(data)
    damaged[rng.randrange(min(64, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def many_bits(rng, data):
    for _ in range(rng.randrange(2, 20)):
        data = one_bit(rng, data)
    return data


def zero_run(rng, data):
    a = _place(rng, data)
    b = min(len(data), a + rng.randrange(1, 40))
    return data[:a] + bytes(b - a) + data[b:]


def noise_run(rng, data):
    a = _place(rng, data)
    b = min(len(data), a + rng.randrange(1, 40))
    return data[:a] + rng.randbytes(b - a) + data[b:]


def cut_out(rng, data):
    a = _place(rng, data)
    return data[:a] + data[a + rng.randrange(1, 40) :]


def said_twice(rng, data):
    a = _place(rng, data)
    b = a + rng.randrange(1, 40)
    return data[:b] + data[a:]


def more_behind(rng, data):
    return data + rng.randbytes(rng.randrange(1, 40))


def text_instead(rng, data):
    return rng.choice(
        [b"not an image\n", b"<html>404</html>", b"\x00", b"version https://git-lfs.github.com/spec/v1\n"]
    )


def other_digits(rng, data):
    """Numbers of a text file become other numbers: huge, negative, no numbers."""
    places = list(re.finditer(rb"\d+", data))
    if not places:
        return one_bit(rng, data)
    place = rng.choice(places)
    value = rng.choice([b"-1", b"0", b"99999999999", b"1e999", b"3.5", b"null", b'"x"', b"[]", b"4294967296"])
    return data[: place.start()] + value + data[place.end() :]


BINARY = [
    untouched,
    truncated,
    last_bytes_lost,
    nothing_left,
    zeros,
    one_bit,
    one_bit,
    early_bit,
    early_bit,
    many_bits,
    zero_run,
    noise_run,
    cut_out,
    said_twice,
    more_behind,
    text_instead,
]
TEXT = [*BINARY, other_digits, other_digits, other_digits]


def huge(data: bytes, suffix: str, side: int = 60_000) -> bytes:
    """The same file, of which the header promises side x side pixels; checksums are right."""
    if suffix == ".png":
        head = struct.pack(">II", side, side) + data[24:29]
        return data[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + data[33:]
    if suffix == ".jpg":
        place = next(data.index(bytes([0xFF, mark])) for mark in (0xC0, 0xC2) if bytes([0xFF, mark]) in data)
        return data[: place + 5] + struct.pack(">HH", side, side) + data[place + 9 :]
    if suffix == ".bmp":
        return data[:18] + struct.pack("<ii", side, side) + data[26:]
    if suffix == ".npy":
        shape = re.search(rb"'shape': \([^)]*\)", data)
        new = f"'shape': ({side}, {side})".encode()
        gap = shape.end() - shape.start()
        assert len(new) >= gap
        rest = data[shape.end() :]
        pad = len(new) - gap  # blanks before the end of the header make room
        return data[: shape.start()] + new + rest.replace(b" " * pad + b"\n", b"\n", 1)
    if suffix == ".tif":
        return _tiff(data, side)
    if suffix == ".webp":
        place = data.index(b"VP8L") + 9
        bits = struct.unpack("<I", data[place : place + 4])[0]
        return data[:place] + struct.pack("<I", (bits & ~0xFFFFFFF) | 0x3FFF | 0x3FFF << 14) + data[place + 4 :]
    raise ValueError(suffix)


def _tiff(data: bytes, side: int) -> bytes:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[start : start + 2])
    damaged = bytearray(data)
    for entry in range(count):
        place = start + 2 + 12 * entry
        tag, _, _ = struct.unpack(order + "HHI", data[place : place + 8])
        if tag in (256, 257, 278):
            damaged[place + 2 : place + 12] = struct.pack(order + "HII", 4, 1, side)
    return bytes(damaged)


def drawn(ways, data: bytes, number: int, seed: str) -> bytes:
    """The damage of one number: the ways in turn."""
    rng = random.Random(f"{seed}/{number}")
    return ways[number % len(ways)](rng, data)
