"""Distillation against its specification: what the student sees, and what teaches it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss, fuzzy_positive_loss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.distill import Distill
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch


def make(loss, **config):
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES[loss], {}, 0.6)
    return Distill(lambda: TinyNetwork(norm="group"), SupervisedLoss("ce"), pixel, Distill.Config(**config), Facts(5))


def batches(method):
    return {
        name: make_batch(masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }


def expected(loss, logits, scores):
    """Loss of each pixel, from the definitions."""
    logits = resize_logits(logits, scores.shape[-2:])
    if loss == "hard":
        return F.cross_entropy(logits, scores.argmax(1), reduction="none")
    if loss == "soft":
        return -(scores.softmax(1) * logits.log_softmax(1)).sum(1)
    return fuzzy_positive_loss(logits, scores, threshold=0.6, reduction="none")


@pytest.mark.parametrize("strong", [True, False])
@pytest.mark.parametrize("loss", ["soft", "hard", "fuzzy"])
def test_the_stored_scores_teach_the_view_of_the_same_crop(loss, strong):
    method = make(loss, strong=strong, unsupervised_weight=0.7)
    batch = batches(method)
    u = batch["unlabelled"]
    result = method(batch, Progress(0, 10)).losses
    logits = method.student(u.strong[0] if strong else u.image)
    pixels = expected(loss, logits, u.scores)
    torch.testing.assert_close(result["unsupervised"], 0.7 * (pixels * u.valid).sum() / u.valid.sum())
    labelled = resize_logits(method.student(batch["labelled"].image), u.size)
    torch.testing.assert_close(
        result["supervised"], F.cross_entropy(labelled, batch["labelled"].mask, ignore_index=255)
    )


def test_only_the_unlabelled_stream_asks_for_scores():
    assert {name: stream.scores for name, stream in make("soft").streams.items()} == {
        "labelled": False,
        "unlabelled": True,
    }
