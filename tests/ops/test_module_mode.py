import pytest
import torch
from torch import nn

from fuzzyseg.ops.module_mode import evaluating, without_dropout


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))


def modes(net):
    return [(m.training, getattr(m, "track_running_stats", None)) for m in net.modules()]


def test_forwards_agree_and_no_statistics_move():
    net, image = network(), torch.randn(2, 3, 5, 5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    result = modes(net)
    with without_dropout(net, update_statistics=False):
        first, second = net(image), net(image)
        assert [m for m in net.modules() if m.training] == [net[1]]  # as stochastic depth does
    assert torch.equal(first, second)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert modes(net) == result
    # batch norm uses the batch, as in training
    hidden = net[0](image)
    normal = (hidden - hidden.mean((0, 2, 3), True)) / (
        hidden.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(first, net[3](normal))


def test_statistics_move_once_unless_they_must_not():
    net = network()
    with without_dropout(net):
        net(torch.randn(2, 3, 5, 5))
    assert int(net[1].num_batches_tracked) == 1
    assert net[1].running_mean.any()


def test_batch_norm_in_evaluation_mode_stays_there():
    net, image = network().eval(), torch.randn(2, 3, 5, 5)
    with without_dropout(net, update_statistics=False):
        assert torch.equal(net(image), net(image))
        assert not net[1].training
    assert not any(m.training for m in net.modules())


def test_modes_are_restored_after_an_error():
    net = network()
    net[2].eval()
    result = modes(net)
    with pytest.raises(RuntimeError), without_dropout(net, update_statistics=False):
        net(torch.randn(2, 5, 5, 5))
    assert modes(net) == result


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
