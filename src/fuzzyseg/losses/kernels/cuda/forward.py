"""Forward kernel, and the kernel that reduces its programs' sums and counts."""

import triton
import triton.language as tl

from fuzzyseg.losses.kernels.cuda.assignment import corners
from fuzzyseg.losses.kernels.cuda.pixels import (
    count,
    loss_of,
    student_side,
    teacher_side,
    total_of,
    write_gradient,
    write_state,
)


@triton.jit
def places(
    ptr, image, first, lane, width, per_image, height_old, width_old, ratio_y, ratio_x, sy, sx,
    ALIGNED: tl.constexpr, RAISED: tl.constexpr,
):  # fmt: skip
    """Return pointers to the first class of each pixel: its four `corners`, or the same pointer four times."""
    base = ptr + image * per_image
    if RAISED:
        pixel = first.to(tl.int32) + lane
        p00, p01, p10, p11, py, px = corners(
            base, pixel, width, height_old, width_old, ratio_y, ratio_x, sy, sx, ALIGNED
        )
    else:
        p00 = base + first * sx + lane * sx
        p01, p10, p11 = p00, p00, p00
        py = lane.to(tl.float32)
        px = py
    return p00, p01, p10, p11, py, px


@triton.jit
def teacher_places(
    t_ptr, o_ptr, mask_ptr, image, first, lane, at, inside, width,
    t_image, t_class, t_y, t_x, t_height, t_width, t_ratio_y, t_ratio_x,
    o_image, o_class, o_y, o_x, o_height, o_width, o_ratio_y, o_ratio_x,
    ALIGNED: tl.constexpr, RAISED: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """Return the teacher's `places` and class stride; where the mask is set, those of the other mixed image."""
    t00, t01, t10, t11, ty, tx = places(
        t_ptr, image, first, lane, width, t_image, t_height, t_width, t_ratio_y, t_ratio_x, t_y, t_x, ALIGNED, RAISED
    )
    step = tl.cast(t_class, tl.int64)
    if MIXED:
        o00, o01, o10, o11, oy, ox = places(
            o_ptr, image, first, lane, width, o_image, o_height, o_width, o_ratio_y, o_ratio_x, o_y, o_x,
            ALIGNED, RAISED,
        )  # fmt: skip
        other = tl.load(mask_ptr + at, mask=inside, other=0) != 0
        t00, t01, t10 = tl.where(other, o00, t00), tl.where(other, o01, t01), tl.where(other, o10, t10)
        t11, ty, tx = tl.where(other, o11, t11), tl.where(other, oy, ty), tl.where(other, ox, tx)
        step = tl.where(other, tl.cast(o_class, tl.int64), step)
    return t00, t01, t10, t11, ty, tx, step


@triton.jit
def write_found(
    loss_ptr, weight_ptr, confidence_ptr, label_ptr, k_ptr, sums_ptr, counts_ptr, at, inside, amount,
    loss, weight, confidence, label, k, entropy,
    C: tl.constexpr, BINS: tl.constexpr, HARD: tl.constexpr, WEIGHTED: tl.constexpr, LOSS: tl.constexpr,
    MAPS: tl.constexpr, COUNTS: tl.constexpr,
):  # fmt: skip
    """Write the maps, and this program's row of sums, label counts and K counts (see `finish_kernel`)."""
    if LOSS:
        tl.store(loss_ptr + at, loss, mask=inside)
    if MAPS:
        tl.store(weight_ptr + at, weight, mask=inside)
        tl.store(confidence_ptr + at, confidence, mask=inside)
        tl.store(label_ptr + at, label, mask=inside)
        tl.store(k_ptr + at, k, mask=inside)
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    place = sums_ptr + row * 5
    tl.store(place, tl.sum(amount, 0))
    tl.store(place + 1, total_of(loss, amount, inside))
    tl.store(place + 2, total_of(weight, amount, inside))
    tl.store(place + 3, total_of(confidence, amount, inside))
    tl.store(place + 4, total_of(entropy, amount, inside))
    if COUNTS:
        place = counts_ptr + row * (2 * BINS)
        count(place, label, amount, C, BINS, WEIGHTED)
        if not HARD:
            count(place + BINS, k - 1, amount, C, BINS, WEIGHTED)


@triton.jit
def limit(threshold, threshold_ptr, at, inside, THRESHOLD: tl.constexpr):
    """Return each pixel's T, given as a number, a number on the device, or a map."""
    value = tl.zeros(inside.shape, tl.float32)
    if THRESHOLD == "number":
        value += threshold
    elif THRESHOLD == "scalar":
        value += tl.load(threshold_ptr).to(tl.float32)
    else:
        value += tl.load(threshold_ptr + at, mask=inside, other=0).to(tl.float32)
    return value


@triton.jit
def forward_kernel(
    z_ptr, t_ptr, o_ptr, mask_ptr, valid_ptr, threshold_ptr, total_ptr, loss_ptr, grad_ptr, state_ptr,
    k_ptr, weight_ptr, confidence_ptr, label_ptr, sums_ptr, counts_ptr, threshold, a, share, pixels, width, plane,
    z_image, z_class, z_y, z_x, z_height, z_width, z_ratio_y, z_ratio_x,
    t_image, t_class, t_y, t_x, t_height, t_width, t_ratio_y, t_ratio_x,
    o_image, o_class, o_y, o_x, o_height, o_width, o_ratio_y, o_ratio_x, g_image, g_class, g_pixel,
    C: tl.constexpr, BLOCK: tl.constexpr, BINS: tl.constexpr,
    HARD: tl.constexpr, WEIGHT: tl.constexpr, CAP: tl.constexpr, RULE: tl.constexpr, FIXED: tl.constexpr,
    OFFICIAL: tl.constexpr, ALIGNED: tl.constexpr, RAISED_Z: tl.constexpr, RAISED_T: tl.constexpr, MIXED: tl.constexpr,
    THRESHOLD: tl.constexpr, VALID: tl.constexpr, LOSS: tl.constexpr, GRADIENT: tl.constexpr, STATE: tl.constexpr,
    MAPS: tl.constexpr, COUNTS: tl.constexpr, ENTROPY: tl.constexpr,
):  # fmt: skip
    """Process one block of pixels of an image. VALID: "all", "mask" or "weights"; other constants select the outputs.

    share: a pixel's weight in the mean if all are valid; otherwise total_ptr points to the sum of `valid`.
    """
    CONTINUOUS: tl.constexpr = RULE == "continuous"
    image, lane = tl.program_id(1).to(tl.int64), tl.arange(0, BLOCK)
    first = tl.program_id(0).to(tl.int64) * BLOCK
    inside = lane < pixels - first
    at = image * pixels + first + lane  # index into the maps
    z_step, g_step = tl.cast(z_class, tl.int64), tl.cast(g_class, tl.int64)
    z00, z01, z10, z11, zy, zx = places(
        z_ptr, image, first, lane, width, z_image, z_height, z_width, z_ratio_y, z_ratio_x, z_y, z_x, ALIGNED, RAISED_Z
    )
    t00, t01, t10, t11, ty, tx, t_step = teacher_places(
        t_ptr, o_ptr, mask_ptr, image, first, lane, at, inside, width,
        t_image, t_class, t_y, t_x, t_height, t_width, t_ratio_y, t_ratio_x,
        o_image, o_class, o_y, o_x, o_height, o_width, o_ratio_y, o_ratio_x, ALIGNED, RAISED_T, MIXED,
    )  # fmt: skip
    k, fraction, v, i, label, p1, weight = teacher_side(
        t00, t01, t10, t11, ty, tx, t_step, inside, limit(threshold, threshold_ptr, at, inside, THRESHOLD), a,
        C, BLOCK, RAISED_T, HARD, WEIGHT, CAP, RULE, FIXED, OFFICIAL,
    )  # fmt: skip
    top, low, ups, downs, upper, lower, entropy = student_side(
        label, v, i, fraction, z00, z01, z10, z11, zy, zx, z_step, t00, t01, t10, t11, ty, tx, t_step, inside,
        C, HARD, CONTINUOUS, ENTROPY, RAISED_Z, RAISED_T,
    )  # fmt: skip
    loss, push, lift, middle = loss_of(top, low, ups, downs, upper, lower)
    loss *= weight
    amount = inside.to(tl.float32)
    if VALID != "all":
        amount = tl.load(valid_ptr + at, mask=inside, other=0).to(tl.float32)
    write_found(
        loss_ptr, weight_ptr, confidence_ptr, label_ptr, k_ptr, sums_ptr, counts_ptr, at, inside, amount,
        loss, weight, p1, label, k + (fraction > 0).to(tl.int32), entropy,
        C, BINS, HARD, VALID == "weights", LOSS, MAPS, COUNTS,
    )  # fmt: skip
    if GRADIENT:
        factor = weight * (amount * share if VALID == "all" else amount / mean_over(total_ptr))
        write_gradient(
            grad_ptr + image * g_image + (first + lane) * g_pixel, factor, top, low, push, lift, middle, label, v, i,
            z00, z01, z10, z11, zy, zx, z_step, t00, t01, t10, t11, ty, tx, t_step, g_step, inside,
            C, HARD, CONTINUOUS, RAISED_Z, RAISED_T,
        )  # fmt: skip
    if STATE:
        write_state(
            state_ptr + at, plane, top, low, push * weight, lift * weight, middle * weight, label, v, i,
            t00, t01, t10, t11, ty, tx, t_step, inside, C, HARD, CONTINUOUS, RAISED_Z, RAISED_T,
        )  # fmt: skip


@triton.jit
def mean_over(total_ptr):
    """Return the divisor of the mean: the sum of `valid`, or 1 if that is 0."""
    total = tl.load(total_ptr).to(tl.float32)
    return tl.where(total > 0, total, 1.0)


@triton.jit
def column(ptr, rows, width, BLOCK: tl.constexpr):
    """Sum a table column of `rows` entries in fp64, in a fixed order."""
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        total += tl.load(ptr + row.to(tl.int64) * width, mask=row < rows, other=0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def finish_kernel(
    sums_ptr, counts_ptr, sums_out, labels_out, k_out, loss_out, rows,
    C: tl.constexpr, BINS: tl.constexpr, HARD: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Reduce the tables: programs 0 to 4 reduce the sums, the next C the label counts, the last C - 1 the K counts.

    The sums are those of valid, loss, weight, confidence and cross entropy on the label; the last four are weighted by
    valid. Program 0 also computes the mean.
    """
    n = tl.program_id(0)
    if n < 5:
        total = column(sums_ptr + n, rows, 5, BLOCK)
        tl.store(sums_out + n, total)
        if MEAN and n == 0:
            loss = column(sums_ptr + 1, rows, 5, BLOCK)
            tl.store(loss_out, (loss / tl.where(total > 0, total, 1.0)).to(tl.float32))
    elif n < 5 + C:
        tl.store(labels_out + (n - 5), column(counts_ptr + (n - 5), rows, 2 * BINS, BLOCK))
    elif HARD:  # K is 1 at every pixel
        total = column(sums_ptr, rows, 5, BLOCK)
        tl.store(k_out + (n - 5 - C), tl.where(n == 5 + C, total, 0.0))
    else:
        tl.store(k_out + (n - 5 - C), column(counts_ptr + BINS + (n - 5 - C), rows, 2 * BINS, BLOCK))
