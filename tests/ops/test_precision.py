import pytest
import torch

from fuzzyseg.ops.gradient import small_differences

CPU = torch.device("cpu")
product = torch.backends.cuda.matmul


def flags():
    return torch.backends.cudnn.allow_tf32, product.allow_tf32


@pytest.fixture(autouse=True)
def _restore():
    held = flags()
    yield
    torch.backends.cudnn.allow_tf32, product.allow_tf32 = held


@pytest.mark.parametrize("allowed", [(True, False), (True, True), (False, False)])
def test_neither_tf32_nor_autocast_within_and_as_before_after(allowed):
    torch.backends.cudnn.allow_tf32, product.allow_tf32 = allowed
    with torch.autocast("cpu", torch.bfloat16), small_differences(CPU):
        assert not torch.is_autocast_enabled("cpu")
        assert flags() == (False, False)
    assert flags() == allowed


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="the API of torch 2.9 and newer")
def test_the_newer_flags_too():
    convolution = torch.backends.cudnn.conv
    convolution.fp32_precision, product.fp32_precision = "ieee", "tf32"
    try:
        with pytest.raises(RuntimeError):
            flags()
        with small_differences(CPU):
            assert (convolution.fp32_precision, product.fp32_precision) == ("ieee", "ieee")
        assert (convolution.fp32_precision, product.fp32_precision) == ("ieee", "tf32")
    finally:
        convolution.fp32_precision, product.fp32_precision = "tf32", "none"


def test_they_are_restored_after_an_error():
    torch.backends.cudnn.allow_tf32 = True
    with pytest.raises(KeyError), small_differences(CPU):
        raise KeyError
    assert torch.backends.cudnn.allow_tf32
