"""Time and peak memory of the loss, forward and backward, compared with cross entropy and other forms of the loss.

    python benchmarks/loss.py                       # all; about 15 minutes on one CPU core
    python benchmarks/loss.py --quick               # small shapes, a minute; not the setting of the targets
    python benchmarks/loss.py --only 2,21,512,512 --json loss.json    # a piece; rows are merged into the file
    python benchmarks/loss.py --table loss.json     # prints what the file has

All variants of a cell run in turn in one process; the table has the medians, as multiples of the baseline b:
`F.cross_entropy(z, t.argmax(1))`, or for the up-sampling two `F.interpolate` (with `Mixed` teachers three and a
`torch.where`) and then b. S is one tensor of logits of that shape and precision. Peak memory is that of a call
beyond its inputs, including the gradient. On a GPU times are of the device, by events, with the calls queued before it
begins; "bf16" there is bf16 logits under autocast, where cross entropy computes in fp32.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from published import published
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import Mixed, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, masked_mean

SHAPES = [(2, 21, 512, 512), (2, 19, 800, 800), (4, 11, 360, 480), (1, 150, 512, 512)]
SMALL = [(1, 21, 128, 128), (1, 150, 64, 64)]
RAISED, RAISED_SMALL = [(2, 19, 800, 800)], [(1, 19, 128, 128)]
TEACHERS = {"confident": 0.94, "half": 0.5, "uniform": 0.0}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SLOW = ("readable", "published")
QUEUE = 50_000_000
"""Cycles, some 25 ms, that a GPU waits before it is timed."""
T = 0.9


def logits(shape: tuple[int, ...], kind: str, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Logits of a student and a teacher; the fraction TEACHERS[kind] of the teacher's pixels is confident."""
    generator = torch.Generator().manual_seed(0)
    z, t = (torch.randn(shape, generator=generator) for _ in range(2))
    if kind == "uniform":
        t *= 0.1
    else:
        one = (shape[0], 1, *shape[2:])
        sure = torch.rand(one, generator=generator) < TEACHERS[kind]
        t.scatter_add_(1, torch.randint(shape[1], one, generator=generator), torch.where(sure, 12.0, 2.0))
    return (2 * z).to(device, dtype), t.to(device, dtype)


def form(name: str, function: Callable[[], Tensor]) -> Tensor:
    """`function` with the kernel of this name."""
    os.environ["FUZZYSEG_KERNEL"] = name
    try:
        return function()
    finally:
        del os.environ["FUZZYSEG_KERNEL"]


def mapped(name: str, z: Tensor, t: Tensor | Mixed, valid: Tensor) -> Tensor:
    """A pixel loss as the methods call it: the map with its statistics, then the masked mean."""
    found = PIXEL_LOSSES[name](z, t, size=tuple(valid.shape[1:]), valid=valid, threshold=T)
    return masked_mean(found.loss, valid)


def arms_of(z: Tensor, t: Tensor, *, slow: bool) -> dict[str, Callable[[], Tensor]]:
    """The losses on logits of full size."""
    valid = torch.ones((z.shape[0], *z.shape[2:]), dtype=torch.bool, device=z.device)
    found: dict[str, Callable[[], Tensor]] = {
        "b": lambda: F.cross_entropy(z, t.argmax(1)),
        "mean": lambda: fuzzy_positive_loss(z, t, threshold=T),
        "map": lambda: mapped("fuzzy", z, t, valid),
        "continuous": lambda: fuzzy_positive_loss(z, t, threshold=T, rule="continuous"),
        "hard map": lambda: mapped("hard", z, t, valid),
    }
    if slow:
        found["readable"] = lambda: form("reference", found["mean"])
        if z.dtype == torch.float32:  # the released code fails on others
            found["published"] = lambda: published(z, t)
    return found


def raised_arms(z: Tensor, t: Tensor, other: Tensor | None, size: tuple[int, int]) -> dict[str, Callable[[], Tensor]]:
    """The losses on logits at a stride, with upsampling."""
    valid = torch.ones((z.shape[0], *size), dtype=torch.bool, device=z.device)
    mask = torch.zeros_like(valid)
    mask[:, size[0] // 8 : size[0] // 2, size[1] // 4 : size[1] * 7 // 8] = True
    teacher = t if other is None else Mixed(t, other, mask)

    def up(low: Tensor) -> Tensor:
        return F.interpolate(low, size=size, mode="bilinear", align_corners=True)

    def base() -> Tensor:
        with torch.no_grad():
            target = up(t) if other is None else torch.where(mask.unsqueeze(1), up(other), up(t))
        return F.cross_entropy(up(z), target.argmax(1))

    return {
        "b": base,
        "mean": lambda: fuzzy_positive_loss(z, teacher, threshold=T, size=size, align_corners=True),
        "map": lambda: mapped("fuzzy", z, teacher, valid),
        "hard map": lambda: mapped("hard", z, teacher, valid),
    }


def seconds(call: Callable[[], Tensor], z: Tensor) -> float:
    """One forward and backward."""
    return elapsed(lambda: torch.autograd.grad(call(), z), z.device)


def elapsed(work: Callable[[], object], device: torch.device) -> float:
    """The time of one call: on a GPU of the device alone, which is kept busy until all of it is queued."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(QUEUE)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split(f"{field}:")[1].split()[0])


def peak(call: Callable[[], Tensor], z: Tensor) -> float | None:
    """Additional peak memory of one forward and backward in bytes; None if unknown."""
    gc.collect()
    if z.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(call(), z)
        return torch.cuda.max_memory_allocated() - before
    if platform.system() != "Linux":
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # so that no freed memory hides what is taken
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest so far is forgotten
    before = resident("VmRSS")
    torch.autograd.grad(call(), z)
    return resident("VmHWM") - before


def copy_seconds(z: Tensor, size: int) -> float:
    """The roofline: reading two tensors of logits and writing one."""
    a, b, c = (torch.zeros(size, dtype=z.dtype, device=z.device) for _ in range(3))
    return statistics.median(elapsed(lambda: torch.add(a, b, out=c), z.device) for _ in range(5))


def measure(arms: dict[str, Callable[[], Tensor]], z: Tensor, size: int, repeats: int) -> dict[str, object]:
    """Medians of all variants of a cell, in turn; size: elements of one tensor of logits at the size of the loss."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for name, call in arms.items():
        if name not in SLOW:
            seconds(call, z)
    for turn in range(repeats):
        for name, call in arms.items():
            if name not in SLOW or turn == 0:
                times[name].append(seconds(call, z))
    medians = {name: statistics.median(values) for name, values in times.items()}
    extra = {name: peak(call, z) for name, call in arms.items()}
    tensor = size * z.element_size()
    return {
        "seconds": medians,
        "ratio": {name: value / medians["b"] for name, value in medians.items()},
        "peak": {name: None if value is None else value / tensor for name, value in extra.items()},
        "roofline": copy_seconds(z, size),
    }


def cells(args: argparse.Namespace) -> dict[str, Callable[[], dict[str, object]]]:
    """The requested cells, by name."""
    found: dict[str, Callable[[], dict[str, object]]] = {}

    def full(shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> dict[str, object]:
        z, t = logits(shape, kind, dtype, args.device)
        z.requires_grad_()
        autocast = args.device == "cuda" and dtype != torch.float32
        slow = not args.no_slow and (kind == "confident" or args.all_slow)
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=autocast):
            return measure(arms_of(z, t, slow=slow), z, z.numel(), args.repeats)

    def low(shape: tuple[int, ...], stride: int, *, mixed: bool) -> dict[str, object]:
        size = (shape[2], shape[3])
        at = (shape[0], shape[1], size[0] // stride, size[1] // stride)
        (z, t), (_, other) = (logits(at, kind, torch.float32, args.device) for kind in ("confident", "half"))
        z.requires_grad_()
        arms = raised_arms(z, t, other if mixed else None, size)
        return measure(arms, z, shape[0] * shape[1] * size[0] * size[1], args.repeats)

    for shape in SMALL if args.quick else SHAPES:
        for dtype in DTYPES:
            for kind in TEACHERS:
                name = f"{','.join(map(str, shape))} {dtype} {kind}"
                found[name] = lambda s=shape, k=kind, d=DTYPES[dtype]: full(s, k, d)
    for shape in RAISED_SMALL if args.quick else RAISED:
        for stride in (4, 16):
            for mixed in (False, True):
                name = f"{','.join(map(str, shape))} from stride {stride}{' mixed' if mixed else ''}"
                found[name] = lambda s=shape, r=stride, m=mixed: low(s, r, mixed=m)
    return {name: cell for name, cell in found.items() if all(word in name for word in args.only)}


def hardware(device: str) -> dict[str, str | int]:
    """Hardware of the measurement."""
    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "device": name,
        "capability": capability,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Time in b and peak memory in S of each variant."""
    arms = list(dict.fromkeys(name for row in rows.values() for name in row["ratio"]))
    lines = ["| time in b (peak extra memory in S) | b, ms | copy, ms | " + " | ".join(arms[1:]) + " |"]
    lines.append("| --- " * (len(arms) + 2) + "|")
    for name, row in rows.items():
        shown = [f"{1e3 * row['seconds']['b']:.3g} ({row['peak']['b']:.2f})" if row["peak"]["b"] else ""]
        shown.append(f"{1e3 * float(row['roofline']):.3g}")  # type: ignore[arg-type]
        for arm in arms[1:]:
            memory = row["peak"].get(arm)
            extra = "" if memory is None else f" ({memory:.2f})"
            shown.append(f"{row['ratio'][arm]:.2f}{extra}" if arm in row["ratio"] else "")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes")
    parser.add_argument("--only", nargs="*", default=[], help="words that the name of a cell must have")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the slow arms take part in the first alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-slow", action="store_true", help="without the readable and the published form")
    parser.add_argument("--all-slow", action="store_true", help="with them for every teacher, not the confident alone")
    parser.add_argument("--json", type=Path, help="file to merge the rows into")
    parser.add_argument("--table", type=Path, help="print the table of a file and stop")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))["rows"]))
        return
    torch.set_num_threads(args.threads)
    rows: dict[str, dict[str, object]] = {}
    if args.json and args.json.exists():
        rows = json.loads(args.json.read_text(encoding="utf-8"))["rows"]
    mine = {}
    for name, cell in cells(args).items():
        rows[name] = mine[name] = cell()
        print(table({name: mine[name]}).splitlines()[-1], flush=True)  # type: ignore[arg-type]
        if args.json:
            text = json.dumps({"hardware": hardware(args.device), "rows": rows}, indent=1)
            args.json.write_text(text + "\n", encoding="utf-8")
    print(json.dumps(hardware(args.device)))
    print(table(mine))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
