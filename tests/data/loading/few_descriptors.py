"""Run by test_cache in a process of its own, which may open few files: trains for two epochs of more files than those.

Arguments: an empty folder, the number of files that may be open, the number of images.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fuzzyseg.data import Item, Reader
from fuzzyseg.data.loading.loader import Loader
from fuzzyseg.data.transforms.geometry import Geometry
from fuzzyseg.data.views import Stream, Weak

if __name__ == "__main__":
    folder, most, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    items = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
        items.append(Item(path, None, path.stem))
    reader = Reader(3, 2, 255, cache_bytes=2**30, cache_dir=folder / "cache")
    for item in items:
        reader.read(item, False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loader = Loader(
        {"all": Stream(Weak(), "all")},
        {"all": items},
        reader,
        geometry=Geometry((8, 8)),
        jitter=0.0,
        mean=[0.5] * 3,
        std=[0.2] * 3,
        batch=10,
        accumulate=1,
        seed=0,
        workers=1,
    )
    seen = [name for step in loader.batches(0, 2 * count // 10) for name in step[0]["all"].name]
    sys.stdout.write(f"{len(set(seen))} of {count} files, {'twice' if len(seen) == 2 * count else len(seen)}")
