import pytest
import torch

from fuzzyseg.methods.unimatch import channel_masks, join
from fuzzyseg.ops.channel_dropout import levels, scale_channels

SEEDS = torch.tensor([5, 2**61, 5])


def features(batch=3):
    return [torch.randn(batch, 3, 8, 8), torch.empty(batch, 0, 4, 4), torch.randn(batch, 6, 2, 2)]


def test_a_channel_is_dropped_or_doubled_by_the_samples_seed_alone():
    masks = channel_masks(SEEDS, [300, 500])
    assert [mask.shape for mask in masks] == [(3, 300), (3, 500)]
    for mask in masks:
        assert set(mask.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(mask[0], mask[2])
        assert not torch.equal(mask[0], mask[1])
        assert abs(float(mask.mean()) - 1) < 0.15
    assert not torch.equal(masks[0], masks[1][:, :300])  # levels are dropped independently
    assert torch.equal(channel_masks(SEEDS[1:2], [300, 500])[1], masks[1][1:2])


def test_kept_channels_make_up_for_the_dropped_ones():
    (mask,) = channel_masks(torch.arange(50), [400], 0.2)
    torch.testing.assert_close(mask.unique(), torch.tensor([0.0, 1.25]))
    assert abs(float((mask == 0).float().mean()) - 0.2) < 0.02
    (none,) = channel_masks(torch.arange(5), [40], 0.0)
    assert (none == 1).all()


def test_maps_and_tokens_of_a_level_lose_the_same_channels():
    maps = features()
    masks = channel_masks(SEEDS, [each.shape[1] for each in maps])
    for result, given, mask in zip(scale_channels(maps, masks), maps, masks, strict=True):
        torch.testing.assert_close(result, given * mask[:, :, None, None])
    tokens = [torch.randn(3, 2, 3), None, torch.randn(3, 2, 6)]
    both = scale_channels((maps, tokens), masks)
    assert isinstance(both, tuple)
    torch.testing.assert_close(both[0][2], maps[2] * masks[2][:, :, None, None])
    torch.testing.assert_close(both[1][2], tokens[2] * masks[2][:, None, :])
    assert both[1][1] is None
    half = scale_channels([each.bfloat16() for each in maps], masks)
    assert half[0].dtype == torch.bfloat16


def test_two_batches_are_joined_level_by_level():
    one, two = features(2), features(3)
    joined = join((one, [torch.ones(2, 1, 3), None, None]), (two, [torch.zeros(3, 1, 3), None, None]))
    assert isinstance(joined, tuple)
    assert torch.equal(joined[0][2], torch.cat([one[2], two[2]]))
    assert joined[1][0][:, 0, 0].tolist() == [1, 1, 0, 0, 0]
    assert joined[1][1] is None


def test_what_encode_gives_is_a_list_of_maps():
    maps = features()
    assert levels(maps) is maps
    assert levels((maps, [None] * 3)) is maps
    with pytest.raises(ValueError, match="found Tensor"):
        levels(maps[0])
