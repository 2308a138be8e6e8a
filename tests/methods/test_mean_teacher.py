"""Mean teacher against its specification: distance, weight, ramp, and the teacher's update."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.mean_teacher import MeanTeacher
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch

START, END = Progress(0, 90), Progress(89, 90)


def make(loss=None, norm="group", network=None, options=None, apart=True, **config):
    """apart: the teacher differs from the student, as after some steps."""
    torch.manual_seed(0)
    pixel = None if loss is None else PixelLossModule(PIXEL_LOSSES[loss], options or {}, 0.9)
    network = network or (lambda: TinyNetwork(norm=norm))
    method = MeanTeacher(network, SupervisedLoss("ce"), pixel, MeanTeacher.Config(**config), Facts(5))
    if apart:
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.2 * torch.randn_like(p))
    return method


def batches():
    return {"labelled": make_batch(masks=True, seed=1), "unlabelled": make_batch(masks=False, seed=2)}


def pairs(method, batch, names):
    """Student and teacher logits at image size, and valid pixels, of the named streams."""
    image = torch.cat([batch[name].image for name in names])
    size = image.shape[-2:]
    valid = torch.cat([batch[name].valid for name in names])
    return resize_logits(method.student(image), size), resize_logits(method.teacher(image), size), valid


def mean_squares(a, b, valid):
    """Mean over valid pixels and classes, by a loop over classes."""
    total = sum((((a[:, c] - b[:, c]) ** 2) * valid).sum() for c in range(a.shape[1]))
    return total / (a.shape[1] * valid.sum())


def test_torchsemiseg_is_100_times_the_mean_square_of_probabilities_on_all_images():
    method, batch = make(), batches()
    result = method(batch, START).losses
    z, t, valid = pairs(method, batch, ["labelled", "unlabelled"])
    torch.testing.assert_close(result["unsupervised"], 100 * mean_squares(z.softmax(1), t.softmax(1), valid))
    labelled = batch["labelled"]
    logits = resize_logits(method.student(labelled.image), labelled.size)
    torch.testing.assert_close(result["supervised"], F.cross_entropy(logits, labelled.mask, ignore_index=255))


def test_pixelssl_is_the_mean_square_of_logits_on_unlabelled_images():
    method, batch = make(preset="pixelssl"), batches()
    result = method(batch, END).losses["unsupervised"]
    torch.testing.assert_close(result, mean_squares(*pairs(method, batch, ["unlabelled"])))


def test_every_choice_of_a_preset_can_be_changed_alone():
    method, batch = make(of="logits", labelled=False, consistency_weight=3, ramp=0.5), batches()
    result = method(batch, Progress(9, 90)).losses["unsupervised"]
    r = math.exp(-5 * (1 - 9 / 45) ** 2)
    torch.testing.assert_close(result, 3 * r * mean_squares(*pairs(method, batch, ["unlabelled"])))


class OneAnswer(torch.nn.Module):
    """The same logits at every pixel."""

    def __init__(self, classes=21):
        super().__init__()
        self.encoder = torch.nn.Identity()
        self.logits = torch.nn.Parameter(torch.zeros(classes))

    def forward(self, image):
        return self.logits.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:])


def test_opposite_certainties_of_21_classes_are_2_of_21_apart():
    method = make(network=OneAnswer, consistency_weight=1, apart=False)
    with torch.no_grad():
        method.student.logits[3] = 100
        method.teacher.logits[7] = 100
    torch.testing.assert_close(method(batches(), START).losses["unsupervised"], torch.tensor(2 / 21))


@pytest.mark.parametrize(("of", "same"), [("probabilities", True), ("logits", False)])
def test_a_constant_on_the_students_logits(of, same):
    method = make(network=OneAnswer, of=of, apart=False)
    with torch.no_grad():
        method.student.logits.copy_(torch.randn(21))
    before = method(batches(), START).losses["unsupervised"]
    with torch.no_grad():
        method.student.logits.add_(1)
    assert torch.allclose(method(batches(), START).losses["unsupervised"], before) == same


def test_an_equal_teacher_teaches_nothing_and_gets_no_gradient():
    method = make(apart=False)
    loss = method(batches(), START).losses["unsupervised"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in method.student.parameters())
    method = make()
    method(batches(), START).losses["unsupervised"].backward()
    assert all(p.grad.any() for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize(
    ("loss", "config", "takes_part"),
    [(None, {}, True), (None, {"labelled": False}, False), ("fuzzy", {}, False), ("fuzzy", {"labelled": True}, True)],
)
def test_which_images_the_term_is_on(loss, config, takes_part):
    method, batch = make(loss, **config), batches()
    before = method(batch, START).losses["unsupervised"]
    batch["labelled"].image = batch["labelled"].image + 1.0
    assert (method(batch, START).losses["unsupervised"] != before) == takes_part


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_a_pixel_loss_takes_the_place_of_the_squared_error_with_a_weight_of_its_own(loss):
    method, batch = make(loss, pixel_weight=0.5, consistency_weight=7), batches()
    result = method(batch, START).losses["unsupervised"]
    z, t, valid = pairs(method, batch, ["unlabelled"])
    alone = PIXEL_LOSSES[loss](z, t, size=valid.shape[-2:], valid=valid, threshold=0.9).loss
    torch.testing.assert_close(result, 0.5 * alone.sum() / valid.sum())
    if loss == "hard":
        expected = F.cross_entropy(z, t.argmax(1), reduction="none") * valid
        torch.testing.assert_close(result, 0.5 * expected.sum() / valid.sum())


def test_the_ramp_is_a_share_of_the_run():
    method, batch = make(preset="pixelssl"), batches()
    full = method(batch, Progress(10, 90)).losses["unsupervised"]  # 5/45 of 90 steps
    values = [float((method(batch, Progress(n, 90)).losses["unsupervised"] / full).detach()) for n in (0, 4, 7, 10, 60)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(math.exp(-5))
    assert values[1] == pytest.approx(math.exp(-5 * 0.6**2))
    assert values[3] == values[4] == 1
    method = make(preset="pixelssl", ramp=0)
    torch.testing.assert_close(method(batch, START).losses["unsupervised"], full)


@pytest.mark.parametrize("warm_up", [False, True])
def test_the_teacher_is_the_average_of_the_students_after_each_step(warm_up):
    method = make(apart=False, warm_up=warm_up, decay=0.6)
    expected = copy.deepcopy(method.student.head.weight.detach())
    for step in range(4):
        with torch.no_grad():
            for p in method.student.parameters():
                p.add_(torch.randn_like(p))
        method.after_step(Progress(step, 10))
        decay = min(step / (step + 1), 0.6) if warm_up else 0.6
        expected = decay * expected + (1 - decay) * method.student.head.weight.detach()
        torch.testing.assert_close(method.teacher.head.weight, expected)


def test_the_teachers_statistics_come_from_its_own_forwards_alone():
    method = make(norm="batch")
    before = method.teacher.encoder["fine"][1].running_mean.clone()
    with torch.no_grad():
        method.student.encoder["fine"][1].running_mean.add_(5)
    method.after_step(START)
    norm = method.teacher.encoder["fine"][1]
    assert torch.equal(norm.running_mean, before)
    method(batches(), START)
    assert not torch.equal(norm.running_mean, before)
    assert int(norm.num_batches_tracked) == 2  # labelled, unlabelled


def test_the_student_is_the_predictor_unless_the_teacher_is_asked_for():
    method = make()
    assert method.predictor() is method.student
    method = make(predictor="teacher")
    assert method.predictor() is method.teacher
