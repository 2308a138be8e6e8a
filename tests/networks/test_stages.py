import pytest
from torch import nn

from fuzzyseg.networks.heads import check_stages
from support.tiny_network import TinyNetwork


class Half(nn.Module):
    def encode(self, image):
        return [image]


def test_what_is_missing_is_named():
    check_stages(TinyNetwork(), "UniMatch")
    with pytest.raises(ValueError, match="UniMatch works on features, but Half has no decode, classify"):
        check_stages(Half(), "UniMatch")
