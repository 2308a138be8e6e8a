import torch

from fuzzyseg.analysis import fuzzy_coverage


def test_counts_of_three_known_pixels():
    # p = (.4,.35,.2,.05) at T=.9: Y = {0,1}; p = (.95,...): Y = {0}
    unsure = torch.tensor([0.4, 0.35, 0.2, 0.05]).log()
    sure = torch.tensor([0.95, 0.03, 0.01, 0.01]).log()
    logits = torch.stack([unsure, unsure, unsure, sure, sure], -1).reshape(1, 4, 1, 5)
    target = torch.tensor([[[0, 1, 3, 1, 255]]])
    counts = fuzzy_coverage(logits, target, threshold=0.9)
    assert int(counts.pixels) == 4
    assert int(counts.covered) == 2
    assert int(counts.top1) == 1
    assert counts.k.tolist() == [1, 3, 0, 0]
    shares = counts.plus(counts).shares()
    assert shares["coverage"] == 0.5
    assert shares["top1"] == 0.25
    assert shares["k_histogram"] == [0.25, 0.75, 0, 0]


def test_nothing_labelled_gives_zero_shares():
    counts = fuzzy_coverage(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 255))
    assert counts.shares() == {"coverage": 0.0, "top1": 0.0, "k_histogram": [0.0, 0.0, 0.0]}
