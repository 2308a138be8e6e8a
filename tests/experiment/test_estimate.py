"""Memory of a step and number of evaluations, before the first step."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import fuzzyseg
from fuzzyseg.config import ConfigError, EvaluateConfig, TrainConfig
from fuzzyseg.data import Item
from fuzzyseg.engine import Settings
from fuzzyseg.experiment import estimate
from fuzzyseg.methods.base import Step
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork, make_batch

own = partial(TinyNetwork, classes=3, dropout=0.3)


def train(config, **options):
    return fuzzyseg.train(config, network=own, **options)


@pytest.mark.parametrize("method", ["cps", "u2pl", "ael", "cac"])
def test_measuring_changes_no_bit_of_the_training(tmp_path, monkeypatch, method):
    data, ends, calls, kept = write_folder(tmp_path / "data"), {}, [], estimate.kept_bytes
    monkeypatch.setattr(estimate, "kept_bytes", lambda *args: calls.append("kept") or kept(*args))
    for name, small in (("measured", 2**50), ("not measured", 1)):
        monkeypatch.setattr(estimate, "SMALL", small)
        monkeypatch.setattr(estimate, "free_bytes", lambda: calls.append(1) or 2**40)
        out = tmp_path / name
        train(settings(data, out, method={"name": method}, loss={"name": "paper"}, train={"steps": 4}), quiet=True)
        state = torch.load(out / "last.pt", weights_only=True)
        ends[name] = {key: value.clone() for key, value in state["modules"]["method"].items()}
    assert calls == [1, "kept", 1]
    assert ends["measured"].keys() == ends["not measured"].keys()
    assert all(torch.equal(value, ends["not measured"][key]) for key, value in ends["measured"].items())


def test_a_step_that_memory_is_too_small_for_is_refused_and_the_folder_used_again(tmp_path, monkeypatch):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "out", train={"crop": [256, 256], "steps": 2})
    with monkeypatch.context() as patched:
        patched.setattr(estimate, "free_bytes", lambda: 60_000_000)
        with pytest.raises(ConfigError, match=r"256x256 takes 0\.\d GB or more.*; 0\.1 GB are free.*--crop") as caught:
            train(config, quiet=True)
    assert not (tmp_path / "out" / "metrics.jsonl").read_text()
    side = int(str(caught.value).partition("--crop ")[2].partition("x")[0])
    for tried, fits in ((side, True), (256, False)):  # what is proposed is accepted
        patched.setattr(estimate, "free_bytes", lambda: 60_000_000)
        config["train"]["crop"] = [tried, tried]
        if fits:
            assert train(config | {"out": str(tmp_path / "smaller")}, quiet=True).finished
    patched.undo()
    config["train"]["crop"] = [16, 24]
    assert train(config, quiet=True).finished


class Square(nn.Module):
    """A method whose backward pass needs its input, and nothing else of its size."""

    learners = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch, progress):
        self.calls += 1
        return Step({"x": (self.weight * batch["labelled"].image).sum()})


@pytest.mark.parametrize("count", [2, 6])
def test_what_the_backward_pass_needs_is_counted(count):
    method, size = Square(), (64, 48)
    batch = {"labelled": make_batch(count, size, masks=True)}
    result = estimate.kept_bytes(batch, 0, method, Settings(3, torch.device("cpu")))
    assert result == count * 3 * 64 * 48 * 4
    assert method.calls == 0 and method.weight.grad is None


@pytest.mark.parametrize(("images", "proposed"), [(8, "accumulate=4"), (7, None)])
def test_the_batch_in_parts_is_proposed_where_it_can_be_split(monkeypatch, images, proposed):
    batch = {"labelled": make_batch(images, (128, 128), masks=True)}
    each = 3 * 128 * 128 * 4 * estimate.MARGIN
    monkeypatch.setattr(estimate, "free_bytes", lambda: int(5 * each) + 100)
    source = estimate.with_memory_check(
        lambda start, stop: iter([[batch, batch], [batch, batch]]), Square(), Settings(3, torch.device("cpu"))
    )
    with pytest.raises(ConfigError) as caught:
        source(0, 2)
    assert (proposed in str(caught.value)) if proposed else "accumulate" not in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "images", "options", "times"),
    [
        (1000, 10, {}, 10),  # never more than ten
        (1000, 100, {}, 3),  # an evaluation costs 2 M pixels, a step 3 * 2 * 4 * 40 * 80 = 76,800
        (1000, 70, {}, 5),
        (1000, 70, {"flip": True}, 2),
        (1000, 70, {"scales": [0.5, 1.0]}, 4),
        (1000, 70, {"diagnose": "every"}, 2),
        (6, 100, {}, 1),
        (5, 0, {}, 5),
    ],
)
def test_evaluations_take_at_most_a_tenth_of_the_training(tmp_path, steps, images, options, times):
    Image.new("L", (200, 100)).save(tmp_path / "a.png")
    items = [Item(tmp_path / "a.png", None, str(n)) for n in range(images)]
    card = SimpleNamespace(image_size=None)
    scoring = SimpleNamespace(items=items, settings=EvaluateConfig(**options), material=SimpleNamespace(card=card))
    method = SimpleNamespace(streams={"labelled": 1, "unlabelled": 2}, learners=1)
    train = TrainConfig(steps=steps, batch=4, crop=(40, 80))
    every = estimate.evaluation_interval(train, method, scoring)
    assert (-(-steps // every) if every else 1) == times
    card.image_size = (1000, 2000)
    if images:
        assert estimate.evaluation_interval(train, method, scoring) == 0
