import pytest
import torch
from torch import nn

from fuzzyseg.engine import Settings, build_optimisers
from fuzzyseg.engine.optim import rate_factor, rates, set_rates
from fuzzyseg.methods.base import Role


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)
        self.critic = nn.Linear(2, 2, bias=False)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def roles(net, **head):
    return {
        "backbone": Role(list(net.encoder.parameters())),
        "head": Role(list(net.head.parameters()), **head),
        "critic": Role(list(net.critic.parameters()), lr=1e-4, optimiser="adam", decay=False),
    }


def build(net, parts=None, **options):
    return build_optimisers(parts or roles(net), net, **{"name": "sgd", "lr": 0.1, "weight_decay": 0.01, **options})


def factor(step, steps, **options):
    known = Settings(steps, torch.device("cpu"), **options)
    return rate_factor(step, known.steps, known.schedule, known.power, known.warmup)


def groups(optimisers):
    return [group for optimiser in optimisers for group in optimiser.param_groups]


def of(optimisers, parameter):
    """The only group that contains the parameter."""
    (group,) = [g for g in groups(optimisers) if any(p is parameter for p in g["params"])]
    return group


def test_every_trainable_parameter_is_in_one_group():
    net = Net()
    held = [p for group in groups(build(net)) for p in group["params"]]
    assert sorted(map(id, held)) == sorted(id(p) for p in net.parameters() if p.requires_grad)


def test_one_optimiser_for_each_name():
    net = Net()
    assert [type(o) for o in build(net)] == [torch.optim.SGD, torch.optim.Adam]
    assert [type(o) for o in build(net, name="adamw")] == [torch.optim.AdamW, torch.optim.Adam]
    assert len(build(net, name="adam")) == 1
    assert build(net, momentum=0.7)[0].param_groups[0]["momentum"] == 0.7


def test_a_role_brings_its_own_betas():
    net = Net()
    parts = roles(net)
    parts["critic"].betas = (0.9, 0.99)
    built = build(net, parts)
    assert of(built, net.critic.weight)["betas"] == (0.9, 0.99)
    assert of(build(net), net.critic.weight)["betas"] == (0.9, 0.999)
    assert "betas" not in of(built, net.head.weight)


def test_rates_of_the_roles():
    net = Net()
    built = build(net, roles(net, lr_factor=3.0), head_lr_factor=10.0)
    assert rates(built) == pytest.approx({"backbone": 0.1, "head": 3.0, "critic": 1e-4})
    set_rates(built, 0.5)
    assert rates(built) == pytest.approx({"backbone": 0.05, "head": 1.5, "critic": 5e-5})
    set_rates(built, 0.5)  # relative to the base rate, not to the current one
    assert rates(built) == pytest.approx({"backbone": 0.05, "head": 1.5, "critic": 5e-5})


@pytest.mark.parametrize("decay_norm", [False, True])
def test_norm_parameters_and_biases_are_spared(decay_norm):
    net = Net()
    built = build(net, decay_norm=decay_norm)
    spared = 0.01 if decay_norm else 0.0
    assert of(built, net.encoder[0].weight)["weight_decay"] == 0.01
    assert of(built, net.head.weight)["weight_decay"] == 0.01
    for parameter in (net.encoder[0].bias, net.encoder[1].weight, net.encoder[1].bias, net.head.bias):
        assert of(built, parameter)["weight_decay"] == spared
    assert of(built, net.critic.weight)["weight_decay"] == 0.0  # its role has no weight decay


def test_mistakes_in_the_roles_are_named():
    net = Net()
    parts = roles(net)
    with pytest.raises(ValueError, match=r"in no role: head\.bias, head\.weight"):
        build(net, {"backbone": parts["backbone"], "critic": parts["critic"]})
    with pytest.raises(ValueError, match=r"critic\.weight.*two roles.*'critic' and 'again'"):
        build(net, {**parts, "again": parts["critic"]})
    with pytest.raises(ValueError, match=r"'extra'.*does not have or train"):
        build(net, {**parts, "extra": Role(list(net.frozen.parameters()))})
    with pytest.raises(ValueError, match="'lion'; expected one of adam, adamw, sgd"):
        build(net, name="lion")


def test_poly_begins_at_the_base_and_ends_above_zero():
    values = [factor(step, 10, schedule="poly", power=0.9) for step in range(10)]
    assert values[0] == 1.0
    assert values[5] == pytest.approx(0.5**0.9)
    assert values[9] == pytest.approx(0.1**0.9)
    assert values == sorted(values, reverse=True)


def test_cosine_and_constant():
    assert factor(0, 8, schedule="cosine") == 1.0
    assert factor(4, 8, schedule="cosine") == pytest.approx(0.5)
    assert factor(2, 8, schedule="cosine") == pytest.approx((1 + 2**-0.5) / 2)
    assert factor(7, 8, schedule="cosine") > 0
    assert {factor(step, 8, schedule="constant") for step in range(8)} == {1.0}


def test_warmup_grows_to_the_schedule_and_does_not_shift_it():
    values = [factor(step, 20, schedule="poly", power=1.0, warmup=4) for step in range(20)]
    assert values[:4] == pytest.approx([0.25, 0.5 * 0.95, 0.75 * 0.9, 0.85])
    assert values[4:] == pytest.approx([1 - step / 20 for step in range(4, 20)])
