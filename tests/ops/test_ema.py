import copy

import pytest
import torch
from torch import nn

from fuzzyseg.ops.ema import follow, teacher_of, warm_decay


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def moved(student, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in [*student.parameters(), *student.buffers()]:
            value.copy_(torch.randn_like(value) if value.is_floating_point() else value + 1)
    return student


def test_weights_are_the_closed_form_average_of_the_snapshots():
    student = network()
    teacher, first = teacher_of(student), copy.deepcopy(student)
    snapshots = []
    for seed in range(4):
        follow(teacher, moved(student, seed), 0.9)
        snapshots.append(student[0].weight.detach().clone())
    expected = 0.9**4 * first[0].weight.detach()
    for n, weight in enumerate(snapshots):
        expected = expected + 0.1 * 0.9 ** (3 - n) * weight
    torch.testing.assert_close(teacher[0].weight, expected)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


@pytest.mark.parametrize("buffers", ["own", "average", "copy"])
def test_buffers_follow_as_chosen(buffers):
    student = network()
    teacher = teacher_of(student)
    moved(student, 1)
    follow(teacher, student, 0.75, buffers=buffers)
    mean = {"own": torch.zeros(3), "average": 0.25 * student[1].running_mean, "copy": student[1].running_mean}
    torch.testing.assert_close(teacher[1].running_mean, mean[buffers])
    assert teacher[1].num_batches_tracked == (0 if buffers == "own" else 1)


def test_a_zero_decay_copies_and_different_networks_are_an_error():
    student = network()
    teacher = teacher_of(student)
    follow(teacher, moved(student, 2), 0.0)
    assert torch.equal(teacher[0].weight, student[0].weight)
    with pytest.raises(ValueError, match="differ"):
        follow(teacher, nn.Sequential(nn.Conv2d(2, 3, 1)), 0.9)


def test_the_warm_up_is_the_average_of_all_and_then_the_decay():
    assert [warm_decay(step, 0.99) for step in (0, 1, 9, 99, 1000)] == [0, 0.5, 0.9, 0.99, 0.99]
