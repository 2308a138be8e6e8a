import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.methods.vat import VATConfig
from fuzzyseg.ops.gradient import adversarial_direction, difference_norm, frozen, unit
from fuzzyseg.ops.module_mode import without_dropout


def test_the_gradient_flows_through_a_frozen_module_and_not_into_it():
    first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    second.bias.requires_grad_(False)
    with frozen(second):
        second(first(torch.ones(1, 2))).sum().backward()
    assert first.weight.grad.any()
    assert second.weight.grad is None
    assert second.weight.requires_grad
    assert not second.bias.requires_grad  # as it was


def kl_sum(net, image):
    """Sum over pixels of KL(p || q(x + r)), p without gradient."""
    with torch.no_grad():
        p = net(image).log_softmax(1)
    return lambda offset: F.kl_div(net(image + offset).log_softmax(1), p, reduction="none", log_target=True)


def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 8, 3, 1, 1), nn.Tanh(), nn.Conv2d(8, 5, 1)
    )
    net(torch.randn(4, 3, 20, 20))  # statistics that are not the defaults
    return net.eval()


def lengths(values):
    return torch.linalg.vector_norm(values, dim=(1, 2, 3))


def test_a_sample_is_divided_by_its_own_norm_however_small():
    values = torch.randn(3, 2, 4, 4) * torch.tensor([1e-25, 1.0, 0.0]).view(3, 1, 1, 1)
    result = unit(values)
    torch.testing.assert_close(lengths(result), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(result[1], values[1] / values[1].norm())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_the_direction_has_length_1_per_sample(scale):
    """Also for tiny gradients: with 1e-8 added to the norm, an offset of 2 became 0.007."""
    net = small_net()
    with torch.no_grad():
        net[-1].weight.mul_(scale)
    image = torch.randn(3, 3, 20, 22)
    result = adversarial_direction(kl_sum(net, image), torch.randn_like(image), probe=0.1)
    torch.testing.assert_close(lengths(result), torch.ones(3), rtol=1e-3, atol=0)
    assert not result.requires_grad


@pytest.mark.parametrize("power", [1, 2])
def test_a_power_step_on_a_linear_softmax_is_the_analytic_fisher(power):
    """For z = A x the Hessian of KL at 0 is H = A^T (diag p - p p^T) A; one step gives H d / |H d|."""
    torch.manual_seed(1)
    a = torch.randn(4, 6, dtype=torch.float64)
    x, noise = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    p = (x @ a.T).softmax(1)
    result = adversarial_direction(
        lambda r: F.kl_div(((x + r) @ a.T).log_softmax(1), p, reduction="none"), noise, probe=1e-5, power=power
    )
    for sample in range(2):
        h = a.T @ (torch.diag(p[sample]) - torch.outer(p[sample], p[sample])) @ a
        d = noise[sample] / noise[sample].norm()
        for _ in range(power):
            d = h @ d / (h @ d).norm()
        torch.testing.assert_close(result[sample], d, rtol=1e-4, atol=1e-4)


def test_the_direction_changes_more_than_random_ones():
    net, image = small_net(), torch.randn(2, 3, 20, 20)
    divergence = kl_sum(net, image)

    def change(direction):
        with torch.no_grad():
            return divergence(0.5 * direction).sum((1, 2, 3))

    result = change(adversarial_direction(divergence, torch.randn_like(image), probe=0.1))
    others = torch.stack([change(unit(torch.randn_like(image))) for _ in range(20)])
    assert (result > others.max(0).values).all()
    # more steps approach the maximum
    largest = change(adversarial_direction(divergence, torch.randn_like(image), probe=0.1, power=40))
    assert (result <= largest * 1.02).all()


def test_nothing_of_the_network_is_touched():
    net, image = small_net().train(), torch.randn(2, 3, 20, 20)
    net[0].weight.requires_grad_(False)
    net[3].weight.grad = torch.ones_like(net[3].weight)
    divergence = kl_sum(net, image)
    buffers = {k: v.clone() for k, v in net.named_buffers()}
    flags = [p.requires_grad for p in net.parameters()]
    with torch.no_grad(), without_dropout(net, update_statistics=False):  # also within no_grad
        adversarial_direction(divergence, torch.randn_like(image), probe=0.1)
    assert (net[3].weight.grad == 1).all()
    assert all(p.grad is None for p in net.parameters() if p is not net[3].weight)
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(torch.equal(buffers[k], v) for k, v in net.named_buffers())
    assert net.training


def test_samples_do_not_see_each_other():
    net, image = small_net(), torch.randn(3, 3, 20, 20)
    noise = torch.randn_like(image)
    whole = adversarial_direction(kl_sum(net, image), noise, probe=0.1)
    other = image.clone()
    other[1:] *= 3
    torch.testing.assert_close(adversarial_direction(kl_sum(net, other), noise, probe=0.1)[0], whole[0])


def test_a_constant_network_has_no_direction():
    image = torch.randn(2, 3, 6, 6)
    result = adversarial_direction(lambda r: (r * 0).sum((1, 2, 3)), torch.randn_like(image), probe=0.1)
    assert not result.any()


def test_fp32_finds_the_direction_of_fp64_at_the_probe_and_not_far_below():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 96, 96)
    noise = torch.randn_like(image)

    def cosine(probe):
        result = []
        for kind in (torch.float32, torch.float64):
            net = small_net().to(kind)
            result.append(adversarial_direction(kl_sum(net, image.to(kind)), noise.to(kind), probe=probe).double())
        return (result[0] * result[1]).sum((1, 2, 3)).min()

    assert cosine(VATConfig().probe) > 0.999
    assert cosine(1e-5) < 0.9  # the test is sensitive


def test_autocast_does_not_reach_the_direction():
    net, image = small_net(), torch.randn(2, 3, 20, 20)
    noise = torch.randn_like(image)
    expected = adversarial_direction(kl_sum(net, image), noise, probe=0.1)
    divergence = kl_sum(net, image)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(adversarial_direction(divergence, noise, probe=0.1), expected)


def test_difference_norm_is_that_of_a_loop():
    image = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    expected = []
    for x in image:
        total = 0.0
        for c in range(3):
            total += sum(float(x[c, i + 2, j] - x[c, i, j]) ** 2 for i in range(3) for j in range(7))
            total += sum(float(x[c, i, j + 2] - x[c, i, j]) ** 2 for i in range(5) for j in range(5))
        expected.append(total**0.5)
    torch.testing.assert_close(difference_norm(image), torch.tensor(expected, dtype=torch.float64))
