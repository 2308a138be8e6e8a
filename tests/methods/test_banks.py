"""Banks against plain Python lists."""

from __future__ import annotations

import pytest
import torch

from fuzzyseg.methods.cac.bank import StepBank
from fuzzyseg.methods.u2pl.bank import ClassBank
from fuzzyseg.ops import distributed


def rows(count, first=0, width=3):
    """Rows with unique values."""
    return (first + torch.arange(count, dtype=torch.float)).unsqueeze(1).expand(-1, width).clone()


@pytest.mark.parametrize("classes", [None, 4])
def test_a_step_bank_holds_what_the_last_steps_pushed_newest_last(classes):
    bank, pushed = StepBank(3, 3, classes), []
    assert bank.features.shape == (0, 3)
    for step in range(6):
        features = rows(5, 10 * step).requires_grad_()
        labels = torch.full((5,), step) if classes is None else torch.arange(4).expand(5, 4) == step % 4
        valid = torch.arange(5) != step
        bank.push(features, labels, valid)
        pushed.append((features.detach(), labels, valid))
        for result, expected in zip(
            (bank.features, bank.classes, bank.valid), zip(*pushed[-3:], strict=True), strict=True
        ):
            assert torch.equal(result, torch.cat(expected))
        assert not bank.features.requires_grad


def test_a_step_bank_comes_back_with_as_many_rows_as_it_had():
    bank, other = StepBank(3, 3), torch.nn.Sequential(StepBank(3, 3))
    for step in range(2):
        bank.push(rows(4, step), torch.arange(4), torch.ones(4, dtype=torch.bool))
    other[0].push(rows(9), torch.arange(9), torch.ones(9, dtype=torch.bool))
    other.load_state_dict(torch.nn.Sequential(bank).state_dict())
    for each in (bank, other[0]):
        each.push(rows(4, 50), torch.arange(4), torch.zeros(4, dtype=torch.bool))
    for name, value in bank.state_dict().items():
        assert torch.equal(value, other[0].state_dict()[name])
    assert len(bank.features) == 12
    with pytest.raises(RuntimeError, match="size mismatch"):
        StepBank(3, 7).load_state_dict(bank.state_dict())


def test_class_banks_keep_the_newest_rows_of_each_class():
    """Also with more keys than a class has rows, and without keys."""
    generator = torch.Generator().manual_seed(0)
    sizes = (7, 3, 4, 1)
    bank, lists = ClassBank(sizes, 3), [[] for _ in sizes]
    for step in range(12):
        count = (5, 0, 20, 2)[step % 4]
        members = torch.rand(count, 4, generator=generator) > (0.5, 0.9, 0.2, 0.99)[step % 4]
        keys = rows(count, 100 * step).requires_grad_()
        bank.push(keys, members)
        for c, held in enumerate(lists):
            held += keys[members[:, c], 0].tolist()
            del held[: -sizes[c]]
            start, filled = int(bank.start[c]), int(bank.filled[c])
            assert sorted(bank.rows[start : start + filled, 0].tolist()) == sorted(held), (step, c)
        assert not bank.rows.requires_grad
    assert bank.filled.tolist()[0] == 7


def test_only_members_are_sent_where_their_number_is_known(monkeypatch):
    torch.manual_seed(0)
    sent = []
    monkeypatch.setattr(distributed, "gather", lambda value: sent.append(len(value)) or value)
    bank = ClassBank((4, 50), 1)
    members = torch.zeros(40, 2, dtype=torch.bool)
    members[[3, 20, 21, 22, 39], 1] = True
    members[10:18, 0] = True
    bank.push(torch.arange(40.0).unsqueeze(1), members, limit=13)
    assert sent == [13, 13]
    assert sorted(bank.rows[4:9, 0].tolist()) == [3, 20, 21, 22, 39]
    held = bank.rows[:4, 0].tolist()
    assert set(held) <= set(range(10, 18))
    assert sorted(held) != [14, 15, 16, 17]  # any four of them, not the last four


def test_a_ring_gives_up_its_oldest_row_first():
    bank, one = ClassBank((3,), 1), torch.ones(1, 1, dtype=torch.bool)
    seen = []
    for value in range(5):
        bank.push(torch.full((1, 1), float(value)), one)
        seen.append(sorted(bank.rows[: int(bank.filled[0]), 0].tolist()))
    assert seen == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_draws_are_even_over_what_a_class_has_and_never_another_classes():
    bank = ClassBank((6, 5, 4), 1)
    members = torch.tensor([[True, False, False]] * 3 + [[False, True, False]] * 9)
    bank.push(torch.arange(12.0).unsqueeze(1), members)
    torch.manual_seed(0)
    index = bank.draw(100, 30)
    assert index.shape == (3, 100, 30)
    drawn = bank.rows[index].squeeze(-1)
    assert drawn[0].unique().tolist() == [0, 1, 2]
    assert drawn[1].unique().tolist() == [7, 8, 9, 10, 11]
    for c, count in ((0, 3), (1, 5)):
        shares = torch.stack([(drawn[c] == value).float().mean() for value in drawn[c].unique()])
        assert (shares - 1 / count).abs().max() < 0.03
    assert int(index.max()) < 15  # an empty bank gives an index that the caller ignores


def test_class_banks_come_back_bit_for_bit():
    bank, other = ClassBank((4, 4), 3), ClassBank((4, 4), 3)
    members = torch.rand(9, 2) > 0.3
    bank.push(torch.randn(9, 3), members)
    other.load_state_dict(bank.state_dict())
    more = torch.randn(3, 3)
    for each in (bank, other):
        each.push(more, torch.ones(3, 2, dtype=torch.bool))
    for name, value in bank.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_what_is_pushed_is_gathered_first(monkeypatch):
    """Both processes have the rows of both, in rank order."""

    def two(value):
        return torch.cat([value, value + value.new_tensor(1) if value.dtype.is_floating_point else value])

    monkeypatch.setattr(distributed, "gather", two)
    steps, rings = StepBank(2, 1), ClassBank((5,), 1)
    steps.push(rows(2, 0, 1), torch.tensor([3, 4]), torch.tensor([True, False]))
    rings.push(rows(2, 0, 1), torch.tensor([[True], [False]]))
    assert steps.features.flatten().tolist() == [0, 1, 1, 2]
    assert steps.classes.tolist() == [3, 4, 3, 4]
    assert steps.valid.tolist() == [True, False, True, False]
    assert rings.rows[:2].flatten().tolist() == [0, 1]


def test_banks_without_room_are_refused():
    with pytest.raises(ValueError, match="steps"):
        StepBank(0, 3)
    with pytest.raises(ValueError, match="at least one row"):
        ClassBank((3, 0), 3)
