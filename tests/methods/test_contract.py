"""The contract of `methods/base.py`, for all METHODS with all pixel losses that they accept."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from fuzzyseg.engine.optim import build_optimisers
from fuzzyseg.losses import PIXEL_LOSSES, SET_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import METHODS, Facts, Progress
from fuzzyseg.ops.mix import Mixed
from methods.variants import IMAGES, NOT_THE_SUM_OF_ITS_PARTS, READS_VALUES, VARIANTS
from support.tiny_network import TinyNetwork, make_batch


def joined(options):
    return "-".join(f"{key}={value}" for key, value in options.items())


CASES = [
    (name, loss, options)
    for name, method in METHODS.items()
    for number, options in enumerate(VARIANTS.get(name, [{}]))
    for loss in ["paper", *PIXEL_LOSSES]
    if loss not in method.refuses and (number == 0 or loss in ("paper", "fuzzy"))
]
SIZES = {METHODS["gct"]: (12, 96)}
"""Images on which a method's losses are not empty: on smaller ones GCT's detector has one cell, and nobody teaches."""
IDS = [f"{name}-{loss}-{joined(options)}" for name, loss, options in CASES]
every_case = pytest.mark.parametrize(("name", "loss", "options"), CASES, ids=IDS)


def build(name, loss, options, *, classes=5, norm="batch", dropout=0.0, seed=0, flaws=30.0):
    torch.manual_seed(seed)
    chosen = METHODS[name]
    if loss == "paper":
        pixel = None if chosen.paper_loss is None else PixelLossModule(PIXEL_LOSSES[chosen.paper_loss[0]], {})
    else:
        # an untrained network is not confident, so that parts that need confident pixels would have no gradient
        pixel = PixelLossModule(PIXEL_LOSSES[loss], {"confidence": 0.25} if loss == "thresholded" else {})
    network = lambda: TinyNetwork(classes=classes, norm=norm, dropout=dropout)  # noqa: E731
    method = chosen(network, SupervisedLoss("ce"), pixel, chosen.Config(**options), Facts(classes, images=IMAGES))
    if name == "gct":  # an untrained detector finds no flaws, and without flaws there is no consistency
        with torch.no_grad():
            method.detector.body[-1].weight.mul_(flaws)
    return method


def batches(method, *, seed=0, count=3, size=None, classes=5):
    """One batch per stream; unlabelled streams have no mask."""
    size = size or SIZES.get(type(method), (12, 14))
    return {
        name: make_batch(
            count, size, classes, masks=stream.source == "labelled", seed=100 * seed + number, view=stream.view
        )
        for number, (name, stream) in enumerate(method.streams.items())
    }


def step(method, optimisers, seed, progress=None):
    """One training step; returns the sum of the losses."""
    progress = progress or Progress(seed, 10)
    torch.manual_seed(seed)
    losses = method(batches(method, seed=seed), progress).losses
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    method.after_step(progress)
    return total.detach()


def still(method):
    """The method with frozen batch norm, whose statistics would differ between micro-batches and processes."""
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return method


def optimisers(method):
    return build_optimisers(method.roles(), method, name="sgd", lr=0.1)


@every_case
@pytest.mark.parametrize(("classes", "size", "count"), [(2, (12, 14), 3), (150, (12, 14), 2), (5, (13, 9), 1)])
def test_losses_are_finite_scalars_for_any_classes_and_sizes(name, loss, options, classes, size, count):
    method = build(name, loss, options, classes=classes, norm="group")
    result = method(batches(method, classes=classes, size=size, count=count), Progress(0, 10))
    for term in result.losses.values():
        assert term.shape == ()
        assert term.isfinite()
    assert not any(value.requires_grad for value in result.metrics.values())


@every_case
def test_a_class_absent_and_an_image_all_void_do_no_harm(name, loss, options):
    method = build(name, loss, options, norm="group")
    batch = batches(method)
    mask = batch["labelled"].mask
    mask[mask == 2] = 1
    mask[0] = 255
    total = torch.stack(list(method(batch, Progress(0, 10)).losses.values())).sum()
    total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@every_case
def test_no_dropout_is_in_the_labels_but_where_they_share_the_students_forward(name, loss, options):
    """The teacher logits and valid pixels that the pixel loss receives, with and without dropout (p = 0.9)."""

    def given(dropout):
        method = build(name, loss, options, dropout=dropout)
        result = []

        def listening(student, teacher, **kwargs):
            result.extend([teacher.a, teacher.b] if isinstance(teacher, Mixed) else [teacher])
            result.append(kwargs["valid"])
            return original(student, teacher, **kwargs)

        if method.pixel_loss is None:
            pytest.skip("no term of it is a pixel loss")
        original, method.pixel_loss.forward = method.pixel_loss.forward, listening
        before = copy.deepcopy(dict(method.named_buffers()))
        method(batches(method), Progress(5, 10))
        moved = {key for key, value in method.named_buffers() if not torch.equal(before[key], value)}
        return method.shares_forward, result, moved

    shared, noisy, moved = given(0.9)
    _, clean, moved_without = given(0.0)
    assert len(noisy) == len(clean) > 0
    assert all(torch.equal(a, b) for a, b in zip(noisy, clean, strict=True)) == (not shared)
    assert moved == moved_without


@every_case
def test_void_and_padding_teach_nothing(name, loss, options):
    """Without a valid pixel the loss is 0."""
    method = build(name, loss, options, norm="group")
    batch = batches(method)
    for samples in batch.values():
        samples.valid[:] = False
        if samples.mask is not None:
            samples.mask[:] = 255
    total = torch.stack(list(method(batch, Progress(5, 10)).losses.values())).sum()
    assert float(total.detach()) == 0


@every_case
def test_every_loss_and_every_trained_parameter_takes_part_and_roles_cover_all(name, loss, options):
    method = build(name, loss, options, norm="group")
    losses = method(batches(method), Progress(5, 10)).losses
    if (name, loss) != ("mean_teacher", "paper"):  # the teacher equals the student at first
        assert all(float(value.detach()) != 0 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    in_roles = [p for role in method.roles().values() for p in role.params]
    assert {id(p) for p in in_roles} == {id(p) for p in method.parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.any() for p in in_roles)


@every_case
def test_forward_changes_no_parameter(name, loss, options):
    method = build(name, loss, options)
    before = copy.deepcopy(dict(method.named_parameters()))
    method(batches(method), Progress(0, 10))
    assert all(torch.equal(before[key], value) for key, value in method.named_parameters())
    assert all(p.grad is None for p in method.parameters())


@every_case
def test_state_dict_is_the_whole_method(name, loss, options):
    straight = build(name, loss, options, dropout=0.3)
    first = optimisers(straight)
    for seed in range(2):
        step(straight, first, seed)
    resumed = build(name, loss, options, dropout=0.3, seed=9)
    second = optimisers(resumed)
    resumed.load_state_dict(straight.state_dict())
    for ours, theirs in zip(second, first, strict=True):
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for seed in range(2, 4):
        assert torch.equal(step(straight, first, seed), step(resumed, second, seed))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@every_case
def test_no_device_is_assumed(name, loss, options):
    """On the meta device, tensors created on the CPU and reading values are errors."""
    method = build(name, loss, options, norm="group").to("meta")
    settings, reason = READS_VALUES.get(name, ({}, ""))
    if settings and settings.items() <= method.config.model_dump().items():
        pytest.skip(reason)
    batch = {key: value.to(torch.device("meta")) for key, value in batches(method).items()}
    total = torch.stack(list(method(batch, Progress(0, 10)).losses.values())).sum()
    total.backward()
    assert total.device.type == "meta"


@every_case
def test_micro_batches_of_equal_valid_pixels_equal_one_batch(name, loss, options):
    for excused in (name, f"{name}-{joined(options)}"):
        if excused in NOT_THE_SUM_OF_ITS_PARTS:
            pytest.skip(NOT_THE_SUM_OF_ITS_PARTS[excused])
    # GCT with large flaws, on images large enough to compare them: test_gct.py (fp32 is too coarse for squares here)
    method = still(build(name, loss, options, norm="group", flaws=1.0))
    whole = batches(method, count=4, size=(12, 14))
    for samples in whole.values():
        samples.valid[:] = True
        if samples.mask is not None:
            samples.mask[samples.mask == 255] = 0
    method(whole, Progress(0, 10))
    torch.stack(list(method(whole, Progress(0, 10)).losses.values())).sum().backward()
    expected = [p.grad.clone() for p in method.parameters() if p.requires_grad]
    method.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        part = {key: cut(value, half) for key, value in whole.items()}
        (torch.stack(list(method(part, Progress(0, 10)).losses.values())).sum() / 2).backward()
    for result, wanted in zip([p.grad for p in method.parameters() if p.requires_grad], expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-6)


def cut(batch, part):
    """A slice of a batch."""

    def some(value):
        if isinstance(value, tuple):
            return tuple(some(each) for each in value)
        return None if value is None else value[part]

    return type(batch)(**{field.name: some(getattr(batch, field.name)) for field in dataclasses.fields(batch)})


def test_every_method_describes_itself_and_what_it_refuses():
    for method in METHODS.values():
        assert method.__doc__
        assert method.paper
        assert method.cost
        assert (method.fuzzy == "does not apply") == ("fuzzy" in method.refuses)
        assert len({loss in method.refuses for loss in SET_LOSSES}) == 1  # they share the fuzzy set and its complement
        assert set(method.refuses) <= set(PIXEL_LOSSES)
        assert all("does not apply" in reason for reason in method.refuses.values())
        for key, field in method.Config.model_fields.items():
            assert field.description, f"{method.__name__}.{key} has no help text"
            assert field.json_schema_extra["source"], f"{method.__name__}.{key} has no source"
