import torch

from fuzzyseg.ops.sample_rng import uniform

SEEDS = torch.tensor([5, 2**62 - 1, 5, 6])


def test_a_samples_numbers_are_those_of_its_seed_alone():
    whole = uniform(SEEDS, (50, 40))
    assert whole.shape == (4, 50, 40)
    assert torch.equal(whole[0], whole[2])
    assert torch.equal(whole[1:2], uniform(SEEDS[1:2], (50, 40)))
    rows = [whole[0], whole[1], whole[3], uniform(SEEDS, (50, 40), purpose=1)[0]]
    for i in range(4):
        assert (rows[i] >= 0).all()
        assert (rows[i] < 1).all()
        assert abs(float(rows[i].mean()) - 0.5) < 0.03
        for j in range(i):
            correlation = torch.corrcoef(torch.stack([rows[i].flatten(), rows[j].flatten()]))[0, 1]
            assert abs(float(correlation)) < 0.1


def test_other_random_numbers_are_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    uniform(SEEDS, (5,), purpose=7)
    assert torch.equal(before, torch.get_rng_state())
