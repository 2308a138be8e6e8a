"""What generators of bad inputs work with: a good data set, run and model, and a new folder for each input."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.tiny_data import settings, write_folder

NETWORK = {"arch": "Unet", "encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8],
           "weights": "none"}  # fmt: skip
"""74,000 weights."""


@dataclass
class Bad:
    """A command that must be refused. what: what is wrong. nobody: run it without the rights of root."""

    what: str
    argv: list[str]
    nobody: bool = False


@dataclass
class Place:
    """good: folder of the good data set (`data`), an unfinished run (`begun`) and a finished one (`run`).

    folder: a new one for the input. pwned: a file that code in an input would create.
    """

    good: Path
    folder: Path
    rng: random.Random
    pwned: Path = field(init=False)

    def __post_init__(self) -> None:
        self.pwned = self.folder / "pwned"

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.good / name, self.folder / name, symlinks=True))

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    def recipe(self, **sections: Any) -> dict[str, Any]:
        return recipe_of(self.good / "data", self.folder / "out", **sections)

    def train(self, *more: str, data: Path | None = None, recipe: dict[str, Any] | None = None) -> list[str]:
        """The command that trains on `data`; with nothing else, it succeeds."""
        values = self.recipe() if recipe is None else recipe
        if data is not None:
            values["data"]["root"] = str(data)
        self.write("recipe.yaml", yaml.safe_dump(values))
        return ["train", str(self.folder / "recipe.yaml"), *more]


def recipe_of(data: Path, out: Path, **sections: Any) -> dict[str, Any]:
    """Settings of a training of one step."""
    short = {"steps": 1, "batch": 2, "threads": 1, "save_every": 1, "keep_checkpoints": 1}
    train = short | sections.pop("train", {})
    network = NETWORK | sections.pop("network", {})
    base = settings(data, out, train=train, network=network)
    base["method"], base["loss"] = {"name": "supervised"}, {"name": "paper"}
    return {**base, **{key: base.get(key, {}) | value for key, value in sections.items()}}


def prepare(good: Path) -> None:
    """Write the good data set and train the two runs. Imports all that a command may need."""
    from fuzzyseg.cli import app  # noqa: F401
    from fuzzyseg.experiment import train

    write_folder(good / "data", images=8, masks=6, val=2)
    for name, method in (("begun", "supervised"), ("run", "supervised"), ("other", "mean_teacher")):
        steps = {"steps": 2, "stop_at": 1} if name != "run" else {"steps": 1}
        recipe = recipe_of(good / "data", good / name, train=steps)
        recipe["method"] = {"name": method}
        train(recipe, quiet=True)


def flipped(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one to three bits flipped."""
    result = bytearray(content)
    for place in rng.sample(range(len(result)), min(len(result), rng.randint(1, 3))):
        result[place] ^= 1 << rng.randrange(8)
    return bytes(result)


def cut(content: bytes, rng: random.Random, *, most: float = 0.6) -> bytes:
    """A beginning of the bytes, at most this part."""
    return content[: rng.randrange(int(most * len(content)))]


def typo(name: str, rng: random.Random) -> str:
    """The name with a letter left out, doubled, exchanged or added."""
    place = rng.randrange(len(name))
    before, letter, after = name[:place], name[place], name[place + 1 :]
    return rng.choice((
        before + after, before + 2 * letter + after, before + letter + rng.choice("xqz_é日") + after,
        before + after[:1] + letter + after[1:], name.upper(), name + "s", "x" + name,
    ))  # fmt: skip
