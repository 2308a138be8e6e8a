import torch
from torch import nn

from fuzzyseg.ops.gradient import frozen


def test_the_gradient_flows_through_a_frozen_module_and_not_into_it():
    first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    second.bias.requires_grad_(False)
    with frozen(second):
        second(first(torch.ones(1, 2))).sum().backward()
    assert first.weight.grad.any()
    assert second.weight.grad is None
    assert second.weight.requires_grad
    assert not second.bias.requires_grad  # as it was
