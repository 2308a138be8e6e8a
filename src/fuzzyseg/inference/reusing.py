"""Cache of a network's outputs for several measurements on the same images."""

import hashlib

import torch
from torch import Tensor, nn

from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.predictor import Predictor


class ReusingPredictor(Predictor):
    """Predictor that caches the network's outputs on the CPU. The weights must not change.

    room: maximum number of bytes of cached outputs; further outputs are computed each time. On other devices, where a
    forward pass is faster than hashing the input, nothing is cached.
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
