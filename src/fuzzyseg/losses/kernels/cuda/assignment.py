"""On the device: where logits are read, and the fuzzy set of each pixel of a block, by comparisons of logits alone.

A program has a block of pixels, one in each lane, and goes through the classes row by row, as often as needed: the rows
it has read once lie in the nearest cache. Nothing is padded to a power of two but the block.

Classes are ranked by logit, equal ones by index, the lower first: no rounded probability decides, rank 1 least of all.
A set is bounded by the first class outside it, (value, index) at rank K + 1. One pass finds the next class, downwards
or upwards, and one exponential its probability; a block is done when no lane needs more. Where surely more than half of
the classes are in, the few outside are taken away from below instead.
"""

import triton
import triton.language as tl

FEW: tl.constexpr = tl.constexpr(32)
"""The classes up to which the compiler unrolls a loop by itself. Else rows are asked for several at a time, for one in
each warp would not keep the memory busy; not where logits are raised: those few lie in the cache.
"""


@triton.jit
def log1p(x):
    """log(1 + x), x >= 0, exact for small x: W. Kahan's form, for there is none in the language."""
    above = 1.0 + x
    step = above - 1.0
    return tl.where(step == 0, x, tl.log(above) * (x / tl.where(step == 0, 1.0, step)))


@triton.jit
def between(at, old, ratio, ALIGNED: tl.constexpr):
    """Which two of `old` points a new one lies between, and how far from the first: as torch's interpolation has it."""
    if ALIGNED:
        place = tl.cast(at, tl.float32) * ratio
    else:
        place = tl.maximum((tl.cast(at, tl.float32) + 0.5) * ratio - 0.5, 0.0)
    low = tl.minimum(place.to(tl.int32), old - 1)
    high = tl.minimum(low + 1, old - 1)
    return low, high, tl.minimum(place - low.to(tl.float32), 1.0)


@triton.jit
def blend(a, b, part):
    """a + part (b - a), the same in every pass: what is fused is not left to the compiler."""
    return tl.fma(part, b - a, a)


@triton.jit
def corners(base, pixel, width, height_old, width_old, ratio_y, ratio_x, sy, sx, ALIGNED: tl.constexpr):
    """Pointers to the four logits of the first class that each pixel lies between, and its parts along y and x."""
    y0, y1, py = between(pixel // width, height_old, ratio_y, ALIGNED)
    x0, x1, px = between(pixel % width, width_old, ratio_x, ALIGNED)
    top, bottom = base + y0 * sy, base + y1 * sy
    return top + x0 * sx, top + x1 * sx, bottom + x0 * sx, bottom + x1 * sx, py, px


@triton.jit
def read(p00, p01, p10, p11, py, px, offset, inside, RAISED: tl.constexpr):
    """One row of logits, fp32, `offset` elements after the pointers; 0 in lanes that are no pixel."""
    value = tl.load(p00 + offset, mask=inside, other=0.0).to(tl.float32)
    if RAISED:
        v01 = tl.load(p01 + offset, mask=inside, other=0.0).to(tl.float32)
        v10 = tl.load(p10 + offset, mask=inside, other=0.0).to(tl.float32)
        v11 = tl.load(p11 + offset, mask=inside, other=0.0).to(tl.float32)
        value = blend(blend(value, v01, px), blend(v10, v11, px), py)
    return value


@triton.jit
def two_largest(p00, p01, p10, p11, py, px, step, inside, C: tl.constexpr, BLOCK: tl.constexpr, RAISED: tl.constexpr):
    """(value, class) at ranks 1 and 2. From the last class to the first, so that the lowest of equal ones stays."""
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
    """(value, class) one rank after (v, i)."""
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
    """(value, class) one rank before (v, i)."""
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
    """The sum of exp(t - top). A NaN in any class gives NaN."""
    AHEAD: tl.constexpr = 8 if C > FEW and not RAISED else 1
    total = tl.zeros(top.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=AHEAD):
        total += tl.exp(read(p00, p01, p10, p11, py, px, c * step, inside, RAISED) - top)
    return total


@triton.jit
def stays_within(total, threshold, OFFICIAL: tl.constexpr):
    """Whether a running sum has not passed T. Rounded sums may exceed T = 1."""
    if OFFICIAL:
        found = total < threshold
    else:
        found = (total <= threshold) | (threshold >= 1.0)
    return found


@triton.jit
def take_away(
    k, total, v, i, many, top, p1, threshold, p00, p01, p10, p11, py, px, step, inside,
    C: tl.constexpr, CAP: tl.constexpr, OFFICIAL: tl.constexpr, RAISED: tl.constexpr,
):  # fmt: skip
    """K, the sum of the first K, and rank K + 1, in the lanes `many`: the least probable class is removed, and again.

    One is removed in any case, and then as long as what is left exceeds T.
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
    """Alg. 1: K, the sum of the first K probabilities, and (value, class) at rank K + 1."""
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
    more = inside & goes_on(k, total, p, threshold, CAP, RULE, FIXED, OFFICIAL)
    while tl.max(more.to(tl.int32), 0) > 0:
        next_v, next_i = next_below(v, i, p00, p01, p10, p11, py, px, step, inside, C, RAISED)
        k = tl.where(more, k + 1, k)
        total = tl.where(more, total + p, total)
        v = tl.where(more, next_v, v)
        i = tl.where(more, next_i, i)
        p = tl.exp(v - v1) * p1
        more = more & goes_on(k, total, p, threshold, CAP, RULE, FIXED, OFFICIAL)
    return k, total, v, i


@triton.jit
def goes_on(k, total, p, threshold, CAP: tl.constexpr, RULE: tl.constexpr, FIXED: tl.constexpr, OFFICIAL: tl.constexpr):
    """Whether the class of probability p, after the first k, is positive too."""
    if RULE == "fixed":
        found = (k < CAP) & (k < FIXED)
    elif RULE == "n":
        found = (k < CAP) & stays_within(total, threshold, OFFICIAL)
    else:
        found = (k < CAP) & stays_within(total + p, threshold, OFFICIAL)
    return found


@triton.jit
def weight_of(inside, q, k, a, WEIGHT: tl.constexpr, OFFICIAL: tl.constexpr):
    """Eq. 11 and 16, from the sum over the positives, the best negative and K (`fuzzyseg.losses.fpl.weight`)."""
    m = (inside + q) / (k + 1.0) if OFFICIAL else inside / k
    gap = tl.where(m < q, 0.0, m - q)  # keeps a NaN
    if WEIGHT == "concave":
        found = log1p(a * gap) / log1p(a * m)
    elif WEIGHT == "linear":
        found = gap / m
    elif WEIGHT == "convex":
        found = gap / (m + 4.0 * q)
    elif WEIGHT == "convex1":
        found = gap / (m + q)
    else:
        found = 1.0 + (m - m)
    return found
