"""Gradient kernels, which read the student's logits and the state stored by the forward kernel.

A pixel's state consists of 32-bit words in planes: the largest term and the factor of each side (for upsampled logits
combined into one number); for the continuous rule, the gradient of the fractional class and its index; and one bit per
class.
"""

import triton
import triton.language as tl

from fuzzyseg.losses.kernels.cuda.assignment import between, blend


@triton.jit
def number(place, mask):
    """Read an fp32 number from the state."""
    return tl.load(place, mask=mask, other=0).to(tl.float32, bitcast=True)


@triton.jit
def backward_kernel(
    z_ptr, state_ptr, upstream_ptr, grad_ptr, pixels, plane, z_image, z_class, z_pixel, g_image, g_class, g_pixel,
    C: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, CONTINUOUS: tl.constexpr, MAP: tl.constexpr,
):  # fmt: skip
    """Compute the gradient for one block of pixels of an image. upstream: a map, or one number for all pixels.

    Handles ROWS classes at a time, a power of two up to 32, so that several loads are in flight.
    """
    image, lane = tl.program_id(1).to(tl.int64), tl.arange(0, BLOCK)
    first = tl.program_id(0).to(tl.int64) * BLOCK
    inside = lane < pixels - first
    at = image * pixels + first + lane
    z_place = z_ptr + image * z_image + first * z_pixel + lane * z_pixel
    g_place = grad_ptr + image * g_image + first * g_pixel + lane * g_pixel
    z_step, g_step = tl.cast(z_class, tl.int64), tl.cast(g_class, tl.int64)
    if MAP:
        factor = tl.load(upstream_ptr + at, mask=inside, other=0).to(tl.float32)
    else:
        factor = tl.load(upstream_ptr).to(tl.float32)
    state = state_ptr + at
    top, low = number(state, inside)[None, :], number(state + plane, inside)[None, :]
    lift = (number(state + 2 * plane, inside) * factor)[None, :]
    push = (number(state + 3 * plane, inside) * factor)[None, :]
    state += 4 * plane
    if CONTINUOUS:
        middle = (number(state, inside) * factor)[None, :]
        i = tl.load(state + plane, mask=inside, other=0)[None, :]
        state += 2 * plane
    for start in range(0, C, ROWS):
        c = (start + tl.arange(0, ROWS))[:, None]
        here = (c < C) & inside[None, :]
        word = tl.load(state + (start // 32) * plane, mask=inside, other=0)[None, :]
        z = tl.load(z_place[None, :] + c * z_step, mask=here, other=0).to(tl.float32)
        lifted = ((word >> (c % 32)) & 1) != 0
        g = tl.exp(tl.where(lifted, -z - top, z - low)) * tl.where(lifted, -lift, push)
        if CONTINUOUS:
            g = tl.where(i == c, middle, g)
        tl.store(g_place[None, :] + c * g_step, g, mask=here)


@triton.jit
def first_reached(n, inverse, ALIGNED: tl.constexpr):
    """Return a lower bound (too low by one or two) on the first new point that depends on old point n."""
    if ALIGNED:
        first = (n - 1).to(tl.float32) * inverse
    else:
        first = (n - 0.5) * inverse - 0.5
    return tl.maximum(first.to(tl.int32) - 1, 0)


@triton.jit
def after_last_reached(n, old, new, inverse, ALIGNED: tl.constexpr):
    """Return an upper bound (too high by a few) on the end of the range of new points that depend on old point n."""
    if ALIGNED:
        last = ((n + 1).to(tl.float32) * inverse).to(tl.int32) + 3
    else:
        last = ((n + 1.5) * inverse - 0.5).to(tl.int32) + 3
    return tl.where(n >= old - 1, new, tl.minimum(last, new))


@triton.jit
def part_of(n, low, high, part):
    """Return the weight of old point n in a new point between `low` and `high`."""
    return tl.where(low == n, 1.0 - part, 0.0) + tl.where(high == n, part, 0.0)


@triton.jit
def wide_row(ptr, y, sy, x0, x1, px, sx, mask):
    """Read one row of a class, interpolated along x."""
    a = tl.load(ptr + y * sy + x0 * sx, mask=mask, other=0).to(tl.float32)
    b = tl.load(ptr + y * sy + x1 * sx, mask=mask, other=0).to(tl.float32)
    return blend(a, b, px)


@triton.jit
def gradient_at(z, c, at, state_ptr, factor, plane, mask, CONTINUOUS: tl.constexpr):
    """Return the gradient of class c at the pixels `at`, times `factor`. z: these pixels' logits of class c."""
    state = state_ptr + at
    bits = state + (2 + c // 32) * plane
    if CONTINUOUS:
        bits += 2 * plane
    lifted = ((tl.load(bits, mask=mask, other=0) >> (c % 32)) & 1) != 0
    e = tl.exp(tl.where(lifted, -z - number(state, mask), z - number(state + plane, mask)))
    g = tl.where(lifted, -e, e)
    if CONTINUOUS:
        i = tl.load(state + 3 * plane, mask=mask, other=0)
        g = tl.where(i == c, number(state + 2 * plane, mask), g)
    return tl.where(mask, g * factor, 0.0)


@triton.jit
def lower_kernel(
    z_ptr, state_ptr, scalar_ptr, map_ptr, grad_ptr, plane, height, width,
    z_image, z_class, z_y, z_x, z_height, z_width, ratio_y, ratio_x, inverse_y, inverse_x,
    g_image, g_class, g_y, g_x,
    C: tl.constexpr, COLUMNS: tl.constexpr, CELLS: tl.constexpr, USED: tl.constexpr, ALIGNED: tl.constexpr,
    CONTINUOUS: tl.constexpr, MAP: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of USED neighbouring low-resolution logits in one row, for all classes.

    Gathers over the pixels that depend on them, at most COLUMNS columns, in a fixed order and without atomics, so the
    result is deterministic. Each lane sums one column along y; a product with the interpolation weights sums along x.
    The incoming gradient is a number, multiplied by a map if MAP.
    """
    y_old, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    leftmost = tl.program_id(0) * USED
    cell = leftmost + tl.arange(0, CELLS)
    kept = (tl.arange(0, CELLS) < USED) & (cell < z_width)
    y_from = first_reached(y_old, inverse_y, ALIGNED)
    y_to = after_last_reached(y_old, z_height, height, inverse_y, ALIGNED)
    x = first_reached(leftmost, inverse_x, ALIGNED) + tl.arange(0, COLUMNS)
    mask = x < width
    x0, x1, px = between(x, z_width, ratio_x, ALIGNED)
    px = tl.where(mask, px, 0.0)
    spread = part_of(cell[None, :], x0[:, None], x1[:, None], px[:, None])
    spread = tl.where(mask[:, None], spread, 0.0)
    above, below = tl.maximum(y_old - 1, 0), tl.minimum(y_old + 1, z_height - 1)
    scalar = tl.load(scalar_ptr).to(tl.float32)
    z_place, g_place = z_ptr + image * z_image, grad_ptr + image * g_image + y_old * g_y + cell * g_x
    for c in range(C):
        upper = wide_row(z_place, above, z_y, x0, x1, px, z_x, mask)
        middle = wide_row(z_place, y_old, z_y, x0, x1, px, z_x, mask)
        lower = wide_row(z_place, below, z_y, x0, x1, px, z_x, mask)
        total = tl.zeros((COLUMNS,), tl.float32)
        for y in range(y_from, y_to):
            y0, y1, py = between(y, z_height, ratio_y, ALIGNED)
            part = part_of(y_old, y0, y1, py)
            if part > 0:
                first = tl.where(y0 == y_old, middle, upper)
                second = tl.where(y1 == y_old, middle, lower)
                at = (image * height + y) * width + x
                factor = scalar * part
                if MAP:
                    factor *= tl.load(map_ptr + at, mask=mask, other=0).to(tl.float32)
                z = blend(first, second, py)
                total += gradient_at(z, c, at, state_ptr, factor, plane, mask, CONTINUOUS)
        gradient = tl.sum(total[:, None] * spread, 0)
        tl.store(g_place, gradient, mask=kept)
        z_place += z_class
        g_place += g_class


@triton.jit
def scale_kernel(grad_ptr, factor_ptr, elements, BLOCK: tl.constexpr):
    """Multiply the gradient in place by a number on the device; no memory traffic if the number is 1."""
    factor = tl.load(factor_ptr).to(tl.float32)
    if factor != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < elements
        value = tl.load(grad_ptr + at, mask=inside, other=0).to(tl.float32)
        tl.store(grad_ptr + at, value * factor, mask=inside)
