"""Record of a results folder: what was predicted, from which file and how, so that prediction can be resumed."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.data import DataError
from fuzzyseg.data.io.write import written_beside
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.ops import distributed

NAME = "predictions"
ADVICE = "choose another --out, or --overwrite to predict all images again and replace these files"
Line = dict[str, Any]


class Record:
    """The file predictions.jsonl: a line with `how`, then one or more lines per image, the last of which is valid.

    An image that is incomplete or failed has no `outputs`; its line means that files with its name may be replaced.
    Each process appends to a separate file; `gather` merges them. A truncated line is ignored: its image is predicted
    again.
    """

    def __init__(self, out: Path, how: Mapping[str, Any], *, overwrite: bool, advice: str = ADVICE) -> None:
        """Read the lines in `out`. Raises DataError with `advice` if their `how` differs. overwrite: ignore outputs."""
        self.out, self._how = out, json.loads(json.dumps({"how": how}))  # tuples become lists
        lines = [line for path in self._files() for line in _read(path)]
        forgotten: Line = {"outputs": {}} if overwrite else {}
        self.lines = {line["image"]: line | forgotten for line in lines if "outputs" in line}
        recorded: dict[str, Any] = next((line["how"] for line in lines if "how" in line), {})
        if any(line["outputs"] for line in self.lines.values()) and recorded != self._how["how"]:
            names = [name for name, value in self._how["how"].items() if recorded.get(name) != value]
            raise DataError(f"{out}: contains predictions of another {', '.join(names)}; {advice}")
        distributed.barrier()  # all processes have read the files to be replaced
        if distributed.rank() == 0 and self._files():
            self.join()
        distributed.barrier()

    def _files(self) -> list[Path]:
        return sorted(self.out.glob(f"{NAME}*.jsonl"), reverse=True)  # the other processes' lines are newer

    def _states(self, image: str) -> dict[str, list[int]]:
        """Return the states of an image's outputs, or {} if one is missing or empty."""
        outputs = self.lines.get(image, {}).get("outputs", ())
        states = {output: state_of(self.out / output) for output in outputs if (self.out / output).is_file()}
        return states if len(states) == len(outputs) and all(size for size, _ in states.values()) else {}

    def complete(self, image: str, file: Path) -> Line | None:
        """Return the line of an image if its file is unchanged and its outputs exist, otherwise None."""
        return self.lines[image] if self._states(image) and self.lines[image]["file"] == state_of(file) else None

    def edited(self, image: str) -> list[Path]:
        """Return the outputs of an image that were changed after they were written, if all exist."""
        states = self._states(image).items()
        return [self.out / output for output, state in states if self.lines[image]["outputs"][output] != state]

    def add(self, image: str, outputs: Sequence[str] = (), **about: Any) -> None:
        """Append a line for an image. about: its `file` state and `pixels` by mask value, or the `error`."""
        states = {output: state_of(self.out / output) for output in outputs}
        line = self.lines[image] = {"image": image, "outputs": states, **about}
        rank = distributed.rank()
        path = self.out / f"{NAME}{f'-{rank}' if rank else ''}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as part:
            part.write(f"{'' if part.tell() else _text(self._how)}{_text(line)}")

    def gather(self) -> None:
        """Merge the lines of all processes, all of which must have finished."""
        for path in self._files():
            self.lines |= {line["image"]: line for line in _read(path) if "image" in line}
        if len(self._files()) > 1:
            self.join()

    def join(self) -> None:
        """Replace all files with a single one that has one line per image."""
        with written_beside(self.out / f"{NAME}.jsonl") as part:
            part.write_text("".join(map(_text, [self._how, *self.lines.values()])), encoding="utf-8")
        for path in self._files():
            if path.stem != NAME:
                path.unlink()


def _text(line: Line) -> str:
    return json.dumps(line) + "\n"


def _read(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, skipping truncated ones and any that are not objects."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, RecursionError):
            if isinstance(line := json.loads(text), dict):
                yield line


def state_of(file: Path) -> list[int]:
    """Return the size and modification time of a file."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def checksum(predictor: Predictor) -> str:
    """Return the SHA-256 of a model's card and weights."""
    digest = hashlib.sha256(json.dumps(asdict(predictor.card)).encode())
    for name, value in predictor.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
