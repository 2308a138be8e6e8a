"""Class activation maps, attention and fusion against literal loops and values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fuzzyseg.methods.pseudoseg.cam import activation_maps, attended, fused, sharpened


def test_maps_are_grad_cam_by_autograd_up_to_their_maximum():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 4, 5, generator=generator).requires_grad_(True)
    weight = torch.randn(3, 6, generator=generator)
    logits = features.mean((2, 3)) @ weight.T
    present = torch.tensor([[True, False, True], [True, True, True]])
    result = activation_maps(features, weight, present)
    for b in range(2):
        for k in range(3):
            (gradient,) = torch.autograd.grad(logits[b, k], features, retain_graph=True)
            cam = (gradient[b].mean((1, 2))[:, None, None] * features[b]).sum(0).clamp(min=0).detach()
            expected = cam / cam.max() if present[b, k] and cam.max() > 0 else torch.zeros(4, 5)
            torch.testing.assert_close(result[b, k], expected)
    assert not result.requires_grad
    assert not result[0, 1].any()


def test_a_map_without_a_positive_cell_is_zero():
    result = activation_maps(torch.ones(1, 2, 3, 3), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.ones(1, 2) > 0)
    assert not result[0, 0].any()
    assert (result[0, 1] == 1).all()


def test_attention_is_that_of_a_loop_over_cells():
    generator = torch.Generator().manual_seed(1)
    maps, query, key = (torch.randn(2, n, 2, 3, generator=generator) for n in (3, 4, 4))
    valid = torch.tensor([[[True, True, False], [True, False, True]], [[False] * 3] * 2])
    result = attended(maps, query, key, valid)
    cells = [(y, x) for y in range(2) for x in range(3)]
    for b in range(2):
        for y, x in cells:
            weights = torch.zeros(2, 3)
            for v, u in cells:
                if not valid[b, y, x] or not valid[b].any():
                    weights[v, u] = 1.0
                elif valid[b, v, u]:
                    weights[v, u] = math.exp(float(query[b, :, y, x] @ key[b, :, v, u]) / 2)
            mean = (maps[b] * weights / weights.sum()).sum((1, 2))
            torch.testing.assert_close(result[b, :, y, x], maps[b, :, y, x] + mean)


def test_equal_keys_attended_the_mean():
    maps, zero = torch.rand(1, 2, 3, 3), torch.zeros(1, 4, 3, 3)
    result = attended(maps, zero, zero, torch.ones(1, 3, 3) > 0)
    torch.testing.assert_close(result, maps + maps.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("over", ["image", "batch", "pixel"])
def test_equal_logits_fuse_to_their_softmax_at_one_scale(over):
    z = torch.randn(2, 4, 3, 5)
    z[1] *= 7
    scale = {"batch": (z**2).mean().sqrt(), "image": (z**2).mean((1, 2, 3), keepdim=True).sqrt()}
    scale["pixel"] = (2 * z**2).sum(1, keepdim=True).sqrt()
    p = fused(z, z, 0.3, over=over)
    torch.testing.assert_close(p, torch.softmax(z / scale[over], 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused(10 * z, 10 * z, 0.3, over=over), p, rtol=1e-4, atol=1e-5)
    other = torch.randn(2, 4, 3, 5)
    mixed = fused(z, other, 0.3, over=over)
    assert not torch.allclose(fused(10 * z, other, 0.3, over=over), mixed, atol=1e-3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(2, 3, 5))


def test_only_over_the_batch_do_images_meet():
    z, m = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    for over in ("image", "pixel"):
        torch.testing.assert_close(fused(z, m, 0.5, over=over)[:1], fused(z[:1], m[:1], 0.5, over=over))
    assert not torch.allclose(fused(z, m, 0.5, over="batch")[:1], fused(z[:1], m[:1], 0.5, over="batch"))


def test_the_share_is_that_of_the_first():
    z, m = torch.randn(1, 4, 3, 5), torch.randn(1, 4, 3, 5)
    scale = ((z**2 + m**2).mean() / 2).sqrt()
    torch.testing.assert_close(fused(z, m, 1.0), torch.softmax(z / scale, 1))
    torch.testing.assert_close(
        fused(z, m, 0.25), 0.25 * torch.softmax(z / scale, 1) + 0.75 * torch.softmax(m / scale, 1)
    )


def test_sharpening_by_hand():
    p = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(sharpened(p, 1.0).exp(), p)
    torch.testing.assert_close(
        sharpened(p, 0.5).exp().flatten(), torch.tensor([0.36, 0.09, 0.01]) / 0.46, rtol=1e-4, atol=1e-5
    )
    sure = sharpened(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), 0.5)
    assert sure.isfinite().all()
    torch.testing.assert_close(sure.exp().flatten(), torch.tensor([1.0, 0.0, 0.0]))
