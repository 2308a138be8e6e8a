"""Synthetic demo dataset with groups of three similar classes.

FPL assigns K > 1 fuzzy positives only where p_(1) + p_(2) <= T, so at least three classes must compete. Each class has
two siblings of similar colour and texture, while the groups are distinct. Lighting, colour cast and noise vary between
images.
"""

from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.data.dataset_yaml import FILE
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.io.write import default_colours, written_beside
from fuzzyseg.data.sample import DataError, Size

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

# One row per group: base colour and three classes.
GROUPS: tuple[tuple[tuple[int, int, int], tuple[str, str, str]], ...] = (
    ((86, 142, 70), ("moss", "grass", "shrub")),
    ((176, 116, 78), ("clay", "brick", "bark")),
    ((74, 112, 176), ("water", "ice", "slate")),
)

CLASSES = ("ground", *(name for _, names in GROUPS for name in names))

FREQUENCY = (0.4, 0.32, 0.28)  # probability of each class within a group
TINT = 22.0  # scale of the shift from a group's base colour to a class's mean colour, in grey levels
TINT_SPREAD = 9.0  # standard deviation of an object's colour around its class mean, in grey levels
WAVELENGTH = (11.0, 6.5, 4.0)  # texture wavelength of the three siblings, in pixels
WAVELENGTH_SPREAD = 0.2  # relative standard deviation of the wavelength between objects
CONTRAST = 14.0  # standard deviation of the texture, in grey levels
NOISE = 9.0  # standard deviation of the noise per pixel and channel, in grey levels

_SHIFTS = np.array([(1.0, 0.2, -0.6), (-0.6, 1.0, 0.2), (0.2, -0.6, 1.0)])  # direction of each sibling's colour shift


def _texture(rng: np.random.Generator, y: Floats, x: Floats, wavelength: float) -> Floats:
    """Return a random pattern with roughly unit variance: waves of similar wavelength in random directions."""
    waves = 5
    angle = rng.uniform(0, np.pi, waves)
    length = wavelength * rng.uniform(0.85, 1.15, waves)
    phase = rng.uniform(0, 2 * np.pi, waves)
    total = np.zeros_like(y)
    for direction, step, start in zip(angle, 2 * np.pi / length, phase, strict=True):
        total += np.sin(step * (np.cos(direction) * x + np.sin(direction) * y) + start)
    pattern: Floats = total * np.sqrt(2 / waves)
    return pattern


def _blob(rng: np.random.Generator, y: Floats, x: Floats) -> NDArray[np.bool_]:
    """Return the mask (H, W) of a randomly placed ellipse with a wavy outline."""
    height, width = y.shape
    dy, dx = y - rng.uniform(0, height), x - rng.uniform(0, width)
    turn = rng.uniform(0, np.pi)
    u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    radius = rng.uniform(0.16, 0.34) * min(height, width)
    stretch = rng.uniform(1.0, 1.8)
    outline = 1 + rng.uniform(0, 0.2) * np.sin(rng.integers(2, 6) * np.arctan2(v, u) + rng.uniform(0, 2 * np.pi))
    inside: NDArray[np.bool_] = np.hypot(u / stretch, v * stretch**0.5) < radius * outline
    return inside


def draw_sample(rng: np.random.Generator, size: Size = (96, 128)) -> tuple[Bytes, Bytes]:
    """Draw an image (H, W, 3) and its mask (H, W) with indices into `CLASSES`."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.full((height, width, 3), 128.0) + (9 * _texture(rng, y, x, 18.0))[..., None]
    mask = np.zeros(size, dtype=np.uint8)
    for _ in range(rng.integers(5, 9)):
        group, kind = int(rng.integers(len(GROUPS))), int(rng.choice(3, p=FREQUENCY))
        inside = _blob(rng, y, x)
        colour = np.array(GROUPS[group][0]) + TINT * _SHIFTS[kind] + rng.normal(0, TINT_SPREAD, 3)
        wavelength = WAVELENGTH[kind] * np.exp(rng.normal(0, WAVELENGTH_SPREAD))
        image[inside] = colour + CONTRAST * _texture(rng, y[inside], x[inside], wavelength)[:, None]
        mask[inside] = 1 + 3 * group + kind
    slope = rng.uniform(-0.25, 0.25, 2)
    light = rng.uniform(0.8, 1.2) + slope[0] * (y / height - 0.5) + slope[1] * (x / width - 0.5)
    cast = np.exp(rng.normal(0, 0.04, 3))
    image = image * light[..., None] * cast + rng.normal(0, NOISE, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


def write_demo(root: str | Path, *, seed: int = 0, train: int = 160, val: int = 40, size: Size = (96, 128)) -> None:
    """Write `train` and `val` images of `size` (H, W) with masks and `dataset.yaml` in the folder layout.

    Image i of a split depends only on (seed, split, i). Raises DataError if the folder is not empty.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: is not an empty folder; expected a new or empty one")
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        for index in range(count):
            image, mask = draw_sample(np.random.default_rng([seed, number, index]), size)
            place = root / "images" / split / f"demo_{index:04d}.png"
            with written_beside(place) as part:
                Image.fromarray(image).save(part, compress_level=1)
            save_index_png(mask, root / "masks" / split / place.name)
    colours = [list(colour) for colour in default_colours(len(CLASSES))]
    text = yaml.safe_dump({"classes": list(CLASSES), "colours": colours}, sort_keys=False, default_flow_style=None)
    with written_beside(root / FILE) as part:  # last, to mark the folder as complete
        part.write_text(text, encoding="utf-8")
