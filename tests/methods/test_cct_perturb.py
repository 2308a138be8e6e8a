import torch

from fuzzyseg.methods.cct.perturb import feature_drop, feature_noise, foreground


def test_noise_is_relative_bounded_and_the_same_for_all_images():
    f = torch.randn(3, 4, 6, 5)
    f[:, 0] = 0
    out = feature_noise(f, 0.3)
    assert not out[:, 0].any()
    assert ((out - f).abs() <= 0.3 * f.abs() + 1e-6).all()
    assert ((out - f).abs() > 0.2 * f.abs()).any()
    one = feature_noise(torch.ones(3, 4, 6, 5), 0.3)
    assert torch.equal(one[0], one[1]) and torch.equal(one[0], one[2])
    assert one[0].unique().numel() > 100  # a number for each channel and cell


def test_the_most_active_cells_are_dropped_by_each_images_own_measure():
    f = torch.rand(3, 4, 6, 5) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1, 1)
    activity = f.mean(1)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        kept = feature_drop(f, 0.7, 0.9) != 0
        assert (kept.all(1) | ~kept.any(1)).all()  # whole cells
        kept = kept[:, 0]
        top = activity.amax((1, 2), keepdim=True)
        assert not kept[activity == top.expand_as(activity)].any()
        assert kept[activity < 0.7 * top].all()
        assert not kept[activity > 0.9 * top].any()
        ratio = activity / top
        assert ratio[kept].max() <= ratio[~kept].min()  # one u for all images
        seen.add(int(kept.sum()))
    assert len(seen) > 3  # drawn anew in each call


def test_foreground_is_what_is_not_background_at_the_features_size():
    z = torch.zeros(1, 3, 4, 4)
    z[:, 2, :2] = 1
    z[:, 1, 2:] = 1
    assert torch.equal(foreground(z, 1, (4, 4))[0, :, 0], torch.tensor([True, True, False, False]))
    assert torch.equal(foreground(z, 2, (2, 2))[0], torch.tensor([[False, False], [True, True]]))
