"""Device functions for the loss, maps, sums and counts of a block of pixels, and for its gradient or backward state.

For a mean, each pixel's factor is known, so the gradient is written directly. For a map, four numbers and one bit per
class are stored, from which `backward` computes the gradient using the student's logits but not the teacher's.
"""

import triton
import triton.language as tl

from fuzzyseg.losses.kernels.cuda.assignment import (
    FEW,
    log1p,
    next_below,
    ranked,
    read,
    sum_of_exponentials,
    two_largest,
    weight_of,
)


@triton.jit
def is_positive(c, label, v, i, p00, p01, p10, p11, py, px, step, inside, HARD: tl.constexpr, RAISED: tl.constexpr):
    """Return whether class c ranks above (v, i), which is at rank K + 1; for the hard loss, whether it is the label."""
    if HARD:
        positive = label == c
    else:
        t = read(p00, p01, p10, p11, py, px, c * step, inside, RAISED)
        positive = (t > v) | ((t == v) & (c < i))
    return positive


@triton.jit
def teacher_side(
    p00, p01, p10, p11, py, px, step, inside, threshold, a,
    C: tl.constexpr, BLOCK: tl.constexpr, RAISED: tl.constexpr, HARD: tl.constexpr, WEIGHT: tl.constexpr,
    CAP: tl.constexpr, RULE: tl.constexpr, FIXED: tl.constexpr, OFFICIAL: tl.constexpr,
):  # fmt: skip
    """Return K; the membership, value and class at rank K + 1; the label and its probability; and the weight."""
    v1, label, v, i = two_largest(p00, p01, p10, p11, py, px, step, inside, C, BLOCK, RAISED)
    label = tl.minimum(label, C - 1)  # out of range if all classes are NaN
    p1 = 1.0 / sum_of_exponentials(v1, p00, p01, p10, p11, py, px, step, inside, C, RAISED)
    k = tl.full((BLOCK,), 1, tl.int32)
    fraction = tl.zeros((BLOCK,), tl.float32)
    weight = 1.0 + (p1 - p1)  # otherwise a NaN in the teacher's logits would not reach the hard loss
    if not HARD:
        k, total, v, i = ranked(
            v1, v, i, p1, threshold, p00, p01, p10, p11, py, px, step, inside, C, CAP, RULE, FIXED, OFFICIAL, RAISED
        )
        q = tl.exp(v - v1) * p1
        share = k.to(tl.float32)
        if RULE == "continuous":
            room = threshold - total
            fraction = tl.where((k < CAP) & (room > 0), tl.minimum(room / q, 1.0), 0.0)
            if WEIGHT != "none" and tl.max(fraction, 0) > 0:
                v3, _ = next_below(v, i, p00, p01, p10, p11, py, px, step, inside, C, RAISED)
                beyond = tl.exp(v3 - v1) * p1
            else:
                beyond = q
            total += fraction * q
            q += fraction * (beyond - q)
            share += fraction
        weight = weight_of(total, q, share, a, WEIGHT, OFFICIAL)
    return k, fraction, v, i, label, p1, weight


@triton.jit
def student_side(
    label, v, i, fraction, z00, z01, z10, z11, zy, zx, z_step, t00, t01, t10, t11, ty, tx, t_step, inside,
    C: tl.constexpr, HARD: tl.constexpr, CONTINUOUS: tl.constexpr, ENTROPY: tl.constexpr,
    RAISED_Z: tl.constexpr, RAISED_T: tl.constexpr,
):  # fmt: skip
    """Return the largest terms and the sums of both sides of Eq. 7 and 8, and the cross entropy."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED_Z and not RAISED_T else 1
    top = tl.full(v.shape, float("-inf"), tl.float32)
    low = tl.full(v.shape, float("-inf"), tl.float32)
    high = tl.full(v.shape, float("-inf"), tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=AHEAD):
        z = read(z00, z01, z10, z11, zy, zx, c * z_step, inside, RAISED_Z)
        lifted = is_positive(c, label, v, i, t00, t01, t10, t11, ty, tx, t_step, inside, HARD, RAISED_T)
        top = tl.maximum(top, tl.where(lifted, -z, float("-inf")))
        pushed = (lifted == 0) & (i != c) if CONTINUOUS else lifted == 0
        low = tl.maximum(low, tl.where(pushed, z, float("-inf")))
        if ENTROPY:
            high = tl.maximum(high, z)
    upper = tl.zeros(v.shape, tl.float32)
    lower = tl.zeros(v.shape, tl.float32)
    if CONTINUOUS:  # class i is positive with weight `fraction` and negative with weight 1 - fraction
        z_class = read(z00, z01, z10, z11, zy, zx, i * z_step, inside & (i < C), RAISED_Z)
        top = tl.maximum(top, tl.where(fraction > 0, -z_class, float("-inf")))
        low = tl.maximum(low, tl.where(fraction < 1, z_class, float("-inf")))
        # The exponential may overflow on a side where its weight is 0.
        upper = tl.where(fraction > 0, fraction * tl.exp(-z_class - top), 0.0)
        lower = tl.where(fraction < 1, (1.0 - fraction) * tl.exp(z_class - low), 0.0)
    ups = tl.zeros(v.shape, tl.float32)
    downs = tl.zeros(v.shape, tl.float32)
    entropy = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=AHEAD):
        z = read(z00, z01, z10, z11, zy, zx, c * z_step, inside, RAISED_Z)
        lifted = is_positive(c, label, v, i, t00, t01, t10, t11, ty, tx, t_step, inside, HARD, RAISED_T)
        e = tl.exp(tl.where(lifted, -z - top, z - low))
        ups += tl.where(lifted, e, 0.0)
        pushed = (lifted == 0) & (i != c) if CONTINUOUS else lifted == 0
        downs += tl.where(pushed, e, 0.0)
        if ENTROPY:
            entropy += tl.exp(z - high)
    if ENTROPY:
        z_class = read(z00, z01, z10, z11, zy, zx, label * z_step, inside & (label < C), RAISED_Z)
        entropy = tl.log(entropy) - (z_class - high)
    return top, low, ups, downs, upper, lower, entropy


@triton.jit
def loss_of(top, low, ups, downs, upper, lower):
    """Return Eq. 7 and the factors of its derivatives for a negative, a positive and the fractional class."""
    product = ups * (downs + lower) + upper * downs
    product = tl.where(product < 1.2e-38, 1.2e-38, product)  # propagates NaN
    x = top + low + tl.log(product)
    loss = tl.where(x > 0, x, 0.0) + log1p(tl.exp(-tl.abs(x)))
    part = 1.0 / (1.0 + tl.exp(-x)) / product
    return loss, part * (ups + upper), part * (downs + lower), part * (lower * ups - upper * downs)


@triton.jit
def write_gradient(
    place, factor, top, low, push, lift, middle, label, v, i,
    z00, z01, z10, z11, zy, zx, z_step, t00, t01, t10, t11, ty, tx, t_step, g_step, inside,
    C: tl.constexpr, HARD: tl.constexpr, CONTINUOUS: tl.constexpr, RAISED_Z: tl.constexpr, RAISED_T: tl.constexpr,
):  # fmt: skip
    """Write `factor` times the derivative with respect to every logit."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED_Z and not RAISED_T else 1
    for c in tl.range(0, C, loop_unroll_factor=AHEAD):
        z = read(z00, z01, z10, z11, zy, zx, c * z_step, inside, RAISED_Z)
        lifted = is_positive(c, label, v, i, t00, t01, t10, t11, ty, tx, t_step, inside, HARD, RAISED_T)
        e = tl.exp(tl.where(lifted, -z - top, z - low))
        g = e * tl.where(lifted, -lift, push)
        if CONTINUOUS:
            g = tl.where(i == c, middle, g)
        tl.store(place + c * g_step, g * factor, mask=inside)


@triton.jit
def write_state(
    place, plane, top, low, push, lift, middle, label, v, i, t00, t01, t10, t11, ty, tx, t_step, inside,
    C: tl.constexpr, HARD: tl.constexpr, CONTINUOUS: tl.constexpr, FOLDED: tl.constexpr, RAISED_T: tl.constexpr,
):  # fmt: skip
    """Write the backward pass's state as 32-bit words in planes (see `backward`)."""
    if FOLDED:
        tl.store(place, (top - tl.log(lift)).to(tl.int32, bitcast=True), mask=inside)
        tl.store(place + plane, (low - tl.log(push)).to(tl.int32, bitcast=True), mask=inside)
        place += 2 * plane
    else:
        tl.store(place, top.to(tl.int32, bitcast=True), mask=inside)
        tl.store(place + plane, low.to(tl.int32, bitcast=True), mask=inside)
        tl.store(place + 2 * plane, lift.to(tl.int32, bitcast=True), mask=inside)
        tl.store(place + 3 * plane, push.to(tl.int32, bitcast=True), mask=inside)
        place += 4 * plane
    if CONTINUOUS:
        tl.store(place, middle.to(tl.int32, bitcast=True), mask=inside)
        tl.store(place + plane, i, mask=inside)
        place += 2 * plane
    for start in range(0, C, 32):
        word = tl.zeros(v.shape, tl.int32)
        for n in range(32):
            c = start + n
            if c < C:
                lifted = is_positive(c, label, v, i, t00, t01, t10, t11, ty, tx, t_step, inside, HARD, RAISED_T)
                word |= lifted.to(tl.int32) << n
        tl.store(place, word, mask=inside)
        place += plane


@triton.jit
def count(place, index, amount, C: tl.constexpr, BINS: tl.constexpr, WEIGHTED: tl.constexpr):
    """Write the number of pixels per index, weighted by `amount`, which is 0 or 1 unless WEIGHTED."""
    if WEIGHTED:
        for c in range(C):
            tl.store(place + c, tl.sum(tl.where(index == c, amount, 0.0), 0))
    else:
        histogram = tl.histogram(tl.where(amount > 0, index, BINS - 1), BINS)
        tl.store(place + tl.arange(0, BINS), histogram.to(tl.int16))


@triton.jit
def total_of(values, amount, inside):
    """Sum the values of the block's pixels times `amount`; a NaN is kept even where `amount` is 0."""
    return tl.sum(tl.where(inside, values * amount, 0.0), 0)
