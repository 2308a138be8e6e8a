"""Reads damaged files of one family, in a process of its own: attempt.py FAMILY CASES FOLDER.

A line goes out before each case and one after it, so that a case that ends or stops the process is known.
"""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from functools import partial
from pathlib import Path

from binary import IMAGES, MASKS, coloured, huge_sizes, images, masks, saved
from damage import BINARY, TEXT, drawn, huge
from texts import ANNOTATIONS, LISTS, annotations, lists
from windows import FILES, WAYS, windows

FAMILIES = {
    "masks": (masks, {name: row[0] for name, row in MASKS.items()}, BINARY),
    "images": (images, {name: row[0] for name, row in IMAGES.items()}, BINARY),
    "lists": (lists, {name: text.encode() for name, text in LISTS.items()}, TEXT),
    "annotations": (
        annotations,
        {name: text.encode() or saved(coloured(3), "PNG") for name, text in ANNOTATIONS.items()},
        TEXT,
    ),
    "windows": (windows, FILES, WAYS),
}


def wrong_suffixes():
    """Every file under every other suffix."""
    tables = [(masks, MASKS), (images, IMAGES)]
    for attempt, table in tables:
        for name in table:
            for other, row in table.items():
                if Path(name).suffix != Path(other).suffix:
                    yield f"{other} as {name}", partial(attempt, source=other), name, row[0]


def oversized():
    """Huge sizes in the header of each kind of file, and a file that unpacks to a hundred times its size."""
    for table in (MASKS, IMAGES):
        for name, row in table.items():
            suffix = Path(name).suffix
            if suffix != ".mat" and not (suffix == ".webp" and row[0][12:16] != b"VP8L"):
                yield f"huge {name}", huge_sizes, name, huge(row[0], suffix)
    side = 12_000
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    yield "bomb.png", huge_sizes, "bomb.png", bomb
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(2**20)) for _ in range(256)) + rows.flush()
    head = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    yield "bomb.mat", huge_sizes, "bomb.mat", head + struct.pack("<II", 15, len(packed)) + packed


def cases(family, count):
    """Name, what is tried, file name, content."""
    if family == "special":
        yield from wrong_suffixes()
        yield from oversized()
        return
    attempt, files, ways = FAMILIES[family]
    for number in range(count):
        name = list(files)[number % len(files)]
        place = number // len(files)
        way = ways[place % len(ways)].__name__
        yield f"{number} {way} {name}", attempt, name, drawn(ways, files[name], place, name)


def main(family, count, folder):
    warnings.simplefilter("ignore")
    for case, attempt, name, data in cases(family, count):
        sys.stdout.write(f"begin {case}\n")
        sys.stdout.flush()
        try:
            verdict = attempt(folder, name, data)
        except Exception as error:
            verdict = f"WRONG {type(error).__name__}: {error}".replace("\n", " ")
        sys.stdout.write(f"end {verdict}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
