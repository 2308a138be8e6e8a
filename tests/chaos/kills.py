"""Kill trainings at random moments, resume them, and compare them bit for bit with undisturbed ones.

    python tests/chaos/kills.py --kills 200 --seed 0 --json kills.json

One process imports torch once and forks a child per session, so that a session costs about a second. A child notes in
shared memory what it is doing; the parent waits until the child enters a phase, drawn at random, and kills it a random
time later. Each case is a method (or a variant of FPL) with a network of three layers.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a fork copies no thread pools

import argparse
import itertools
import json
import mmap
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import load_file

from fuzzyseg.data import read_dataset
from fuzzyseg.data.io.scores import write_scores
from fuzzyseg.engine import trainer
from fuzzyseg.engine.checkpoint import load
from fuzzyseg.experiment import train
from fuzzyseg.experiment.validation import Scoring
from fuzzyseg.methods import METHODS
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

training = sys.modules["fuzzyseg.experiment.train"]
LIMIT = 1800.0
"""Seconds after which a session counts as hung; on an idle machine it takes one or two."""
STEPS = 20
"""More than 16, after which AEL's sampling weights take effect."""
PHASES = ("prepare", "step", "save", "evaluate", "best", "export")
FUZZY: dict[str, dict[str, Any]] = {
    "cps+fpl": {"loss": {"name": "fuzzy"}},
    "cps+fpl, schedule": {"loss": {"name": "fuzzy", "threshold": "schedule", "balance": True}},
    "cps+fpl, adaptive": {"loss": {"name": "fuzzy", "threshold": "adaptive"}, "train": {"ema": 0.9}},
    "cps+fpl, calibrated": {"loss": {"name": "fuzzy", "threshold": "calibrated", "calibrated": {"every": 4}}},
    "cps+fpl, conformal": {"loss": {"name": "fuzzy", "threshold": "conformal:0.8", "calibrated": {"every": 3}}},
    "ael+fpl": {"method": {"name": "ael"}, "loss": {"name": "fuzzy"}},
    "unimatch+fpl": {"method": {"name": "unimatch"}, "loss": {"name": "fuzzy"}, "train": {"accumulate": 2}},
    "fixmatch+fpl, gate": {"method": {"name": "fixmatch", "confidence": "gate"}, "loss": {"name": "fuzzy"},
                           "optim": {"name": "adamw", "lr": 0.001}},
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {**{name: {"method": {"name": name}} for name in METHODS}, **FUZZY}
CASES["gct"]["train"] = {"steps": 5, "save_every": 2, "eval_every": 3}  # a step of its detector takes a second


class Watched:
    """What a child is doing, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 1 + len(PHASES))
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def enter(self, phase: str) -> None:
        number = PHASES.index(phase)
        self.memory[0] = number
        self.memory[1 + number] = min(255, self.memory[1 + number] + 1)

    def phase(self) -> str:
        return PHASES[self.memory[0]]

    def entries(self, phase: str) -> int:
        return self.memory[1 + PHASES.index(phase)]

    def during(self, phase: str, call: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            before = self.memory[0]
            self.enter("export" if phase == "best" and self.phase() == "export" else phase)
            start = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[phase] += time.monotonic() - start
                # after the loop only the export is left
                self.memory[0] = PHASES.index("export") if phase == "step" else before

        return run

    def patches(self) -> Iterator[Any]:
        """Patches that note the phases of a training."""
        rate = trainer.rate_factor  # called once a step

        def stepping(*args: Any) -> float:
            self.enter("step")
            return rate(*args)

        yield mock.patch.object(trainer, "rate_factor", stepping)
        yield mock.patch.object(trainer, "save_training", self.during("save", trainer.save_training))
        yield mock.patch.object(Scoring, "evaluate", self.during("evaluate", Scoring.evaluate))
        yield mock.patch.object(training, "save_model", self.during("best", training.save_model))
        yield mock.patch.object(training, "fit", self.during("step", training.fit))


def config_of(case: str, data: Path, out: Path) -> dict[str, Any]:
    short = {"steps": STEPS, "batch": 2, "log_every": 1, "eval_every": 7, "save_every": 4, "threads": 1}
    sections = {"loss": {"name": "paper"}, **CASES[case]}
    sections["train"] = short | sections.get("train", {})
    if sections.get("method", {}).get("name") == "distill":
        sections["data"] = {"scores": str(data / "scores")}
    return settings(data, out, **sections)


def fork(case: str, data: Path, out: Path, log: Path, *, resume: bool) -> tuple[int, Watched]:
    """A child that trains: its process number and what it is doing. Exit codes are those of the command."""
    watched = Watched()
    child = os.fork()
    if child:
        return child, watched
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        for patch in watched.patches():
            patch.start()
        result = train(config_of(case, data, out), network=partial(TinyNetwork, 3), resume=resume, quiet=True)
        log.with_suffix(".json").write_text(json.dumps([watched.seconds, [*map(watched.entries, PHASES)]]))
        code = 0 if result.finished else 130 if result.interrupted else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, seconds: float) -> int | None:
    """The exit code of a child, negative for a signal; None if it is still running after `seconds`."""
    end = time.monotonic() + seconds
    try:
        while True:
            number, status = os.waitpid(child, os.WNOHANG)
            if number:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= end:
                return None
            time.sleep(0.001)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGKILL)
        raise


def steps_of(case: str) -> int:
    return CASES[case].get("train", {}).get("steps", STEPS)  # type: ignore[no-any-return]


def disturbed(
    rng: random.Random, child: int, watched: Watched, usual: dict[str, float], steps: int
) -> tuple[str, str, int | None]:
    """Send a random signal at a random moment: its name, the phase it hit (empty: too late), and the exit code."""
    phase = rng.choice(PHASES)
    number = 1 if phase in ("prepare", "export") else rng.randint(1, 3 if phase != "step" else steps - 2)
    name = rng.choices(("SIGKILL", "SIGTERM", "SIGINT", "SIGTERM twice", "SIGINT twice"), (12, 2, 2, 1, 1))[0]
    delay, again = rng.random() * usual[phase], rng.random() * usual["step"]
    end, code = time.monotonic() + LIMIT, None
    while phase != "prepare" and code is None and watched.entries(phase) < number and time.monotonic() < end:
        code = ended(child, 0.0005)
    code = ended(child, delay) if code is None else code
    if code is not None:
        return name, "", code
    hit = watched.phase()
    os.kill(child, getattr(signal, name.split()[0]))
    if name.endswith("twice"):
        code = ended(child, again)
        if code is None:
            os.kill(child, getattr(signal, name.split()[0]))
    code = ended(child, LIMIT) if code is None else code
    return name, watched.phase() if name == "SIGKILL" else hit, code


def content(file: Path) -> Any:
    """What must be equal in two run folders."""
    if file.suffix == ".pt":
        return load(file)
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.name == "metrics.jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "time"} for row in rows]
    return file.read_bytes()


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two nested values differ; tensors are compared by their bits."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return [] if same else [place]
    if type(a) is not type(b):
        return [place]
    if isinstance(a, dict):
        keys = sorted({*a, *b}, key=str)
        return [d for key in keys for d in differences(a.get(key, ...), b.get(key, ...), f"{place}/{key}")]
    if isinstance(a, list | tuple):
        pairs = enumerate(itertools.zip_longest(a, b, fillvalue=...))
        return [d for number, (x, y) in pairs for d in differences(x, y, f"{place}/{number}")]
    return [] if a == b or (a != a and b != b) else [place]


def compared(one: Path, other: Path) -> list[str]:
    """Where two run folders differ, but for times and the lock."""
    files = [{f.relative_to(run).as_posix() for f in run.rglob("*") if f.is_file()} for run in (one, other)]
    left_out = {".lock", "environment.json"}
    result = [f"{name}: in one folder only" for name in sorted(files[0] ^ files[1]) if name not in left_out]
    for name in sorted((files[0] & files[1]) - left_out):
        a, b = content(one / name), content(other / name)
        if name.startswith("last-") and a["step"] != b["step"]:
            continue  # a signal saved at another step, and the checkpoint before the last one is that one
        result += differences(a, b, name)
    return result


class Chaos:
    """Trainings of all cases, their undisturbed results, and what became of the killed ones."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.kills, self.faults = list[dict[str, Any]](), list[str]()
        self.data = write_folder(folder / "data", images=10, masks=7, val=2)
        self.runs, self.equal = Counter[str](), Counter[str]()
        for number, item in enumerate(read_dataset(self.data).train):
            logits = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(number))
            write_scores(self.data / "scores" / f"{item.name}.npz", logits)
        self.usual: dict[str, dict[str, float]] = {}

    def straight(self, case: str, out: Path) -> Path:
        """The folder of an undisturbed run; it has trained in `out`, whose name is part of the results."""
        kept = self.folder / f"straight-{list(CASES).index(case)}"
        if case not in self.usual:
            log, start = self.folder / "log", time.monotonic()
            code = ended(fork(case, self.data, out, log, resume=False)[0], LIMIT)
            assert code == 0, f"{case}: the undisturbed run ended with {code}: {log.read_text()[-2000:]}"
            seconds, entries = json.loads(log.with_suffix(".json").read_text())
            whole = time.monotonic() - start
            parts = dict(zip(PHASES, entries, strict=True))
            inner = sum(seconds[phase] for phase in ("save", "evaluate"))
            rest = whole - seconds["step"]
            self.usual[case] = {
                "prepare": rest / 2, "export": rest / 2, "step": max(0.0, seconds["step"] - inner) / steps_of(case),
                **{phase: seconds[phase] / max(1, parts[phase]) for phase in ("save", "evaluate", "best")},
            }  # fmt: skip
            log.unlink()
            out.rename(kept)
        return kept

    def run(self, case: str, most: int) -> None:
        """Train a case with up to `most` kills, and compare the result."""
        out, log = self.folder / "out", self.folder / "log"
        straight = self.straight(case, out)
        code, count = None, 0
        while code != 0:
            first = not out.exists()
            child, watched = fork(case, self.data, out, log, resume=not first)
            if count < most:
                name, phase, code = disturbed(self.rng, child, watched, self.usual[case], steps_of(case))
                if phase:
                    count += 1
                    self.kills.append({"case": case, "signal": name, "phase": phase, "exit": code})
                expected = (0, -9) if name == "SIGKILL" else (0, 130, -15)
            else:
                code, expected = ended(child, LIMIT), (0,)
            if code not in expected:
                if code is None:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                self.fault(case, f"a session ended with {code}: {log.read_text()[-1500:]}")
                break
            # a finished run is resumed too: a kill may have come after its last file
        else:
            self.runs[case] += 1
            if found := compared(straight, out):
                self.fault(case, f"differs at {len(found)} places, such as {', '.join(found[:5])}")
            else:
                self.equal[case] += 1
        print(f"{len(self.kills):4} kills; {case}: {count} in this run", file=sys.stderr, flush=True)
        shutil.rmtree(out, ignore_errors=True)
        log.unlink(missing_ok=True)

    def fault(self, case: str, text: str) -> None:
        before = ", ".join(f"{kill['signal']} in {kill['phase']}" for kill in self.kills[-4:])
        self.faults.append(f"{case} after {before}: {text}")
        print(f"FAULT {self.faults[-1]}", flush=True)

    def summary(self) -> str:
        lines = [f"{'case':22} runs equal kills  {'  '.join(PHASES)}"]
        for case in CASES:
            hits = Counter(kill["phase"] for kill in self.kills if kill["case"] == case)
            if self.runs[case] or hits:
                counts = "  ".join(f"{hits[phase]:{len(phase)}}" for phase in PHASES)
                lines.append(f"{case:22} {self.runs[case]:4} {self.equal[case]:5} {hits.total():5}  {counts}")
        hits, signals = (Counter(kill[key] for kill in self.kills) for key in ("phase", "signal"))
        counts = "  ".join(f"{hits[phase]:{len(phase)}}" for phase in PHASES)
        lines.append(f"{'all':22} {self.runs.total():4} {self.equal.total():5} {len(self.kills):5}  {counts}")
        return "\n".join([*lines, ", ".join(f"{count} {name}" for name, count in signals.most_common())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=CASES, help="only this case")
    parser.add_argument("--json", type=Path, help="write the kills, runs and faults to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(Path(folder), given.seed)
        cases = [given.case] if given.case else chaos.rng.sample(list(CASES), len(CASES))
        with suppress(KeyboardInterrupt):  # Ctrl-C reports what has been done
            for case in itertools.cycle(cases):
                most = min(chaos.rng.randint(2, 4), given.kills - len(chaos.kills))
                if most <= 0 or len(chaos.faults) >= 20:
                    break
                chaos.run(case, most)
    print(chaos.summary())
    print(f"{len(chaos.faults)} faults, {time.monotonic() - start:.0f} s, seed {given.seed}")
    if given.json is not None:
        result = {"kills": chaos.kills, "runs": chaos.runs, "equal": chaos.equal, "faults": chaos.faults}
        given.json.write_text(json.dumps(result, indent=1))
    return bool(chaos.faults)


if __name__ == "__main__":
    sys.exit(main())
