"""A temperature is never judged on the pixels that it was fitted on; errors and sets are counted as written."""

import torch

from fuzzyseg.analysis.temperature import LEVEL, SAMPLE, judged, sampled, temperature_of

NAMES = ["a", "b", "c", "d"]


def images(count, scale, seed=0, classes=4, pixels=600):
    """Pixels of images whose logits are `scale` times those of a calibrated model, one scale an image."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for number in range(count):
        logits = 2 * torch.randn(pixels, classes, generator=generator)
        target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        result.append((logits * (scale[number] if isinstance(scale, list) else scale), target))
    return result


def literal(images, temperatures):
    """Expected calibration error, set size and coverage by class, pixel by pixel."""
    bins = [[0.0, 0.0] for _ in range(15)]
    hits, pixels, size = [0] * 4, [0] * 4, 0
    for (logits, target), t in zip(images, temperatures, strict=True):
        for z, y in zip(logits.double() / t, target.tolist(), strict=True):
            p = z.softmax(0).tolist()
            top = max(range(4), key=p.__getitem__)
            place = next(n for n in range(15) if p[top] <= (n + 1) / 15 + 1e-12)
            bins[place][0] += p[top]
            bins[place][1] += top == y
            members, total = [], 0.0
            for c in sorted(range(4), key=lambda c: -p[c]):
                if total > LEVEL:
                    break
                members.append(c)
                total += p[c]
            size += len(members)
            hits[y] += y in members
            pixels[y] += 1
    n = sum(pixels)
    return (sum(abs(a - b) for a, b in bins) / n, size / n, [h / m for h, m in zip(hits, pixels, strict=True)])


def test_numbers_are_those_of_a_literal_count():
    data = images(3, 3.0)
    result = judged(data, 2.5, NAMES)
    before, _, _ = literal(data, [1.0] * 3)
    after, size, coverage = literal(data, [2.5] * 3)
    torch.testing.assert_close(
        torch.tensor(
            [result["ece"], result["ece_calibrated"], result["set_size"], *result["coverage_per_class"].values()]
        ),
        torch.tensor([before, after, size, *coverage]),
    )
    assert result["pixels"] == 1800 and after < before / 2


def test_each_half_is_judged_with_the_temperature_of_the_other():
    data = images(4, [1.0, 1.0, 4.0, 4.0])  # the first half is calibrated, the second far too sure
    first, second = temperature_of(data[:2]), temperature_of(data[2:])
    assert 0.9 < first < 1.1 and 3.5 < second < 4.5
    crossed = judged(data, None, NAMES)
    assert abs(crossed["ece_calibrated"] - literal(data, [second, second, first, first])[0]) < 1e-6
    assert crossed["ece_calibrated"] > 0.1  # fitted and judged on the same pixels it would be small
    assert abs(literal(data, [first, first, second, second])[0]) < 0.05


def test_one_image_is_not_judged_by_itself():
    assert judged(images(1, 2.0), None, NAMES) == judged([], 2.0, NAMES) == {}
    assert judged(images(1, 2.0), 2.0, NAMES)["images"] == 1


def test_void_pixels_are_left_out_and_images_are_sampled_evenly():
    logits, mask = torch.randn(1, 3, 100, 100), torch.randint(0, 3, (1, 100, 100))
    mask[0, :50] = 255
    z, y = sampled([(logits, mask)])
    assert 2048 < len(y) <= SAMPLE and 255 not in y
    assert torch.equal(z[1], logits[0, :, 50, 2])
    assert sampled([(logits, torch.full_like(mask, 255))]) is None
