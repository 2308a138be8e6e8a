"""What is measured of pixels, against loops over them written from the formulas."""

import math

import pytest
import torch

from analysis import literal
from fuzzyseg.analysis.diagnosis import diagnose
from fuzzyseg.analysis.pixels import pixel_maps
from fuzzyseg.analysis.table import count_thresholds
from fuzzyseg.losses.fpl.assignment import sorted_classes
from fuzzyseg.losses.fpl.options import FPLOptions

CLASSES, SIZE, T = 5, (6, 7), 0.85


@pytest.fixture(scope="module")
def logits():
    """Teacher, student (2,C,H,W) in fp64 and truth (2,H,W) with void; the teacher is right at some of the pixels."""
    generator = torch.Generator().manual_seed(1)
    teacher = 1.5 * torch.randn(2, CLASSES, *SIZE, generator=generator, dtype=torch.float64)
    student = teacher + torch.randn(teacher.shape, generator=generator, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (2, *SIZE), generator=generator)
    target = torch.where(torch.rand(target.shape, generator=generator) < 0.5, teacher.argmax(1), target)
    target[:, :1] = 255
    return teacher, student, target


def by_pixel(teacher, student, target):
    """(place, teacher's logits, student's logits, truth) of each pixel as plain numbers; truth 255 where void."""
    for image in range(len(target)):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                z, s = teacher[image, :, y, x].tolist(), student[image, :, y, x].tolist()
                yield (image, y, x), z, s, int(target[image, y, x])


def test_maps_are_those_of_the_formulas(logits):
    result = pixel_maps(*logits, threshold=T)
    seen = set()
    for place, z, s, truth in by_pixel(*logits):
        p = literal.probabilities(z)
        positives = literal.fuzzy_set(p, T)
        w = literal.weight(p, positives)
        assert int(result.k[place]) == len(positives)
        assert int(result.label[place]) == positives[0]
        assert float(result.confidence[place]) == pytest.approx(p[positives[0]])
        assert float(result.weight[place]) == pytest.approx(w)
        assert float(result.entropy[place]) == pytest.approx(literal.entropy(p))
        image, y, x = place
        assert result.order[image, :, y, x].tolist() == literal.falling(p)
        if truth == 255:
            assert int(result.case[place]) == 0
            assert all(math.isnan(values[place]) for pair in (result.score, result.lift) for values in pair)
            continue
        case = literal.case_of(positives[0], positives, truth)
        seen.add(case)
        assert int(result.case[place]) == case
        for values, sets in ((result.score.hard, positives[:1]), (result.score.fuzzy, positives)):
            assert float(values[place]) == pytest.approx(literal.score(s, sets, truth), abs=1e-5)
        hard = -literal.slope(literal.loss, s, truth, positives[:1])
        fuzzy = -w * literal.slope(literal.loss, s, truth, positives)
        assert float(result.lift.hard[place]) == pytest.approx(hard, abs=1e-6)
        assert float(result.lift.fuzzy[place]) == pytest.approx(fuzzy, abs=1e-6)
    assert seen == {1, 2, 3}


def test_the_continuous_rule_has_its_own_gradient(logits):
    result = pixel_maps(*logits, threshold=T, options=FPLOptions("none", rule="continuous"))
    partial = 0
    for place, z, s, truth in by_pixel(*logits):
        mu = literal.membership(literal.probabilities(z), T)
        assert int(result.k[place]) == sum(value > 0 for value in mu)
        if truth != 255:
            partial += 0 < mu[truth] < 1
            expected = -literal.slope(literal.continuous_loss, s, truth, mu)
            assert float(result.lift.fuzzy[place]) == pytest.approx(expected, abs=1e-6)
            assert int(result.case[place]) == literal.case_of(
                int(result.label[place]), [i for i, m in enumerate(mu) if m], truth
            )
    assert partial > 3


def test_sums_are_those_of_a_loop(logits):
    numbers = diagnose(pixel_maps(*logits, threshold=T), logits[2]).numbers()
    rows = []
    for _, z, s, truth in by_pixel(*logits):
        if truth == 255:
            continue
        p = literal.probabilities(z)
        y = literal.fuzzy_set(p, T)
        rows.append(
            {
                "k": len(y), "p": p[y[0]], "case": literal.case_of(y[0], y, truth), "entropy": literal.entropy(p),
                "weight": literal.weight(p, y), "pair": (truth, y[0]),
                "score": {"hard": literal.score(s, y[:1], truth), "fuzzy": literal.score(s, y, truth)},
                "lift": {"hard": -literal.slope(literal.loss, s, truth, y[:1]),
                         "fuzzy": -literal.weight(p, y) * literal.slope(literal.loss, s, truth, y)},
            }
        )  # fmt: skip
    total = len(rows)
    assert numbers["pixels"] == total
    assert numbers["coverage"] == pytest.approx(sum(row["case"] != 3 for row in rows) / total)
    assert numbers["top1"] == pytest.approx(sum(row["case"] == 1 for row in rows) / total)
    assert numbers["mean_k"] == pytest.approx(sum(row["k"] for row in rows) / total)
    assert numbers["k_histogram"] == pytest.approx([sum(row["k"] == k for row in rows) / total for k in range(1, 6)])
    for case, result in numbers["cases"].items():
        those = [row for row in rows if row["case"] == int(case)]
        assert result["share"] == pytest.approx(len(those) / total)
        assert result["k_histogram"] == pytest.approx(
            [sum(row["k"] == k for row in those) / len(those) for k in range(1, 6)]
        )
        for loss in ("hard", "fuzzy"):
            mean = {name: sum(row[name][loss] for row in those) / len(those) for name in ("score", "lift")}
            assert result["score"][loss] == pytest.approx(mean["score"], abs=1e-5)
            assert result["lift"][loss] == pytest.approx(mean["lift"], abs=1e-6)
            assert result["effect"][loss] == pytest.approx(mean["lift"] * len(those) / total, abs=1e-6)
    for loss in ("hard", "fuzzy"):
        assert numbers["effect"][loss] == pytest.approx(sum(row["lift"][loss] for row in rows) / total, abs=1e-6)
    for result in numbers["by_k"]:
        those = [row for row in rows if row["k"] == result["k"]]
        assert result["share"] == pytest.approx(len(those) / total)
        assert result["coverage"] == pytest.approx(sum(row["case"] != 3 for row in those) / len(those))
        assert result["top1"] == pytest.approx(sum(row["case"] == 1 for row in those) / len(those))
        for name, twentieths in (("entropy", "entropies"), ("weight", "weights")):
            assert result[name] == pytest.approx(sum(row[name] for row in those) / len(those))
            counts = [sum(min(int(row[name] * 20), 19) == place for row in those) / len(those) for place in range(20)]
            assert result[twentieths] == pytest.approx(counts)
    error = 0.0
    for place, result in enumerate(numbers["reliability"]):
        those = [row for row in rows if place / 15 < row["p"] <= (place + 1) / 15]
        assert result["share"] == pytest.approx(len(those) / total)
        if those:
            accuracy = sum(row["case"] == 1 for row in those) / len(those)
            confidence = sum(row["p"] for row in those) / len(those)
            assert (result["accuracy"], result["confidence"]) == pytest.approx((accuracy, confidence))
            error += len(those) / total * abs(accuracy - confidence)
        else:
            assert result["accuracy"] is None
    assert numbers["ece"] == pytest.approx(error)
    wrong = [row for row in rows if row["case"] != 1]
    assert numbers["confusions"][0]["share"] == max(result["share"] for result in numbers["confusions"])
    assert sum(result["share"] for result in numbers["confusions"]) == pytest.approx(len(wrong) / total)
    for result in numbers["confusions"]:
        those = [row for row in wrong if row["pair"] == (result["truth"], result["label"])]
        assert result["share"] == pytest.approx(len(those) / total)
        assert result["rescued"] == pytest.approx(sum(row["case"] == 2 for row in those) / len(those))


def test_images_add_up(logits):
    whole = diagnose(pixel_maps(*logits, threshold=T), logits[2])
    parts = [
        diagnose(pixel_maps(*(side[i : i + 1] for side in logits), threshold=T), logits[2][i : i + 1]) for i in (0, 1)
    ]
    torch.testing.assert_close(vars(whole), vars(parts[0].plus(parts[1])))


def test_a_threshold_for_each_pixel(logits):
    threshold = torch.full((2, *SIZE), 0.5, dtype=torch.float64)
    threshold[1] = 0.95
    result = pixel_maps(*logits, threshold=threshold)
    for (image, y, x), z, _, _ in by_pixel(*logits):
        expected = len(literal.fuzzy_set(literal.probabilities(z), 0.95 if image else 0.5))
        assert int(result.k[image, y, x]) == expected


def test_what_is_not_measured_is_none(logits):
    teacher, student, target = logits
    brief = diagnose(pixel_maps(teacher, student, target, lift=False), target)
    assert brief.numbers()["cases"]["1"]["lift"] == {"hard": None, "fuzzy": None}
    assert brief.numbers()["cases"]["1"]["score"]["hard"] == pytest.approx(1.0)
    nothing = diagnose(
        pixel_maps(teacher, student, torch.full_like(target, 255)), torch.full_like(target, 255)
    ).numbers()
    assert nothing["pixels"] == 0 and nothing["ece"] is None and nothing["mean_k"] is None
    assert nothing["cases"]["2"] == {
        "share": 0.0,
        "score": {"hard": None, "fuzzy": None},
        "lift": {"hard": None, "fuzzy": None},
        "effect": {"hard": 0.0, "fuzzy": 0.0},
        "k_histogram": [0.0] * CLASSES,
    }
    assert nothing["by_k"] == nothing["confusions"] == []


def test_wrong_shapes_are_refused(logits):
    teacher, student, target = logits
    with pytest.raises(ValueError, match="target"):
        pixel_maps(teacher, student, target[:1])
    with pytest.raises(ValueError, match="teacher_logits"):
        pixel_maps(teacher[:, :4], student, target)


def test_the_table_over_thresholds(logits):
    teacher, _, target = logits
    thresholds = (0.5, 0.75, 0.9, 0.99)
    halves = [count_thresholds(sorted_classes(teacher[i : i + 1]), target[i : i + 1], thresholds) for i in (0, 1)]
    result = halves[0].plus(halves[1]).numbers(thresholds)
    for t, row in zip(thresholds, result, strict=True):
        covered = top1 = torn = pixels = 0
        sizes = [0] * CLASSES
        for _, z, _, truth in by_pixel(teacher, teacher, target):
            if truth == 255:
                continue
            p = literal.probabilities(z)
            y, ordered = literal.fuzzy_set(p, t), sorted(p, reverse=True)
            pixels += 1
            covered += truth in y
            top1 += truth == y[0]
            torn += ordered[0] <= t < ordered[0] + ordered[1]
            sizes[len(y) - 1] += 1
        assert row["threshold"] == t
        assert row["coverage"] == pytest.approx(covered / pixels)
        assert row["top1"] == pytest.approx(top1 / pixels)
        assert row["rescued"] == pytest.approx((covered - top1) / (pixels - top1))
        assert row["torn"] == pytest.approx(torn / pixels)
        assert row["k_histogram"] == pytest.approx([size / pixels for size in sizes])
        assert row["mean_k"] == pytest.approx(sum(k * size for k, size in enumerate(sizes, 1)) / pixels)
    assert result[0]["coverage"] < result[-1]["coverage"]
