"""Images per second and peak memory of a training step, compared with a plain form of the published steps.

    python benchmarks/step.py --json benchmarks/step_cpu.json      # all; about an hour on one CPU core
    python benchmarks/step.py --only mobilenet cps                 # settings and methods that have these words
    python benchmarks/step.py --quick                              # a tiny network; not the setting of the targets
    python benchmarks/step.py --table benchmarks/step_cpu.json     # prints the tables of a file

*published* is our rewriting of how released code runs the step: fp32, contiguous tensors, one forward per batch of
images, logits interpolated to the size of the image, the loss of `published.py`, an optimiser and a moving average that
loop over the parameters. *fuzzyseg* is `fuzzyseg.engine.fit` with the default settings. The other columns switch on one
means at a time in the published form. All forms of a row have equal initial weights and batches and run in turn in one
process. As after training, networks agree with the labels and with each other, and 70% of the teacher's pixels have one
label. AEL has no copy-paste and draws plain boxes, because both forms would find its masks by the same code.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from loss import hardware, resident
from published import published_map
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fuzzyseg import Mixed
from fuzzyseg.config import Config
from fuzzyseg.data.views import Batch
from fuzzyseg.engine import Settings, fit
from fuzzyseg.experiment.build import build_method, optimisers_of, resolve
from fuzzyseg.losses import PIXEL_LOSSES, masked_mean
from fuzzyseg.methods import Facts
from fuzzyseg.ops.channel_dropout import levels, scale_channels
from fuzzyseg.ops.mix import box_masks, paste, rectangle_masks

CLASSES, T = 21, 0.9
NETWORKS = {
    "resnet50": ("DeepLabV3Plus", "resnet50", 2, (256, 256)),
    "mobilenet": ("FPN", "mobilenet_v2", 4, (128, 160)),
    "tiny": ("FPN", "tu-mobilenetv3_small_050", 2, (64, 64)),
}
"""Architecture, encoder, images per stream, and crop."""
METHODS = {
    "supervised": ("supervised", "paper"),
    "cps": ("cps", "paper"),
    "cps + fpl": ("cps", "fuzzy"),
    "ael + fpl": ("ael", "fuzzy"),
    "unimatch + fpl": ("unimatch", "fuzzy"),
}
PLAIN_OPTIONS = {"ael": {"copy_paste": False, "adaptive_mix": False}}


@dataclass(frozen=True)
class Means:
    """What the published form lacks."""

    channels_last: bool = False
    fused: bool = False
    """Our pseudo-label loss, on logits at the decoder's stride."""
    merged: bool = False
    """One forward of images that fuzzyseg passes together. Batch statistics then cover all of them."""
    inference: bool = False
    """Teachers in inference mode."""
    compiled: bool = False
    bf16: bool = False
    fused_optimiser: bool = False
    foreach_average: bool = False


class Plain:
    """The step of a method as released code runs it. networks: students, and a teacher behind them (AEL)."""

    def __init__(self, method: str, loss: str, networks: Sequence[nn.Module], means: Means, device: str) -> None:
        self.method, self.fuzzy, self.means, self.device = method, loss == "fuzzy", means, device
        self.networks = [copy.deepcopy(network) for network in networks]
        form = torch.channels_last if means.channels_last else torch.contiguous_format
        for network in self.networks:
            network.to(memory_format=form).train()  # type: ignore[call-overload]
        students = self.networks[:1] if method == "ael" else self.networks
        self.trained = [p for network in students for p in network.parameters()]
        options = {"fused": True} if means.fused_optimiser else {"foreach": False}
        self.optimiser = torch.optim.SGD(self.trained, lr=1e-4, momentum=0.9, weight_decay=5e-4, **options)
        self.form, self.compute = form, getattr(self, method)
        self.calls: list[Callable[[Tensor], Tensor]] = list(self.networks)
        if means.compiled:
            self.calls = [torch.compile(network) for network in self.networks]

    def run(self, batches: Sequence[dict[str, Batch]]) -> list[float]:
        """Seconds of each step."""
        found = []
        for batch in batches:
            begin = time.perf_counter()
            self.step({name: each.to(torch.device(self.device)) for name, each in batch.items()})
            if self.device == "cuda":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - begin)
        return found

    def step(self, batch: dict[str, Batch]) -> float:
        self.optimiser.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.means.bf16):
            loss = self.compute(batch)
        loss.backward()
        self.optimiser.step()
        if self.method == "ael":
            self.average()
        return float(loss)  # released code prints it

    def logits(self, number: int, image: Tensor) -> Tensor:
        z = self.calls[number](image.contiguous(memory_format=self.form))
        return z if self.means.fused else self.raised(z, image)

    def raised(self, z: Tensor, image: Tensor) -> Tensor:
        return F.interpolate(z, size=image.shape[-2:], mode="bilinear", align_corners=True)

    def targets(self, number: int, *images: Tensor) -> list[Tensor]:
        """Logits of a teacher for each batch of images, without gradient."""
        with torch.inference_mode() if self.means.inference else torch.no_grad():
            if self.means.merged:
                found = list(self.logits(number, torch.cat(images)).chunk(len(images)))
            else:
                found = [self.logits(number, image) for image in images]
        return [each.clone() for each in found] if self.means.inference else found

    def labelled(self, z: Tensor, batch: Batch) -> Tensor:
        z = self.raised(z, batch.image) if self.means.fused else z
        return F.cross_entropy(z, batch.mask, ignore_index=255)

    def map(self, z: Tensor, teacher: Tensor | tuple[Tensor, Tensor, Tensor], valid: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel loss and the teacher's confidence, (B,H,W) each. teacher: logits, or (logits, pasted ones, mask)."""
        if self.means.fused:
            mixed = Mixed(*teacher) if isinstance(teacher, tuple) else teacher
            loss = PIXEL_LOSSES["fuzzy" if self.fuzzy else "hard"]
            found = loss(z, mixed, size=tuple(valid.shape[1:]), valid=valid, threshold=T, maps=True)
            assert found.confidence is not None
            return found.loss, found.confidence
        t = torch.where(teacher[2].unsqueeze(1), teacher[1], teacher[0]) if isinstance(teacher, tuple) else teacher
        confidence = torch.softmax(t, 1).max(1).values
        loss = (
            published_map(z.float(), t.float(), T) if self.fuzzy else F.cross_entropy(z, t.argmax(1), reduction="none")
        )
        return loss, confidence

    def mean(self, z: Tensor, teacher: Any, valid: Tensor) -> Tensor:
        return masked_mean(self.map(z, teacher, valid)[0], valid)

    def supervised(self, batch: dict[str, Batch]) -> Tensor:
        return self.labelled(self.logits(0, batch["labelled"].image), batch["labelled"])

    def cps(self, batch: dict[str, Batch]) -> Tensor:
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        mask = box_masks(a.seed, a.size, boxes=3, area=(0.25, 0.5)).to(self.device)
        total = self.labelled(self.logits(0, labelled.image), labelled)
        total = total + self.labelled(self.logits(1, labelled.image), labelled)
        image, valid = paste(a.image, b.image, mask), paste(a.valid, b.valid, mask)
        teachers = [(*self.targets(number, a.image, b.image), mask) for number in (0, 1)]
        for number in (0, 1):
            total = total + self.mean(self.logits(number, image), teachers[1 - number], valid)
        return total

    def ael(self, batch: dict[str, Batch]) -> Tensor:
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        mask = box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5)).to(self.device)
        z = self.logits(0, labelled.image)
        t_a, t_b = self.targets(1, a.image, b.image)
        (t_l,) = self.targets(1, labelled.image)
        image, valid = paste(a.image, b.image, mask), paste(a.valid, b.valid, mask)
        total = self.labelled(z, labelled) + self.weighted(z, t_l, labelled.valid)
        return total + self.weighted(self.logits(0, image), (t_a, t_b, mask), valid)

    def weighted(self, z: Tensor, teacher: Any, valid: Tensor) -> Tensor:
        """Mean over sampled pixels, weighted by confidence^2."""
        loss, confidence = self.map(z, teacher, valid)
        size = valid.shape[1:]
        predicted = (self.raised(z.detach(), valid) if z.shape[2:] != size else z.detach()).argmax(1)
        rate = torch.linspace(0.5, 1, z.shape[1], device=z.device)  # as the bank of classes would have it
        weight = torch.where((torch.rand(valid.shape, device=z.device) < rate[predicted]) & valid, confidence**2, 0)
        return masked_mean(loss, weight / weight.sum((1, 2), keepdim=True).clamp(min=1e-12))

    @torch.no_grad()
    def average(self) -> None:
        student, teacher = (list(network.parameters()) for network in self.networks)
        if self.means.foreach_average:
            get_ema_multi_avg_fn(0.99)(teacher, student, 1)
            return
        for mine, other in zip(teacher, student, strict=True):
            mine.data = 0.99 * mine.data + 0.01 * other.data

    def unimatch(self, batch: dict[str, Batch]) -> Tensor:
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        masks = [m.to(self.device) for m in rectangle_masks(a.seed, a.size, views=2, probability=0.5, area=(0.02, 0.4))]
        network: Any = self.networks[0].eval()
        (pasted,) = self.targets(0, b.image)
        network.train()
        count = len(labelled.image)
        if self.means.merged:
            features = network.encode(torch.cat([labelled.image, a.image]).contiguous(memory_format=self.form))
            plain, perturbed = self.with_dropped(network, features)
            z_l, weak, perturbed = plain[:count], plain[count:], perturbed[count:]
        else:
            z_l = network(labelled.image.contiguous(memory_format=self.form))
            weak, perturbed = self.with_dropped(network, network.encode(a.image.contiguous(memory_format=self.form)))
        strong = [paste(va, vb, mask) for va, vb, mask in zip(a.strong, b.strong, masks, strict=True)]
        if not self.means.fused:
            z_l, weak, perturbed = (self.raised(z, a.image) for z in (z_l, weak, perturbed))
        if self.means.merged:
            z_s = self.logits(0, torch.cat(strong)).chunk(2)
        else:
            z_s = [self.logits(0, image) for image in strong]
        weak = weak.detach()
        total = self.labelled(z_l, labelled) + 0.5 * self.mean(perturbed, weak, a.valid)
        for z, mask in zip(z_s, masks, strict=True):
            total = total + 0.25 * self.mean(z, (weak, pasted, mask), paste(a.valid, b.valid, mask))
        return total / 2

    def with_dropped(self, network: Any, features: Any) -> tuple[Tensor, Tensor]:
        """Logits of features, and of features with half of the channels dropped."""
        count = len(levels(features)[0])
        keep = [2 * (torch.rand(count, each.shape[1]) < 0.5).float() for each in levels(features)]
        dropped = scale_channels(features, keep)
        return tuple(network.classify(network.decode(each)) for each in (features, dropped))  # type: ignore[return-value]


class Ours:
    """The same step by `fuzzyseg.engine.fit`."""

    def __init__(self, method: nn.Module, setup_config: Config, settings: dict[str, Any]) -> None:
        self.method: Any = copy.deepcopy(method)
        self.optimisers = optimisers_of(setup_config.optim, self.method)
        self.settings = settings

    def run(self, batches: Sequence[dict[str, Batch]]) -> list[float]:
        """Seconds of each step, between two requests for a batch."""
        moments: list[float] = []

        def supply(start: int, stop: int) -> Iterator[list[dict[str, Batch]]]:
            for batch in batches:
                moments.append(time.perf_counter())
                yield [{name: batch[name] for name in self.method.streams}]
            if self.settings["device"].type == "cuda":
                torch.cuda.synchronize()
            moments.append(time.perf_counter())

        fit(self.method, supply, self.optimisers, Settings(steps=len(batches), eval_every=None, **self.settings))
        return [after - before for before, after in itertools.pairwise(moments)]


def batches_of(count: int, images: int, size: tuple[int, int]) -> list[dict[str, Batch]]:
    """Batches of smooth random images."""
    generator, found = torch.Generator().manual_seed(0), []

    def smooth(channels: int) -> Tensor:
        coarse = torch.randn(images, channels, size[0] // 8, size[1] // 8, generator=generator)
        return F.interpolate(coarse, size=size, mode="bilinear")

    for number in range(count):
        batch = {}
        for place, name in enumerate(("labelled", "unlabelled", "partner")):
            image = smooth(3)
            batch[name] = Batch(
                image=image,
                valid=torch.ones(images, *size, dtype=torch.bool),
                mask=None,
                index=torch.arange(images),
                name=[str(i) for i in range(images)],
                seed=torch.arange(images) + 100 * number + 10 * place,
                drawn_for=torch.full((images,), -1),
                strong=(image + 0.5 * smooth(3), image + 0.5 * smooth(3)),
            )
        found.append(batch)
    return found


def as_trained(networks: Sequence[Any], data: Sequence[dict[str, Batch]], share: float = 0.7) -> None:
    """Scale the first classifier until `share` of the pixels is confident, copy the network, and label the images."""
    first = networks[0].train()
    with torch.no_grad():
        z, low, high = first(data[0]["unlabelled"].image), 1.0, 1e6
        for _ in range(60):
            factor = (low * high) ** 0.5
            reached = (torch.softmax(factor * z, 1).max(1).values >= T).float().mean() >= share
            low, high = (low, factor) if reached else (factor, high)
        for parameter in first.head.parameters():
            parameter.mul_(high)
        for other in networks[1:]:
            other.load_state_dict(first.state_dict())
            for parameter in other.parameters():
                parameter.mul_(1 + 0.01 * torch.randn_like(parameter))
        for batch in data:
            labelled = batch["labelled"]
            logits = F.interpolate(first(labelled.image), size=labelled.size, mode="bilinear", align_corners=True)
            labelled.mask = logits.argmax(1)


def peak(run: Callable[[Sequence[dict[str, Batch]]], object], batch: dict[str, Batch], device: str) -> float | None:
    """Peak memory of a step in MiB, in addition to what is allocated before it; None if unknown."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run([batch])
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if platform.system() != "Linux":
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # so that freed memory does not hide allocations
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = resident("VmRSS")
    run([batch])
    return (resident("VmHWM") - before) / 2**20


def measure(setting: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Medians of all forms of a step."""
    arch, encoder, images, size = NETWORKS[setting]
    method, loss = METHODS[name]
    config = Config.model_validate(
        {
            "network": {"arch": arch, "encoder": encoder, "weights": "none"}
            | ({"decoder_aspp_dropout": 0.0} if arch.startswith("Deep") else {"decoder_dropout": 0.0}),
            "method": {"name": method, **PLAIN_OPTIONS.get(method, {})},
            "loss": {"name": loss, "threshold": T},
            "train": {"crop": size, "batch": images},
        }
    )
    torch.manual_seed(0)
    built: Any = build_method(resolve(config), Facts(CLASSES, images={"unlabelled": 10 * images}))
    data = batches_of(args.steps, images, size)
    as_trained(list(built.networks()), data)
    built.to(args.device)
    networks = list(built.networks())
    device = torch.device(args.device)
    forms: dict[str, Any] = {"published": Plain(method, loss, networks, Means(), args.device)}
    forms["fuzzyseg"] = Ours(built, config, {"device": device, "channels_last": True})
    forms["fuzzyseg bf16"] = Ours(built, config, {"device": device, "channels_last": True, "precision": "bf16"})
    for field in fields(Means):
        uses = {"merged": method in ("ael", "unimatch"), "inference": method != "supervised"}
        uses["compiled"] = method != "unimatch"  # fails: its passes update batch norm again before the backward pass
        uses |= {"foreach_average": method == "ael", "fused": method != "supervised"}
        if uses.get(field.name, True) and (args.compile or field.name != "compiled"):
            forms[field.name] = Plain(method, loss, networks, Means(**{field.name: True}), args.device)
    forms = {key: form for key, form in forms.items() if not args.forms or key in args.forms}
    seconds: dict[str, list[float]] = {key: [] for key in forms}
    for form in forms.values():
        form.run(data[:1])
    for batch in data * args.rounds:
        for key, form in forms.items():
            seconds[key] += form.run([batch])
    seen = sum(len(data[0][stream].image) for stream in built.streams)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        "images": seen,
        "seconds": medians,
        "ratio": {key: medians["published"] / value for key, value in medians.items()},
        "peak_mib": {key: peak(form.run, data[0], args.device) for key, form in forms.items()},
        "repeats": len(data) * args.rounds,
    }


def table(rows: dict[str, Any]) -> str:
    """Images per second of the published form, then the speed of each form relative to it, and its peak memory."""
    forms = list(dict.fromkeys(form for row in rows.values() for form in row["ratio"]))
    lines = ["| step | images | " + " | ".join(forms) + " |", "| --- " * (len(forms) + 2) + "|"]
    for name, row in rows.items():
        cells = []
        for form in forms:
            if form not in row["ratio"]:
                cells.append("")
                continue
            speed = (
                f"{row['images'] / row['seconds'][form]:.2f}/s" if form == "published" else f"{row['ratio'][form]:.2f}"
            )
            memory = row["peak_mib"][form]
            cells.append(speed if memory is None else f"{speed} ({memory:.0f} MiB)")
        lines.append(f"| {name} | {row['images']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="words that the name of a row must have")
    parser.add_argument("--forms", nargs="*", default=[], help="columns to measure; default: all")
    parser.add_argument("--quick", action="store_true", help="a tiny network alone")
    parser.add_argument("--steps", type=int, default=3, help="batches")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over the batches")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes per network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to merge the rows into")
    parser.add_argument("--table", type=Path, help="print the table of a file and stop")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))["rows"]))
        return
    torch.set_num_threads(args.threads)
    rows: dict[str, Any] = {}
    if args.json and args.json.exists():
        rows = json.loads(args.json.read_text(encoding="utf-8"))["rows"]
    mine = {}
    for setting in ["tiny"] if args.quick else ["mobilenet", "resnet50"]:
        for name in METHODS:
            row = f"{setting}, {name}"
            if all(word in row for word in args.only):
                rows[row] = mine[row] = measure(setting, name, args)
                print(table({row: mine[row]}), flush=True)
                if args.json:
                    text = json.dumps({"hardware": hardware(args.device), "rows": rows}, indent=1)
                    args.json.write_text(text + "\n", encoding="utf-8")
    print(json.dumps(hardware(args.device)))
    print(table(mine))


if __name__ == "__main__":
    main()
