"""Device functions that read logits and compute the fuzzy set of each pixel of a block.

A program handles one block of pixels, one per lane, and loops over the classes in as many passes as needed; after the
first, rows come from the L1 cache. Only the block is padded to a power of two.

Classes are ranked by logit, and ties by index (lower first), so that rounded probabilities do not affect the order. A
set is represented by the first class outside it, (value, index) at rank K + 1. Each pass over the classes moves one
rank down or up; the loop ends when no lane needs another pass. If more than half of the classes are known to be in the
set, the classes outside it are removed instead, starting with the least probable.
"""

import triton
import triton.language as tl

FEW: tl.constexpr = tl.constexpr(32)
"""Number of classes up to which the compiler unrolls loops by itself. Loops over more classes are unrolled explicitly,
since one load in flight per warp does not saturate memory. Upsampled logits do not need this: they are few and cached.
"""


@triton.jit
def log1p(x):
    """Compute log(1 + x) for x >= 0, accurately for small x (W. Kahan's method); Triton has no log1p."""
    above = 1.0 + x
    step = above - 1.0
    return tl.where(step == 0, x, tl.log(above) * (x / tl.where(step == 0, 1.0, step)))


@triton.jit
def between(at, old, ratio, ALIGNED: tl.constexpr):
    """Return the two `old` points around a new one and the weight of the second, as in torch's interpolation."""
    if ALIGNED:
        place = tl.cast(at, tl.float32) * ratio
    else:
        place = tl.maximum((tl.cast(at, tl.float32) + 0.5) * ratio - 0.5, 0.0)
    low = tl.minimum(place.to(tl.int32), old - 1)
    high = tl.minimum(low + 1, old - 1)
    return low, high, tl.minimum(place - low.to(tl.float32), 1.0)


@triton.jit
def blend(a, b, part):
    """Return a + part (b - a), as an explicit fma, so that every pass rounds in the same way."""
    return tl.fma(part, b - a, a)


@triton.jit
def corners(base, pixel, width, height_old, width_old, ratio_y, ratio_x, sy, sx, ALIGNED: tl.constexpr):
    """Return pointers to the four logits of the first class around each pixel, and the weights along y and x."""
    y0, y1, py = between(pixel // width, height_old, ratio_y, ALIGNED)
    x0, x1, px = between(pixel % width, width_old, ratio_x, ALIGNED)
    top, bottom = base + y0 * sy, base + y1 * sy
    return top + x0 * sx, top + x1 * sx, bottom + x0 * sx, bottom + x1 * sx, py, px


@triton.jit
def read(p00, p01, p10, p11, py, px, offset, inside, RAISED: tl.constexpr):
    """Read one row of logits as fp32, `offset` elements after the pointers; 0 in lanes outside the image."""
    value = tl.load(p00 + offset, mask=inside, other=0.0).to(tl.float32)
    if RAISED:
        v01 = tl.load(p01 + offset, mask=inside, other=0.0).to(tl.float32)
        v10 = tl.load(p10 + offset, mask=inside, other=0.0).to(tl.float32)
        v11 = tl.load(p11 + offset, mask=inside, other=0.0).to(tl.float32)
        value = blend(blend(value, v01, px), blend(v10, v11, px), py)
    return value


@triton.jit
def two_largest(p00, p01, p10, p11, py, px, step, inside, C: tl.constexpr, BLOCK: tl.constexpr, RAISED: tl.constexpr):
    """Return (value, class) at ranks 1 and 2. Loops from the last class to the first, so ties go to the lower class."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED else 1
    v1 = tl.full((BLOCK,), float("-inf"), tl.float32)
    v2 = tl.full((BLOCK,), float("-inf"), tl.float32)
    i1 = tl.full((BLOCK,), C, tl.int32)
    i2 = tl.full((BLOCK,), C, tl.int32)
    for n in tl.range(0, C, loop_unroll_factor=AHEAD):
        c = C - 1 - n
        t = read(p00, p01, p10, p11, py, px, c * step, inside, RAISED)
        first, second = t >= v1, t >= v2
        i2 = tl.where(first, i1, tl.where(second, c, i2))
        v2 = tl.where(first, v1, tl.where(second, t, v2))
        i1 = tl.where(first, c, i1)
        v1 = tl.where(first, t, v1)
    return v1, i1, v2, i2


@triton.jit
def next_below(v, i, p00, p01, p10, p11, py, px, step, inside, C: tl.constexpr, RAISED: tl.constexpr):
    """Return (value, class) at the rank after (v, i)."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED else 1
    best = tl.full(v.shape, float("-inf"), tl.float32)
    at = tl.full(v.shape, C, tl.int32)
    for n in tl.range(0, C, loop_unroll_factor=AHEAD):
        c = C - 1 - n
        t = read(p00, p01, p10, p11, py, px, c * step, inside, RAISED)
        better = ((t < v) | ((t == v) & (c > i))) & (t >= best)
        best = tl.where(better, t, best)
        at = tl.where(better, c, at)
    return best, at


@triton.jit
def next_above(v, i, p00, p01, p10, p11, py, px, step, inside, C: tl.constexpr, RAISED: tl.constexpr):
    """Return (value, class) at the rank before (v, i)."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED else 1
    best = tl.full(v.shape, float("inf"), tl.float32)
    at = tl.full(v.shape, C, tl.int32)
    for c in tl.range(0, C, loop_unroll_factor=AHEAD):
        t = read(p00, p01, p10, p11, py, px, c * step, inside, RAISED)
        better = ((t > v) | ((t == v) & (c < i))) & (t <= best)
        best = tl.where(better, t, best)
        at = tl.where(better, c, at)
    return best, at


@triton.jit
def sum_of_exponentials(top, p00, p01, p10, p11, py, px, step, inside, C: tl.constexpr, RAISED: tl.constexpr):
    """Return the sum of exp(t - top). A NaN in any class gives NaN."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED else 1
    total = tl.zeros(top.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=AHEAD):
        total += tl.exp(read(p00, p01, p10, p11, py, px, c * step, inside, RAISED) - top)
    return total


@triton.jit
def stays_within(total, threshold, OFFICIAL: tl.constexpr):
    """Return whether a cumulative sum is within T. Rounded sums may exceed T = 1."""
    if OFFICIAL:
        within = total < threshold
    else:
        within = (total <= threshold) | (threshold >= 1.0)
    return within


@triton.jit
def take_away(
    k, total, v, i, many, top, p1, threshold, p00, p01, p10, p11, py, px, step, inside,
    C: tl.constexpr, CAP: tl.constexpr, OFFICIAL: tl.constexpr, RAISED: tl.constexpr,
):  # fmt: skip
    """Update K, the sum of the first K probabilities, and (value, class) at rank K + 1 in the lanes `many`.

    Removes the least probable class, then further ones while the remaining sum exceeds T or K exceeds CAP.
    """
    low = tl.full(k.shape, float("-inf"), tl.float32)
    at = tl.full(k.shape, C, tl.int32)
    left = tl.full(k.shape, C, tl.int32)
    removed = tl.zeros(k.shape, tl.float32)
    more = many
    while tl.max(more.to(tl.int32), 0) > 0:
        next_v, next_i = next_above(low, at, p00, p01, p10, p11, py, px, step, inside, C, RAISED)
        low = tl.where(more, next_v, low)
        at = tl.where(more, next_i, at)
        removed = tl.where(more, removed + tl.exp(next_v - top) * p1, removed)
        left = tl.where(more, left - 1, left)
        exceeds = (stays_within(1.0 - removed, threshold, OFFICIAL) == 0) | (left > CAP)
        more = more & (left > 1) & exceeds
    k = tl.where(many, left, k)
    total = tl.where(many, 1.0 - removed, total)
    return k, total, tl.where(many, low, v), tl.where(many, at, i)


@triton.jit
def ranked(
    v1, v2, i2, p1, threshold, p00, p01, p10, p11, py, px, step, inside,
    C: tl.constexpr, CAP: tl.constexpr, RULE: tl.constexpr, FIXED: tl.constexpr, OFFICIAL: tl.constexpr,
    RAISED: tl.constexpr,
):  # fmt: skip
    """Run Alg. 1: return K, the sum of the first K probabilities, and (value, class) at rank K + 1."""
    k = tl.full(v1.shape, 1, tl.int32)
    total, v, i = p1, v2, i2
    HALF: tl.constexpr = C // 2 + 1
    if RULE != "fixed" and CAP >= HALF and C > 3:
        # No sum of n probabilities exceeds n times the largest.
        many = inside & stays_within(HALF * p1, threshold, OFFICIAL)
        k, total, v, i = take_away(
            k, total, v, i, many, v1, p1, threshold, p00, p01, p10, p11, py, px, step, inside, C, CAP, OFFICIAL, RAISED
        )
    p = tl.exp(v - v1) * p1
    more = inside & extends(k, total, p, threshold, CAP, RULE, FIXED, OFFICIAL)
    while tl.max(more.to(tl.int32), 0) > 0:
        next_v, next_i = next_below(v, i, p00, p01, p10, p11, py, px, step, inside, C, RAISED)
        k = tl.where(more, k + 1, k)
        total = tl.where(more, total + p, total)
        v = tl.where(more, next_v, v)
        i = tl.where(more, next_i, i)
        p = tl.exp(v - v1) * p1
        more = more & extends(k, total, p, threshold, CAP, RULE, FIXED, OFFICIAL)
    return k, total, v, i


@triton.jit
def extends(k, total, p, threshold, CAP: tl.constexpr, RULE: tl.constexpr, FIXED: tl.constexpr, OFFICIAL: tl.constexpr):
    """Return whether the class after the first k, with probability p, is also positive."""
    if RULE == "fixed":
        positive = (k < CAP) & (k < FIXED)
    elif RULE == "n":
        positive = (k < CAP) & stays_within(total, threshold, OFFICIAL)
    else:
        positive = (k < CAP) & stays_within(total + p, threshold, OFFICIAL)
    return positive


@triton.jit
def weight_of(inside, q, k, a, WEIGHT: tl.constexpr, OFFICIAL: tl.constexpr):
    """Compute Eq. 11 or 16 as in `FPLOptions.weight_of`."""
    m = (inside + q) / (k + 1.0) if OFFICIAL else inside / k
    gap = tl.where(m < q, 0.0, m - q)  # propagates NaN
    if WEIGHT == "concave":
        weight = log1p(a * gap) / log1p(a * m)
    elif WEIGHT == "linear":
        weight = gap / m
    elif WEIGHT == "convex":
        weight = gap / (m + 4.0 * q)
    elif WEIGHT == "convex1":
        weight = gap / (m + q)
    else:
        weight = 1.0 + (m - m)
    return weight
