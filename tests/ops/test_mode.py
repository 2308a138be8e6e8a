import pytest
import torch
from torch import nn

from fuzzyseg.ops.mode import evaluating


def test_parts_come_back_to_the_mode_they_were_in_even_after_an_error():
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3)).train()
    network[3].eval()
    before, image = network[1].running_mean.clone(), torch.randn(4, 2, 5, 5)
    with evaluating(network):
        assert not any(part.training for part in network.modules())
        assert torch.equal(network(image), network(image))
    assert torch.equal(network[1].running_mean, before)
    assert [part.training for part in network] == [True, True, True, False]
    assert network.training
    with pytest.raises(RuntimeError, match="boom"), evaluating(network):
        raise RuntimeError("boom")
    assert [part.training for part in network] == [True, True, True, False]
