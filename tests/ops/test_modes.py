import pytest
import torch
from torch import nn

from fuzzyseg.ops.modes import evaluating


def test_every_part_comes_back_in_its_own_mode():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5)))
    network[1][0].eval()
    before = [part.training for part in network.modules()]
    statistics = network[0].running_mean.clone()
    with evaluating(network):
        assert not any(part.training for part in network.modules())
        network(torch.randn(2, 2, 3, 3))
    assert [part.training for part in network.modules()] == before
    assert torch.equal(network[0].running_mean, statistics)
    with pytest.raises(KeyError), evaluating(network):
        raise KeyError
    assert [part.training for part in network.modules()] == before
