"""The measurement of docs/results.md: supervised, CPS and CPS+FPL on CamVid with few labels, on a CPU.

    python benchmarks/camvid.py --data CAMVID --weights mobilenet_v2_imagenet.safetensors --lanes 2
    python benchmarks/camvid.py --table

The first runs what is missing, two at a time, one thread each; the second prints the tables.

Each labelled subset s (`data.split_seed`) has two supervised starts (seeds 2s and 2s+1). From them go on, for as
long: supervised, AEL, AEL fuzzy (from the first), CPS hard, CPS fuzzy, CPS fuzzy balanced (from both). A finished run
leaves one small JSON in the results folder; a run whose JSON stands there is not run again, one that was cut off is
resumed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
STARTS = {11: 2500, 23: 2000}
MORE = 1500
ARMS = {
    "supervised": ["--method", "supervised"],
    "hard": ["--method", "cps", "--loss", "hard"],
    "fuzzy": ["--method", "cps", "--loss", "fuzzy"],
    "balanced": ["--method", "cps", "--loss", "fuzzy", "loss.balance=true"],
    "ael": ["--method", "ael", "--loss", "paper"],
    "ael_fuzzy": ["--method", "ael", "--loss", "fuzzy"],
}
CPS = ("hard", "fuzzy", "balanced")  # two networks, so two starts
PAIRS = [
    ("hard", "supervised"),
    ("fuzzy", "supervised"),
    ("balanced", "supervised"),
    ("fuzzy", "hard"),
    ("balanced", "hard"),
    ("ael", "supervised"),
    ("ael_fuzzy", "ael"),
]
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}


@dataclass(frozen=True)
class Cell:
    """One run: labelled images, subset, arm (start0, start1 or one of ARMS)."""

    labelled: int
    subset: int
    arm: str

    @property
    def name(self) -> str:
        return f"{self.labelled}-s{self.subset}-{self.arm}"

    @property
    def needs(self) -> list[Cell]:
        if self.arm.startswith("start"):
            return []
        arms = ["start0", "start1"] if self.arm in CPS else ["start0"]
        return [Cell(self.labelled, self.subset, arm) for arm in arms]


def grid(labelled: list[int], subsets: int, arms: list[str]) -> list[Cell]:
    """All cells in the order in which they are run: the paired arms of one subset together."""
    order = ["start0", "start1", *sorted(arms, key=lambda arm: arm == "supervised")]
    return [Cell(count, subset, arm) for count in labelled for subset in range(subsets) for arm in order]


def command(cell: Cell, args: argparse.Namespace) -> list[str]:
    """The command of a cell: `fuzzyseg train` with the recipe of this setting."""
    base = [
        sys.executable,
        "-m",
        "fuzzyseg",
        "train",
        str(RECIPES / "camvid_small.yaml"),
        "--data",
        str(args.data),
        "--resume",
    ]
    base += ["--labelled", str(cell.labelled), "--out", str(args.out / cell.name), f"data.split_seed={cell.subset}"]
    base += ["--device", "cpu"]
    if cell.arm.startswith("start"):
        seed = 2 * cell.subset + int(cell.arm[-1])
        return [*base, "--method", "supervised", "--seed", str(seed), "--steps", str(STARTS[cell.labelled]),
                "--weights", str(args.weights)]  # fmt: skip
    starts = ",".join(str(args.out / need.name) for need in cell.needs)
    return [*base, *ARMS[cell.arm], "--seed", str(cell.subset), "--steps", str(MORE), "--init", starts,
            "--weights", str(args.weights), "optim.lr=5e-4", "train.ema=0.99",
            *(["method.ramp_steps=200"] if cell.arm in CPS else [])]  # fmt: skip


def row(cell: Cell, args: argparse.Namespace, seconds: float) -> dict[str, object]:
    """What is kept of a finished run."""
    folder = args.out / cell.name
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    course = [
        {key: line.get(key) for key in ("step", "evaluation", "metrics")} for line in lines if line.get("evaluation")
    ]
    named = argparse.Namespace(data="CAMVID", weights="mobilenet_v2_imagenet.safetensors", out=Path("runs"))
    environment = json.loads((folder / "environment.json").read_text())
    return {"cell": cell.name, "labelled": cell.labelled, "subset": cell.subset, "arm": cell.arm,
            "command": " ".join(["fuzzyseg", *command(cell, named)[3:]]).replace(f"{RECIPES}/", "recipes/"),
            "result": result, "course": course, "seconds_of_last_start": round(seconds),
            "hardware": environment["hardware"], "versions": environment["versions"]}  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs what is missing, `lanes` at a time. Returns the number of failed cells."""
    args.out.mkdir(parents=True, exist_ok=True)
    args.results.mkdir(parents=True, exist_ok=True)
    cells = [c for c in grid(args.labelled, args.subsets, args.arms) if not (args.results / f"{c.name}.json").exists()]
    # weights are not kept with the rows: starts whose runs are gone are made again where something needs them
    needed = {n for c in cells for n in c.needs if not (args.out / n.name / "result.json").exists()} - set(cells)
    cells = sorted(needed, key=lambda c: c.name) + cells
    state: dict[Cell, str] = dict.fromkeys(cells, "waiting")
    lock = threading.Condition()

    def ready(cell: Cell) -> bool:
        return state[cell] == "waiting" and all(state.get(n, "done") == "done" for n in cell.needs)

    def lane() -> None:
        while True:
            with lock:
                while not any(ready(c) for c in cells):
                    if not any(s in ("waiting", "running") for s in state.values()) or not any(
                        s == "running" for s in state.values()
                    ):
                        return
                    lock.wait()
                cell = next(c for c in cells if ready(c))
                state[cell] = "running"
            begin = time.time()
            with (args.out / f"{cell.name}.log").open("a") as log:
                threads = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
                code = subprocess.run(command(cell, args), stdout=log, stderr=log, env=threads).returncode
            if code == 0:
                text = json.dumps(row(cell, args, time.time() - begin), indent=1)
                (args.results / f"{cell.name}.json").write_text(text + "\n")
            print(
                f"{cell.name}: {'done' if code == 0 else f'failed ({code})'} in {time.time() - begin:.0f} s", flush=True
            )
            with lock:
                state[cell] = "done" if code == 0 else "failed"
                lock.notify_all()

    lanes = [threading.Thread(target=lane) for _ in range(args.lanes)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    return sum(s != "done" for s in state.values())


def interval(values: list[float]) -> str:
    """Mean and 95 % confidence interval (Student's t)."""
    if len(values) < 2:
        return f"{values[0]:+.2f} (one pair)" if values else "-"
    half = T_975[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.2f} ± {half:.2f} (n={len(values)})"


def table(results: Path) -> str:
    """The rows that stand in the results folder, as Markdown."""
    rows = {
        (r["labelled"], r["subset"], r["arm"]): r for r in (json.loads(p.read_text()) for p in results.glob("*.json"))
    }
    miou = {key: 100 * r["result"]["last"]["miou"] for key, r in rows.items()}
    arms = ["start0", "start1", *ARMS]
    out = ["| labelled | subset | " + " | ".join(arms) + " |", "| --- " * (len(arms) + 2) + "|"]
    for count, subset in sorted({key[:2] for key in miou}):
        cells = [f"{miou[count, subset, a]:.2f}" if (count, subset, a) in miou else "-" for a in arms]
        out.append(f"| {count} | {subset} | " + " | ".join(cells) + " |")
    out += ["", "| labelled | difference | mean ± 95 % interval |", "| --- | --- | --- |"]
    for count in sorted({key[0] for key in miou}):
        for a, b in PAIRS:
            both = [s for s in range(99) if (count, s, a) in miou and (count, s, b) in miou]
            if both:
                out.append(
                    f"| {count} | {a} - {b} | {interval([miou[count, s, a] - miou[count, s, b] for s in both])} |"
                )
    out += [
        "",
        "| run | step | mIoU | coverage | top-1 | K = 1, 2, 3, 4+ on val |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in sorted(rows):
        for line in rows[key]["course"] if key[2] in ARMS else []:
            if "fuzzy" in (seen := (line.get("evaluation") or {})):
                k = seen["fuzzy"]["k_histogram"]
                text = ", ".join(f"{100 * share:.1f}" for share in [*k[:3], sum(k[3:])])
                shares = [seen["miou"], seen["fuzzy"]["coverage"], seen["fuzzy"]["top1"]]
                numbers = " | ".join(f"{100 * share:.2f}" for share in shares)
                out.append(f"| {'-'.join(map(str, key))} | {line['step']} | {numbers} | {text} |")
    return "\n".join(out)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CamVid folder: train, trainannot, val, valannot")
    parser.add_argument("--weights", type=Path, help="encoder weights of MobileNetV2")
    parser.add_argument("--results", type=Path, default=Path("results/camvid"))
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"))
    parser.add_argument("--labelled", type=int, nargs="+", default=[23, 11])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--subsets", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--table", action="store_true", help="print the tables and end")
    args = parser.parse_args()
    if args.table:
        print(table(args.results))
        return 0
    if args.data is None or args.weights is None:
        parser.error("--data and --weights are needed to run")
    return 1 if run(args) else 0


if __name__ == "__main__":
    sys.exit(main())
