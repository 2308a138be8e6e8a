"""Reuse of a network's outputs when several measurements need the same images."""

import hashlib

import torch
from torch import Tensor, nn

from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.predictor import Predictor


class ReusingPredictor(Predictor):
    """Predictor that computes the output for equal inputs only once, while the network's weights stay the same.

    room: maximum number of bytes of stored outputs; further outputs are computed each time. On a GPU, where a forward
    pass takes less time than the comparison of inputs, nothing is stored.
    """

    def __init__(
        self, network: nn.Module, card: ModelCard, device: torch.device | str = "cpu", *, room: int = 2**28
    ) -> None:
        super().__init__(network, card, device)
        self._outputs, self._room = dict[tuple[torch.Size, bytes], Tensor](), room

    def _output(self, inputs: Tensor) -> Tensor:
        if inputs.device.type != "cpu":
            return super()._output(inputs)
        key = inputs.shape, hashlib.blake2b(inputs.contiguous().numpy().data).digest()
        if key in self._outputs:
            return self._outputs[key].clone()
        output = super()._output(inputs)
        if output.nbytes <= self._room:
            self._room -= output.nbytes
            self._outputs[key] = output.clone()
        return output
