"""`augment.on_device`: the same training, but for a level of rounding."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

import fuzzyseg
from fuzzyseg.data.transforms.photometric import BLUR
from fuzzyseg.data.views import Batch
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3)


def losses(tmp_path, name, *, on_device, jitter=0.3, steps=6, workers=0, **augment):
    config = settings(
        tmp_path / "data",
        tmp_path / name,
        augment={"scale": [0.7, 1.3], "jitter": jitter, "on_device": on_device, **augment},
        method={"name": "unimatch"},
        train={"steps": steps, "eval_every": 0, "log_every": 1, "workers": workers},
    )
    fuzzyseg.train(config, network=own, quiet=True)
    rows = [json.loads(row) for row in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    return [row["losses"] for row in rows if "losses" in row]


@pytest.mark.parametrize("workers", [0, 1])
def test_training_sees_the_same_images(tmp_path, workers):
    write_folder(tmp_path / "data")
    read = losses(tmp_path, "read", on_device=False)
    device = losses(tmp_path, "device", on_device=True, workers=workers)
    plain = losses(tmp_path, "plain", on_device=True, jitter=0.0)
    assert len(read) == len(device) == 6
    first = read[0]["supervised"]
    assert device[0]["supervised"] == pytest.approx(first, rel=1e-3)
    assert plain[0]["supervised"] != pytest.approx(first, rel=1e-3)  # the colours matter
    for a, b in zip(read, device, strict=True):
        assert a.keys() == b.keys()
        assert all(b[key] == pytest.approx(a[key], rel=0.02) for key in a)


def test_the_blur_goes_with_the_crop_by_default(tmp_path, monkeypatch):
    """The crop is 16x24: a twentieth of the published sigma; blur_reference=1 leaves it as it is."""
    write_folder(tmp_path / "data")
    seen = []
    plain = Batch.to

    def to(batch: Batch, device: torch.device, channels_last: bool = False) -> Batch:
        if len(batch.pending.views) > 1:
            changes = torch.stack(batch.pending.views[1:]).flatten(0, 2)
            seen.extend(changes[changes[:, 0] == BLUR, 1].tolist())
        return plain(batch, device, channels_last)

    monkeypatch.setattr(Batch, "to", to)
    losses(tmp_path, "default", on_device=True, steps=2)
    shrunk = seen.copy()
    seen.clear()
    losses(tmp_path, "published", on_device=True, steps=2, blur_reference=1)
    assert len(seen) == len(shrunk) > 4
    assert 0.1 <= min(seen) < max(seen) <= 2
    assert shrunk == pytest.approx([sigma * 16 / 320 for sigma in seen])


def test_readers_send_one_image_in_place_of_three(tmp_path, monkeypatch):
    write_folder(tmp_path / "data")
    seen = []
    plain = Batch.to

    def to(batch: Batch, device: torch.device, channels_last: bool = False) -> Batch:
        moved = plain(batch, device, channels_last)
        seen.append((len(batch.strong), len(moved.strong), batch.mask is not None))
        return moved

    monkeypatch.setattr(Batch, "to", to)
    losses(tmp_path, "device", on_device=True, steps=2)
    assert {(before, after) for before, after, labelled in seen if not labelled} == {(0, 2)}
