import pytest
import torch
from torch import nn

from fuzzyseg.ops.steady import steady


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))


def modes(net):
    return [(m.training, getattr(m, "track_running_stats", None)) for m in net.modules()]


def test_forwards_agree_and_no_statistics_move():
    net, image = network(), torch.randn(2, 3, 5, 5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = modes(net)
    with steady(net):
        first, second = net(image), net(image)
    assert torch.equal(first, second)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert modes(net) == found
    # batch-norm uses the batch, as in training
    hidden = net[0](image)
    normal = (hidden - hidden.mean((0, 2, 3), True)) / (
        hidden.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(first, net[3](normal))


def test_statistics_move_once_where_asked():
    net = network()
    with steady(net, statistics=True):
        net(torch.randn(2, 3, 5, 5))
    assert int(net[1].num_batches_tracked) == 1
    assert net[1].running_mean.any()


def test_batch_norm_in_evaluation_mode_stays_there():
    net, image = network().eval(), torch.randn(2, 3, 5, 5)
    with steady(net):
        assert torch.equal(net(image), net(image))
        assert not net[1].training
    assert not any(m.training for m in net.modules())


def test_modes_are_restored_after_an_error():
    net = network()
    net[2].eval()
    found = modes(net)
    with pytest.raises(RuntimeError), steady(net):
        net(torch.randn(2, 5, 5, 5))
    assert modes(net) == found
