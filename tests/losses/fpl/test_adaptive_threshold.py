"""Adaptive thresholds against explicit loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fuzzyseg import Mixed, assign_fuzzy_positives, fuzzy_membership, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, Adaptive, PixelLossModule, adaptive_threshold
from fuzzyseg.losses.fpl.adaptive_threshold import neighbourhood_divergence

CODE = {"candidates": (0.84, 0.89, 0.94, 0.99), "k_cap": 4, "variant": "official"}


def logits(seed: int = 0, size: tuple[int, int] = (6, 6), classes: int = 7, scale: float = 1.2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, classes, *size, generator=generator, dtype=torch.float64)


def literal_divergence(membership: Tensor, window: int, epsilon: float) -> Tensor:
    """KL(neighbours || centre), pixel by pixel, neighbour by neighbour."""
    batch, classes, height, width = membership.shape
    out = torch.zeros(batch, height, width, dtype=torch.float64)
    half = window // 2
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                counts = [0.0] * classes
                for v in range(max(0, y - half), min(height, y + half + 1)):
                    for u in range(max(0, x - half), min(width, x + half + 1)):
                        if (v, u) != (y, x):
                            counts = [n + float(membership[b, c, v, u]) for c, n in enumerate(counts)]
                k = float(membership[b, :, y, x].sum())
                for c in range(classes):
                    around = epsilon + counts[c] / sum(counts)
                    centre = epsilon + float(membership[b, c, y, x]) / k
                    out[b, y, x] += around * (math.log(around) - math.log(centre))
    return out


def cumulative(p: list[float]) -> Tensor:
    return torch.tensor(p, dtype=torch.float64).log()


@pytest.mark.parametrize("rule", ["n-1", "continuous"])
@pytest.mark.parametrize(("window", "epsilon"), [(5, 1e-6), (3, 1e-12)])
def test_choice_and_divergence_equal_an_explicit_loop(rule: str, window: int, epsilon: float) -> None:
    t = logits(1)
    t[:, 0, :, :3] += 4.0  # two regions, noise within and a border between them
    t[:, 1, :, 3:] += 3.0
    candidates = (0.6, 0.8, 0.95)
    divergences = []
    for candidate in candidates:
        mu = fuzzy_membership(t, threshold=candidate, rule=rule)
        expected = literal_divergence(mu, window, epsilon)
        result = neighbourhood_divergence(mu, window=window, epsilon=epsilon)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
        divergences.append(expected)
    chosen = torch.tensor(candidates, dtype=torch.float64)[torch.stack(divergences).argmin(0)]
    result = adaptive_threshold(t, candidates=candidates, window=window, epsilon=epsilon, rule=rule)
    second = torch.stack(divergences).sort(0).values
    clear = second[1] - second[0] > 1e-9
    assert clear.double().mean() > 0.5
    assert torch.equal(result[clear], chosen[clear])
    assert len(result.unique()) > 1


def test_one_candidate_is_that_threshold_and_equal_candidates_change_nothing() -> None:
    z, t = logits(2), logits(3)
    valid = torch.ones(2, 6, 6)
    options = {"k_cap": 4, "variant": "official"}
    plain = fuzzy_positive_loss(z, t, threshold=0.9, reduction="none", **options)
    for candidates in ((0.9,), (0.9, 0.9, 0.9)):
        module = PixelLossModule(PIXEL_LOSSES["fuzzy"], options, Adaptive(candidates))
        result = module(z, t, size=(6, 6), valid=valid, progress=(0, 1), maps=True)
        assert torch.equal(result.loss, plain)
    assert result.stats["threshold_histogram"].tolist() == [1, 0, 0]


def test_a_homogeneous_map_takes_the_first_candidate() -> None:
    t = cumulative([0.9985, 0.0005, 0.0004, 0.0003, 0.0003]).view(1, 5, 1, 1).repeat(2, 1, 6, 5)
    assert (adaptive_threshold(t, **CODE) == 0.84).all()
    unsure = cumulative([0.5, 0.2, 0.15, 0.1, 0.05]).view(1, 5, 1, 1).repeat(1, 1, 6, 5)
    result = adaptive_threshold(unsure, **CODE)  # all candidates have the same divergence
    assert (result == 0.84).all()
    assert (adaptive_threshold(t[..., :1, :1], **CODE) == 0.84).all()  # no neighbours: no NaN


def test_the_set_grows_to_hold_what_the_neighbours_are() -> None:
    """A centre of (0.6, 0.28, 0.06, ...) among pixels that are confident of the second or the first class."""
    centre = [0.6, 0.28, 0.06, 0.03, 0.02, 0.01]
    for neighbour in (0, 1):
        sure = [0.001] * 6
        sure[neighbour] = 0.995
        t = cumulative(sure).view(1, 6, 1, 1).repeat(1, 1, 5, 5)
        t[0, :, 2, 2] = cumulative(centre)
        chosen = adaptive_threshold(t, candidates=(0.7, 0.89, 0.99))
        members = assign_fuzzy_positives(t, threshold=chosen)[0, :, 2, 2].nonzero().flatten().tolist()
        assert members == ([0, 1] if neighbour else [0])
        assert float(chosen[0, 2, 2]) == (0.89 if neighbour else 0.7)  # the smallest that suffices


def test_classes_permute_and_images_flip() -> None:
    t = logits(4, (7, 9))
    result = adaptive_threshold(t, **CODE)
    order = torch.tensor([3, 0, 6, 5, 1, 4, 2])
    assert torch.equal(adaptive_threshold(t[:, order], **CODE), result)
    assert torch.equal(adaptive_threshold(t.flip(-1), **CODE), result.flip(-1))
    assert torch.equal(adaptive_threshold(t.flip(-2), **CODE), result.flip(-2))


def test_sets_and_gradients_are_those_of_the_chosen_threshold() -> None:
    z, t = logits(5).requires_grad_(), logits(6, scale=0.8).requires_grad_()
    policy = Adaptive(CODE["candidates"])
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {"k_cap": 4, "variant": "official"}, policy)
    valid = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.3
    result = module(z, t, size=(6, 6), valid=valid, progress=(0, 1), maps=True)
    chosen = adaptive_threshold(t, **CODE)
    assert not chosen.requires_grad
    per_candidate = [assign_fuzzy_positives(t, threshold=c, k_cap=4, variant="official").sum(1) for c in policy[0]]
    assert (result.k == torch.stack(per_candidate)).any(0).all()
    assert result.k.max() <= 4
    plain = fuzzy_positive_loss(z, t, threshold=chosen, k_cap=4, variant="official", reduction="none") * valid
    torch.testing.assert_close(result.loss, plain)
    grads = [torch.autograd.grad(loss.sum(), z, retain_graph=True)[0] for loss in (result.loss, plain)]
    torch.testing.assert_close(grads[0], grads[1])
    assert torch.autograd.grad(result.loss.sum(), t, allow_unused=True)[0] is None
    torch.testing.assert_close(result.stats["threshold"], chosen[valid].mean())
    shares = torch.stack([(chosen[valid] == c).float().mean() for c in policy[0]])
    torch.testing.assert_close(result.stats["threshold_histogram"], shares)
    assert module.thresholds(t, (6, 6)).equal(chosen)


def test_the_choice_is_made_at_the_stride_and_never_across_a_seam() -> None:
    z, a, b = logits(7, (5, 4)), logits(8, (5, 4), scale=4.0), logits(9, (5, 4), scale=0.6)
    size = (9, 10)
    mask = torch.zeros(2, *size, dtype=torch.bool)
    mask[:, 2:7, 3:9] = True
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, Adaptive())
    sides = [adaptive_threshold(side) for side in (a, b)]
    for y in range(9):
        for x in range(10):  # align_corners: cell y * 4 / 8, x * 3 / 9
            cell = (round(y / 2), round(x / 3))
            for side, alone in zip((a, b), sides, strict=True):
                assert torch.equal(module.thresholds(side, size)[:, y, x], alone[:, cell[0], cell[1]])
    mixed = module.thresholds(Mixed(a, b, mask), size)
    assert torch.equal(mixed, torch.where(mask, module.thresholds(b, size), module.thresholds(a, size)))
    valid = torch.ones(2, *size)
    result = module(z, Mixed(a, b, mask), size=size, valid=valid, progress=(0, 1))
    expected = PIXEL_LOSSES["fuzzy"](z, Mixed(a, b, mask), size=size, valid=valid, threshold=mixed)
    assert torch.equal(result.loss, expected.loss)


def test_wrong_options_are_named() -> None:
    for options, message in (
        (
            {"candidates": (0.9, 0.85)},
            r"candidates: found \[0.9, 0.85\], expected ascending thresholds in \(0, 1\]",
        ),
        ({"candidates": ()}, r"candidates: found \[\]"),
        ({"candidates": (0.5, 1.5)}, "candidates: found"),
        ({"window": 4}, "window: found 4, expected an odd number from 3"),
        ({"epsilon": 0.0}, "epsilon: found 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            adaptive_threshold(logits(), **options)
        with pytest.raises(ValueError, match=message):
            PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, Adaptive(**options))
    with pytest.raises(ValueError, match=r"found shape \(2, 3\), expected \(B,C,H,W\)"):
        adaptive_threshold(torch.zeros(2, 3))
