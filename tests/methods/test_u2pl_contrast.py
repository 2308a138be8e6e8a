"""U2PL's step: network, image, mode and share of each part of the filter and the contrast."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.methods import Progress
from fuzzyseg.methods.u2pl import U2PL
from fuzzyseg.methods.u2pl.contrast import contrast_parts
from fuzzyseg.ops.mix import box_masks
from fuzzyseg.ops.resize import resize_logits
from methods.test_u2pl import batches, make


def test_filter_and_contrast_are_by_the_teacher_on_the_mixed_image(monkeypatch):
    method, batch = make(mix=1.0, ranks=(1, 4), temperature=0.7), batches()
    with torch.no_grad():
        for p in (*method.teacher.parameters(), *method.teacher_head.parameters()):
            p += 0.2 * torch.randn(p.shape)
    for head in (method.head, method.teacher_head):
        head[3].p = head[7].p = 0.0  # no dropout
    labelled, free, given = batch["labelled"], batch["unlabelled"], {}

    def kept(name, function):
        def call(*arguments, **options):
            given[name] = (arguments, options)
            return function(*arguments, **options)

        return call

    module = sys.modules[U2PL.__module__]
    for name in ("contrast_parts", "info_nce"):
        monkeypatch.setattr(module, name, kept(name, getattr(module, name)))
    monkeypatch.setattr(method.bank, "push", kept("push", method.bank.push))
    method(batch, Progress(5, 10))

    mask = box_masks(free.seed, free.size, boxes=1, area=(0.5, 0.5))
    mixed = torch.where(mask.unsqueeze(1), free.image.roll(-1, 0), free.image)
    valid = torch.where(mask, free.valid.roll(-1, 0), free.valid)
    images = torch.cat([labelled.image, mixed])

    def cells(network, head):
        decoded = network.decode(network.encode(images))
        return head(decoded).movedim(1, -1).flatten(0, 2), network.classify(decoded)

    ours = F.normalize(cells(method.student, method.head)[0], dim=1)
    theirs, logits = cells(method.teacher, method.teacher_head)
    p = torch.softmax(resize_logits(logits[3:], free.size), 1)
    entropy = -(p * p.log()).sum(1)
    keep = method.pixel_loss.calls[-1]["valid"]
    assert entropy[keep].max() < entropy[valid & ~keep].min()

    clean = resize_logits(method.teacher(free.image), free.size)
    label = torch.where(mask.unsqueeze(1), clean.roll(-1, 0), clean).argmax(1)
    every = torch.cat([labelled.mask, torch.where(valid, label, 255)])
    (p_cells, label_cells, entropy_cells), options = given["contrast_parts"]
    torch.testing.assert_close(p_cells, torch.softmax(logits, 1).movedim(1, -1).flatten(0, 2))
    assert torch.equal(label_cells, every[:, ::2, ::2].flatten())
    torch.testing.assert_close(entropy_cells, entropy[:, ::2, ::2].flatten())
    assert options == {"share": pytest.approx(0.2 * 0.5), "ranks": (1, 4), "confidence": 0.1}

    torch.testing.assert_close(given["push"][0][0], F.normalize(theirs, dim=1))
    (anchors, positives, _), options = given["info_nce"]
    assert options["temperature"] == 0.7
    parts = contrast_parts(p_cells, label_cells, entropy_cells, share=0.1, ranks=(1, 4), confidence=0.1)
    for c in parts.anchor.any(0).nonzero().flatten().tolist():
        rows = slice(6 * c, 6 * c + 6)  # the six anchors of a class
        apart = torch.cdist(anchors[rows], ours[parts.anchor[:, c]], compute_mode="donot_use_mm_for_euclid_dist")
        assert apart.amin(1).max() < 1e-5
        mean = F.normalize(theirs[parts.present[:, c]].sum(0), dim=0)
        torch.testing.assert_close(positives[rows], mean.expand(6, -1), rtol=1e-4, atol=1e-5)
