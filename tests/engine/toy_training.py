"""A small method and synthetic batches for the tests of the engine."""

import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.engine import Settings, build_optimisers
from fuzzyseg.methods.base import Method, Step
from fuzzyseg.ops import distributed
from fuzzyseg.run import Sink

CLASSES, SIZE = 3, 6


def masked_mean(loss, valid):
    valid = valid.float()
    return (loss * valid).sum() / distributed.mean(valid.sum()).clamp(min=1e-6)


class Student(nn.Module):
    def __init__(self, dropout, norm):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, image):
        return self.head(self.encoder(image))


class ToyMethod(Method):
    """Cross entropy, and an EMA teacher on noisy images; records its calls and draws (`seen`, `after`, `drawn`)."""

    def __init__(self, dropout=0.3, norm=nn.BatchNorm2d, noise=0.1):
        nn.Module.__init__(self)
        torch.manual_seed(3)
        self.student = Student(dropout, norm)
        torch.manual_seed(4)
        self.teacher = Student(dropout, norm).requires_grad_(False)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}
        self.noise = noise
        self.weights = None
        self.break_at = None
        self.seen, self.after, self.training_flags, self.drawn = [], [], [], []

    def forward(self, batch, progress):
        self.seen.append(progress)
        self.drawn.append(float(torch.rand(())))
        self.training_flags.append([m.training for m in self.student.encoder])
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        logits = self.student(labelled.image).float()
        supervised = F.cross_entropy(logits, labelled.mask, ignore_index=255, reduction="none")
        noisy = unlabelled.image + self.noise * torch.randn_like(unlabelled.image)
        with torch.no_grad():
            target = self.teacher(unlabelled.image).float()
        gap = (self.student(noisy).float() - target).square().mean(1)
        losses = {
            "supervised": masked_mean(supervised, labelled.mask != 255),
            "consistency": 0.5 * masked_mean(gap, unlabelled.valid),
        }
        if self.break_at == progress.step:
            losses["consistency"] = losses["consistency"] * float("nan")
        share = torch.bincount(target.argmax(1).flatten(), minlength=CLASSES).float()
        return Step(losses, {"share": share / share.sum(), "confidence": target.softmax(1).amax(1).mean()})

    def after_step(self, progress):
        self.after.append(progress)
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.lerp_(other, 0.1)

    def draw_weights(self, stream):
        return self.weights if stream == "unlabelled" else None


def samples(step, stream, count, mask):
    generator = torch.Generator().manual_seed(1000 * step + len(stream))
    draw = torch.rand((count, 3, SIZE, SIZE), generator=generator) - 0.5
    valid = torch.rand((count, SIZE, SIZE), generator=generator) < torch.linspace(0.3, 1.0, count).view(-1, 1, 1)
    classes = torch.randint(0, CLASSES, (count, SIZE, SIZE), generator=generator)
    return Batch(
        image=draw,
        valid=valid,
        mask=classes.masked_fill(~valid, 255) if mask else None,
        index=torch.arange(count),
        name=[f"{stream}-{step}-{k}" for k in range(count)],
        seed=torch.arange(count),
        drawn_for=torch.full((count,), -1),
    )


def cut(batch, part):
    """The samples `part` (a slice) of `batch`."""
    values = {
        k: v[part]
        for k, v in vars(batch).items()
        if k not in ("strong", "pair", "boxes", "flips", "mask", "statistics", "pending", "scores")
    }
    return Batch(**values, mask=None if batch.mask is None else batch.mask[part])


def batches(accumulate=1, count=4, on_step=None, part=slice(None), all_valid=False):
    """The `batches` argument of fit; on_step(step) is called as each step is drawn."""

    def draw(start, stop):
        for step in range(start, stop):
            if on_step is not None:
                on_step(step)
            whole = {
                "labelled": samples(step, "labelled", count, True),
                "unlabelled": samples(step, "un", count, False),
            }
            if all_valid:
                for batch in whole.values():
                    batch.valid = torch.ones_like(batch.valid)
                whole["labelled"].mask = whole["labelled"].mask.clamp(max=CLASSES - 1)
            mine = {name: cut(batch, part) for name, batch in whole.items()}
            size = len(mine["labelled"].image) // accumulate
            yield [
                {name: cut(batch, slice(i * size, (i + 1) * size)) for name, batch in mine.items()}
                for i in range(accumulate)
            ]

    return draw


def optimisers(method, name="sgd", lr=0.05, **options):
    return build_optimisers(method.roles(), method, name=name, lr=lr, weight_decay=1e-3, **options)


def settings(steps=20, **options):
    return Settings(steps=steps, device=torch.device("cpu"), **{"log_every": 4, "seed": 7, **options})


class Lines(Sink):
    """Records lines and ticks."""

    def __init__(self):
        self.lines, self.ticks = [], []

    def write(self, line):
        self.lines.append(line)

    def tick(self, step):
        self.ticks.append(step)


def evaluate(predictor, step):
    """A score that depends on the weights and draws random numbers."""
    assert not predictor.training
    torch.rand(3)
    image = samples(10_000, "val", 2, False).image
    return {"miou": float(predictor(image).softmax(1)[:, 0].mean()), "per_class": [0.1, 0.2]}


def flat(value, prefix=""):
    """All leaves of nested containers by path."""
    if isinstance(value, dict):
        value = list(value.items())
    elif isinstance(value, list | tuple):
        value = list(enumerate(value))
    else:
        return {prefix: value}
    return {name: leaf for key, item in value for name, leaf in flat(item, f"{prefix}/{key}").items()}


def differences(a, b):
    """Paths at which two nested states differ in any bit."""
    a, b = flat(a), flat(b)
    same = lambda x, y: torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y  # noqa: E731
    return sorted(k for k in a.keys() | b.keys() if k not in a or k not in b or not same(a[k], b[k]))
