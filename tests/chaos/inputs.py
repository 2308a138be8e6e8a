"""Give the commands generated bad inputs, and check that each is refused with a message.

    python tests/chaos/inputs.py --count 5000 --commands 100 --seed 0 --json inputs.json

Input number I is drawn from the seed and I alone: `--only I` repeats it, `--show` prints what it is and says. Inputs 0
to COUNT - 1 run in forked children of this process, in which all modules are imported; the next COMMANDS inputs run as
commands of their own. Each must end within the limit with exit code 1 or 2 and a line `error: ...`, without a
traceback, without the message of an internal error, and without running code that is part of the input.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import gc
import importlib
import io
import json
import pkgutil
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import fuzzyseg
from chaos import bad_commands, bad_data, bad_models, bad_settings
from chaos.place import Bad, Place, prepare
from fuzzyseg.cli import app
from fuzzyseg.networks import check_names

KINDS: dict[str, tuple[ModuleType, int]] = {
    "settings": (bad_settings, 8), "data": (bad_data, 5), "models": (bad_models, 4), "commands": (bad_commands, 3),
}  # fmt: skip
"""Generators, and how often each is drawn."""
LIMIT = 120.0
"""Seconds after which a command counts as hung; on an idle machine the slowest takes a few."""
NOBODY = 65534


def drawn(seed: int, index: int, good: Path, folder: Path, kind: str | None = None) -> tuple[str, Bad]:
    """Write input number `index` into the empty folder."""
    rng = random.Random(f"{seed}/{index}")
    name = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    name = kind or name
    return name, KINDS[name][0].draw(Place(good, folder, rng))


def forked(bad: Bad, output: Path, folder: Path) -> int | None:
    """Run the command in a child, which leads a process group. Returns its exit code; None: it hung."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            for number, file in ((0, os.devnull), (1, output), (2, output)):
                os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
            os.chdir(folder)
            if bad.nobody and os.geteuid() == 0:
                os.seteuid(NOBODY)
            app(bad.argv, prog_name="fuzzyseg")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush(), sys.stderr.flush()
            finally:
                os._exit(code)
    ends = os.pidfd_open(child)
    in_time = bool(select.select([ends], [], [], LIMIT)[0])
    os.close(ends)
    if not in_time:
        os.killpg(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) if in_time else None


def commanded(bad: Bad, output: Path, folder: Path) -> int | None:
    """Run the command as a process of its own."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fuzzyseg", *bad.argv],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=folder,
            start_new_session=True,
        )
        try:
            return process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def fault(code: int | None, text: str, pwned: bool) -> str | None:
    """What is wrong with the reaction to a bad input; None: nothing."""
    if pwned:
        return "code of the input was run"
    if code is None:
        return f"no end within {LIMIT:.0f} s"
    if "Traceback (most recent call last)" in text:
        return "traceback"
    if code == 0:
        return "accepted"
    if code not in (1, 2):
        return f"exit code {code}"
    if "--debug shows the traceback" in text:
        return "internal error"
    return None if re.search(r"^(error|Error): \S", text, re.MULTILINE) else "no line 'error: ...'"


class Inputs:
    """Bad inputs, and what the commands did with them."""

    def __init__(self, folder: Path, seed: int, kind: str | None) -> None:
        self.folder, self.seed, self.kind, self.good = folder, seed, kind, folder / "good"
        self.counts, self.codes, self.faults = Counter[str](), Counter[str](), list[dict[str, object]]()
        self.slowest = 0.0
        folder.chmod(0o755)  # nobody reads it
        for module in pkgutil.walk_packages(fuzzyseg.__path__, "fuzzyseg."):
            if not re.search(r"\.(cuda|__main__)\b", module.name):
                importlib.import_module(module.name)  # once, not in every child
        importlib.import_module("multiprocessing.popen_fork")  # of workers; nobody may not read it
        with redirect_stdout(io.StringIO()), suppress(SystemExit):
            app(["settings"])  # imports the parts of typer
        prepare(self.good)
        check_names("Unet", "tu-test_resnet")
        gc.collect()
        gc.freeze()  # else a child copies the memory of all objects that its collector visits

    def run(self, index: int, *, command: bool = False, show: bool = False) -> None:
        place, output = self.folder / "input", self.folder / "output"
        place.mkdir()
        name, bad = drawn(self.seed, index, self.good, place, self.kind)
        start = time.monotonic()
        run = commanded if command and not bad.nobody else forked  # nobody may not read this Python's files
        code = run(bad, output, place)
        self.slowest = max(self.slowest, time.monotonic() - start)
        text = output.read_text(errors="replace") if output.exists() else ""
        found = fault(code, text, (place / "pwned").exists())
        self.counts[name] += 1
        self.codes[f"exit {code}"] += 1
        if show:
            print(f"{index} {name}: {bad.what}\n{bad.argv}\nexit code {code}\n{text}")
        if found is not None:
            known = {"index": index, "kind": name, "what": bad.what, "argv": bad.argv}
            self.faults.append({**known, "fault": found, "output": text[-3000:]})
            last = " | ".join(text.strip().splitlines()[-2:])[-300:]
            print(f"FAULT {found}: --seed {self.seed} --only {index} ({name}, {bad.what[:150]}): {last}", flush=True)
        output.unlink(missing_ok=True)
        for path in (place, *place.rglob("*")) if bad.nobody else ():
            path.chmod(0o755)
        shutil.rmtree(place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="inputs in forked children")
    parser.add_argument("--commands", type=int, default=100, help="inputs as real commands")
    parser.add_argument("--first", type=int, default=0, help="index of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, help="only inputs of this kind")
    parser.add_argument("--only", type=int, nargs="+", metavar="INDEX", help="only these inputs, in forked children")
    parser.add_argument("--show", action="store_true", help="print each input and the output")
    parser.add_argument("--json", type=Path, help="write counts and faults to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        inputs = Inputs(Path(folder), given.seed, given.kind)
        last = given.first + given.count
        with suppress(KeyboardInterrupt):  # Ctrl-C reports what has been done
            for index in given.only or range(given.first, last):
                inputs.run(index, show=given.show)
            for index in range(last, last + (0 if given.only else given.commands)):
                inputs.run(index, command=True, show=given.show)
    kinds = ", ".join(f"{count} {name}" for name, count in inputs.counts.most_common())
    codes = ", ".join(f"{count} x {code}" for code, count in inputs.codes.most_common())
    print(f"{inputs.counts.total()} bad inputs ({kinds}): {codes}; the slowest took {inputs.slowest:.1f} s")
    print(f"{len(inputs.faults)} faults, {time.monotonic() - start:.0f} s, seed {given.seed}")
    if given.json is not None:
        result = {"counts": inputs.counts, "codes": inputs.codes, "slowest": inputs.slowest, "faults": inputs.faults}
        given.json.write_text(json.dumps(result, indent=1, ensure_ascii=True))
    return bool(inputs.faults)


if __name__ == "__main__":
    sys.exit(main())
