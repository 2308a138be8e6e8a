"""Outputs are computed once for equal inputs."""

import pytest
import torch
from torch import nn

from fuzzyseg.inference import Predictor, Protocol
from fuzzyseg.inference.reusing import ReusingPredictor
from support.small_images import PointNetwork, card, noise


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.calls = PointNetwork(), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


@pytest.mark.parametrize(("stored", "calls"), [(3, 3), (1, 5), (0, 6)])
def test_results_are_those_of_a_predictor_whatever_the_room(stored, calls):
    torch.manual_seed(0)
    network = Counting()
    images = [noise(20, 31), noise(20, 31), noise(31, 20)]
    images[1][5, 7, 2] ^= 1  # the inputs differ in one bit
    size = network(torch.zeros(1, 3, 20, 31)).nbytes
    plain, reusing = Predictor(network, card()), ReusingPredictor(network, card(), room=stored * size)
    expected = [plain.logits(image) for image in images]
    network.calls = 0
    for _ in range(2):
        for image, logits in zip(images, expected, strict=True):
            found = reusing.logits(image)
            assert torch.equal(found, logits)
            found.zero_()  # belongs to the caller
    assert network.calls == calls
    flipped = Protocol(flip=True)
    assert torch.equal(reusing.logits(images[0], flipped), plain.logits(images[0], flipped))
