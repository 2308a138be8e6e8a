"""Activation checkpointing of the encoder."""

import pytest
import torch

from fuzzyseg.networks import build_network

VIT = "tu-vit_tiny_patch16_224"


def built(encoder: str, *, checkpointing: bool):
    torch.manual_seed(0)
    options = {"img_size": (32, 32)}
    return build_network(
        "DPT", encoder, weights="none", channels=3, classes=3, checkpointing=checkpointing, options=options
    )


def gradients_and_bytes(network) -> tuple[list[torch.Tensor], int]:
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    image = torch.randn(2, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(each.square().mean() for each in network.train().encode(image)[0])
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    used = sum(size for place, size in kept.items() if place not in weights)
    loss.backward()
    return [p.grad for p in network.parameters() if p.grad is not None], used


def test_gradients_are_equal_and_less_is_kept():
    (plain, all_kept), (less, kept) = (gradients_and_bytes(built(VIT, checkpointing=flag)) for flag in (False, True))
    assert len(plain) == len(less)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(plain, less, strict=True))
    assert kept < 0.6 * all_kept


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_encoders_without_it_or_with_batch_norm_are_refused(encoder):
    with pytest.raises(ValueError, match=r"network\.checkpointing: found the encoder"):
        build_network("FPN", encoder, weights="none", channels=3, classes=3, checkpointing=True)
