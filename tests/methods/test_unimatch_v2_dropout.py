import torch

from fuzzyseg.methods.unimatch_v2 import complementary_masks

SEEDS = torch.cat([torch.arange(400), torch.tensor([2**62 - 1])])


def test_the_two_views_keep_what_the_other_loses():
    first, second = complementary_masks(SEEDS, [20, 0, 30])
    assert [mask.shape for mask in first] == [(401, 20), (401, 0), (401, 30)]
    for a, b in zip(first, second, strict=True):
        assert (a + b == 2).all()
        assert set(a.unique().tolist()) <= {0.0, 1.0, 2.0}
    whole = (first[0] == 1).all(1)
    for a in first[:1] + first[2:]:
        assert torch.equal((a == 1).all(1), whole)  # the same samples at every level
        assert ((a == 1).any(1) == whole).all()  # all or no channels
        dropped = a[~whole]
        assert abs(float(dropped.mean()) - 1) < 0.05  # the mean of the features is preserved
    assert abs(float(whole.float().mean()) - 0.5) < 0.08


def test_equal_levels_share_a_mask_and_others_do_not():
    first, second = complementary_masks(SEEDS, [24, 24, 24])
    assert torch.equal(first[0], first[2])
    assert torch.equal(second[0], second[1])
    apart, _ = complementary_masks(SEEDS, [24, 24, 25])
    rows = (apart[0] != 1).all(1)
    assert abs(float((apart[0][rows] == apart[1][rows]).float().mean()) - 0.5) < 0.03


def test_a_samples_seed_alone_decides():
    first, _ = complementary_masks(SEEDS, [24, 7])
    again, _ = complementary_masks(SEEDS[100:101], [24, 7])
    assert torch.equal(again[0], first[0][100:101])
    assert torch.equal(again[1], first[1][100:101])
    assert len({tuple(row) for row in first[0].tolist()}) > 180


def test_all_or_none_undropped():
    none, _ = complementary_masks(SEEDS, [9, 4], undropped=0.0)
    assert not any((mask == 1).any() for mask in none)
    every, others = complementary_masks(SEEDS, [9, 4], undropped=1.0)
    assert all((mask == 1).all() for mask in every + others)
