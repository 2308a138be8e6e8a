"""Samples per second and core: fuzzyseg with a warm cache, compared with code that a user would write.

    python benchmarks/data.py --data CAMVID

All variants run in turn in one process on one thread; the result is the median over the rounds. Each reads image and
mask, scales them by a random factor, crops, flips and normalises:

- fuzzyseg: its reader, transforms, stacking and normalisation, with each kind of cache;
- torchvision: PIL and torchvision's functional transforms, item by item;
- fuzzyseg, ... strong: an image and two strong views, as for FixMatch and UniMatch; colours are changed when reading,
  or drawn only and applied on the device (`augment.on_device`);
- usual: typical research code, rewritten: arrays, the whole image resized, then cropped and flipped, item by item.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from fuzzyseg.data import Item, Reader, read_dataset
from fuzzyseg.data.transforms.geometry import Geometry, make_sample, stacked
from fuzzyseg.data.views import Weak, WeakStrong, normalised

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 8
Batches = Callable[[list[Item], int, int, tuple[float, float]], object]


def strong_arm(reader: Reader, later: bool) -> Batches:
    """Work of a data worker for one batch of `WeakStrong(2)`; the device normalises in both cases."""

    def batch(items: list[Item], seed: int, crop: int, scale: tuple[float, float]) -> object:
        options = {"geometry": Geometry(crop=(crop, crop), scale=scale), "mean": MEAN, "std": STD}
        samples = []
        for number, item in enumerate(items):
            image, _ = reader.read(item, False)
            view = WeakStrong(strong=2)
            samples.append(make_sample(view, image, None, seed=seed + number, colours_later=later, **options))
        return {key: stacked([sample[key] for sample in samples]) for key in samples[0]}

    return batch


def fuzzyseg_arm(reader: Reader) -> Batches:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)

    def batch(items: list[Item], seed: int, crop: int, scale: tuple[float, float]) -> object:
        geometry = Geometry(crop=(crop, crop), scale=scale)
        samples = []
        for number, item in enumerate(items):
            image, mask = reader.read(item, True)
            samples.append(make_sample(Weak(), image, mask, geometry=geometry, mean=MEAN, std=STD, seed=seed + number))
        joined = {key: stacked([sample[key] for sample in samples]) for key in samples[0]}
        return normalised(joined["image"], joined["valid"], mean, std), joined["mask"].long()

    return batch


def torchvision_arm(items: list[Item], seed: int, crop: int, scale: tuple[float, float]) -> object:
    images, masks = [], []
    for number, item in enumerate(items):
        draw = random.Random(seed + number)
        image, mask = Image.open(item.image).convert("RGB"), Image.open(item.mask)
        factor = draw.uniform(*scale)
        width, height = round(image.width * factor), round(image.height * factor)
        image = tv.pil_to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))
        mask = tv.pil_to_tensor(mask.resize((width, height), Image.Resampling.NEAREST))
        padding = [0, 0, max(0, crop - width), max(0, crop - height)]
        image, mask = tv.pad(image, padding), tv.pad(mask, padding, fill=255)
        top, left = draw.randint(0, image.shape[-2] - crop), draw.randint(0, image.shape[-1] - crop)
        image, mask = tv.crop(image, top, left, crop, crop), tv.crop(mask, top, left, crop, crop)
        if draw.random() < 0.5:
            image, mask = tv.hflip(image), tv.hflip(mask)
        images.append(tv.normalize(tv.to_dtype(image, torch.float32, scale=True), MEAN, STD))
        masks.append(mask.long())
    return torch.stack(images), torch.stack(masks)


def usual_arm(items: list[Item], seed: int, crop: int, scale: tuple[float, float]) -> object:
    images, masks = [], []
    for number, item in enumerate(items):
        draw = random.Random(seed + number)
        image, mask = Image.open(item.image).convert("RGB"), Image.open(item.mask)
        factor = draw.uniform(*scale)
        size = (int(image.width * factor), int(image.height * factor))
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32) / 255
        labels = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
        if draw.random() < 0.5:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        pixels = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        below, right = max(0, crop - size[1]), max(0, crop - size[0])
        pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)))
        labels = np.pad(labels, ((0, below), (0, right)), constant_values=255)
        top, left = draw.randint(0, len(pixels) - crop), draw.randint(0, pixels.shape[1] - crop)
        window = pixels[top : top + crop, left : left + crop].transpose(2, 0, 1)
        images.append(torch.from_numpy(np.ascontiguousarray(window)))
        masks.append(torch.from_numpy(np.ascontiguousarray(labels[top : top + crop, left : left + crop])).long())
    return torch.stack(images), torch.stack(masks)


def measure(arms: dict[str, Batches], items: list[Item], args: argparse.Namespace) -> dict[str, float]:
    """Images per second of each variant: the median over the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():  # caches and imports are warm when the clock starts
        for start in range(0, len(items), BATCH):
            arm(items[start : start + BATCH], 0, args.crop, tuple(args.scale))
    for number in range(args.rounds):
        for name, arm in arms.items():
            begin = time.perf_counter()
            for start in range(0, len(items), BATCH):
                arm(items[start : start + BATCH], number * 10_000 + start, args.crop, tuple(args.scale))
            rates[name].append(len(items) / (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CamVid folder")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--crop", type=int, default=320)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.5, 2.0))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = read_dataset(args.data)
    items = [item for item in dataset.train if item.mask is not None][: args.images]
    with tempfile.TemporaryDirectory() as folder:
        common = {"channels": 3, "classes": len(dataset.classes), "ignore_index": dataset.ignore_index}
        arms: dict[str, Batches] = {
            "fuzzyseg, cache ram": fuzzyseg_arm(Reader(**common, cache_bytes=2**31)),
            "fuzzyseg, cache disk": fuzzyseg_arm(Reader(**common, cache_bytes=2**31, cache_dir=Path(folder))),
            "fuzzyseg, cache none": fuzzyseg_arm(Reader(**common)),
            "fuzzyseg, cache ram, 2 strong": strong_arm(Reader(**common, cache_bytes=2**31), False),
            "fuzzyseg, cache ram, 2 strong, on the device": strong_arm(Reader(**common, cache_bytes=2**31), True),
            "torchvision": torchvision_arm,
            "usual": usual_arm,
        }
        rates = measure(arms, items, args)
    print(f"crop {args.crop}, scale {args.scale[0]} to {args.scale[1]}, {len(items)} images, one thread, "
          f"torch {torch.__version__}, {platform.processor() or platform.machine()}\n")  # fmt: skip
    print("| arm | images/s | x torchvision | x usual |\n| --- | --- | --- | --- |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / rates['torchvision']:.2f} | {rate / rates['usual']:.2f} |")
    if args.json:
        args.json.write_text(json.dumps({"settings": vars(args) | {"json": None}, "rates": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
