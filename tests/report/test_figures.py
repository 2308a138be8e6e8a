"""Figures: what they are given is what they show, and equal numbers give equal files."""

import itertools
import re
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzzyseg.report import drawing, maps
from fuzzyseg.report.charts import draw_entropy, draw_k_over_time, draw_training, draw_weights
from fuzzyseg.report.maps import K_COLOURS, Panel, draw_rows
from fuzzyseg.report.quality import draw_calibration, draw_cases, draw_confusions, draw_coverage


def words(path):
    """The texts of an SVG."""
    text = path.read_text()
    return [re.sub("<[^>]*>", "", found) for found in re.findall(r"<text[^>]*>.*?</text>", text, re.DOTALL)]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)


def share(path, colour):
    """How much of a picture has this colour, near enough."""
    rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return (np.abs(pixels(path).astype(int) - rgb).max(1) <= 2).mean()


def by_k(k, entropy):
    spread = [0.0] * 20
    spread[int(entropy * 20)] = 1.0
    return {"k": k, "share": 0.5 / k, "coverage": 0.9, "top1": 0.7, "entropy": entropy, "weight": 0.8,
            "entropies": spread, "weights": spread}  # fmt: skip


def case(share, hard, fuzzy):
    return {"share": share, "score": {"hard": hard, "fuzzy": fuzzy}, "lift": {"hard": hard / 4, "fuzzy": fuzzy / 4},
            "effect": {"hard": share * hard, "fuzzy": share * fuzzy}, "k_histogram": [0.8, 0.2, 0.0]}  # fmt: skip


def test_maps_show_each_value_in_its_colour(tmp_path):
    k = np.ones((40, 50), int)
    k[:, 25:] = 3
    image = np.zeros((40, 50, 3), np.uint8)
    image[...] = (10, 200, 30)
    path = draw_rows(tmp_path / "a.png", [[Panel("image", image), Panel("K", k, "k")]], title="x")
    green, one, three = (share(path, colour) for colour in ("#0ac81e", K_COLOURS[0], K_COLOURS[2]))
    assert green > 0.15
    assert one == pytest.approx(three, rel=0.1) and one + three == pytest.approx(green, rel=0.1)
    assert share(path, K_COLOURS[3]) == 0


@pytest.mark.parametrize("shape", [(20, 60), (60, 40), (10, 80)])
def test_labels_of_rows_do_not_overlap(tmp_path, monkeypatch, shape):
    boxes = []

    @contextmanager
    def kept(*arguments, **options):
        with drawing.figure(*arguments, **options) as (made, axes):
            yield made, axes
            made.canvas.draw()
            boxes.extend(row[0].yaxis.label.get_window_extent() for row in axes)

    monkeypatch.setattr(maps, "figure", kept)
    image = np.zeros((*shape, 3), np.uint8)
    names = ["train/berlin/WWWWWWWW_a_long_name_of_a_photograph_000001_000019_leftImg8bit", "b", "c" * 70]
    draw_rows(tmp_path / "a.png", [[Panel("image", image), Panel("truth", image)]] * 3, title="x", names=names)
    assert len(boxes) == 3
    for above, below in itertools.pairwise(boxes):
        assert above.y0 >= below.y1


@given(name=st.text(max_size=90), height=st.floats(0.1, 3))
def test_a_fitted_name_is_whole_or_keeps_both_ends(name, height):
    text = maps.fitted(name, height).replace("\n", "")
    shown = name.replace("\n", "")
    assert text == shown or (len(text) <= len(shown) and "..." in text and shown.endswith(text.rpartition("...")[2]))


def test_scores_are_red_above_and_blue_below_zero_and_void_is_grey(tmp_path):
    score = np.full((40, 60), np.nan)
    score[:, :20], score[:, 20:40] = 1, -1
    path = draw_rows(tmp_path / "a.png", [[Panel("R", score, "score")]], title="x")
    red, blue, grey = (share(path, colour) for colour in ("#67001f", "#053061", "#8c8c8c"))
    assert min(red, blue, grey) > 0.1
    assert red == pytest.approx(grey, rel=0.15) == pytest.approx(blue, rel=0.15)


def test_the_legend_names_classes_and_only_the_k_that_occur(tmp_path):
    panels = [[Panel("K", np.array([[1, 2], [2, 2]]), "k"), Panel("outcome", np.array([[0, 1], [2, 3]]), "case")]]
    path = draw_rows(tmp_path / "a.svg", panels, title="x", names=["street"], legend=[("road", (0.5, 0.5, 0.5))])
    shown = words(path)
    assert {"K", "outcome", "street", "road", "K = 1", "K = 2", "case 2: label wrong, truth in the set"} <= set(shown)
    assert "K = 3" not in shown


def test_cases_show_both_losses(tmp_path):
    cases = {"1": case(0.9, 1.0, 0.96), "2": case(0.04, -0.47, 0.42), "3": case(0.06, -0.5, -0.6)}
    shown = words(draw_cases(tmp_path / "a.svg", cases, {"hard": 0.123, "fuzzy": 0.321}, title="x"))
    assert {"1.00", "0.96", "-0.47", "0.42", "-0.60", "0.123", "0.321", "hard", "fuzzy"} <= set(shown)
    cases["2"] = {**case(0, 0, 0), "score": {"hard": None, "fuzzy": None}, "lift": {"hard": None, "fuzzy": None}}
    assert "0.42" not in words(draw_cases(tmp_path / "b.svg", cases, {"hard": 0.1, "fuzzy": 0.1}, title="x"))


def test_confusions_name_the_pair_and_the_rescued(tmp_path):
    pairs = [{"truth": "truck", "label": "car", "share": 0.02, "rescued": 0.43}]
    shown = words(draw_confusions(tmp_path / "a.svg", pairs, title="x"))
    assert "truck mistaken for car" in shown and any("43%" in word for word in shown)


def test_charts_have_axes_with_names(tmp_path):
    rows = [by_k(1, 0.05), by_k(2, 0.4), by_k(4, 0.7)]
    reliability = [{"from": 0.0, "to": 0.5, "share": 0, "confidence": None, "accuracy": None},
                   {"from": 0.5, "to": 1.0, "share": 1.0, "confidence": 0.9, "accuracy": 0.8}]  # fmt: skip
    table = [{"threshold": t, "coverage": 0.9, "top1": 0.8, "k_histogram": [0.9, 0.1], "torn": 0.1} for t in (0.5, 0.9)]
    curves = {"concave": [1.0, 0.0], "linear": [1.0, 0.0]}
    drawn = {
        "share of the pixels": draw_k_over_time(tmp_path / "k.svg", [1, 2, 3], [[0.9, 0.1, 0.0]] * 3, title="x"),
        "entropy / log C": draw_entropy(tmp_path / "e.svg", rows, title="x"),
        "cannot occur": draw_weights(
            tmp_path / "w.svg", [0, 0.45], curves, m=0.45, k=2, threshold=0.9, possible=(0.0, 0.1), by_k=rows
        ),
        "share of the pixels of that K": draw_coverage(tmp_path / "c.svg", rows, table, title="x"),
        "confidence, the largest probability": draw_calibration(tmp_path / "r.svg", reliability, 0.1, title="x"),
        "ECE": draw_training(tmp_path / "t.svg", [1, 2], {"calibration": {"ECE": [0.1, None]}}, title="x"),
    }
    for word, path in drawn.items():
        assert word in words(path), path
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of a legend of nothing
        draw_k_over_time(tmp_path / "two.svg", [1, 2], [[1.0]] * 2, title="two classes: K is 1 everywhere")
    assert "K = 2" in words(tmp_path / "k.svg") and "K = 3" not in words(tmp_path / "k.svg")
    assert [word for word in words(tmp_path / "e.svg") if word in "124"] == ["1", "2", "4"] * 2
    assert "x: ECE 10.00%" in words(tmp_path / "r.svg")


def test_equal_numbers_give_equal_files(tmp_path):
    for name in ("a", "b"):
        draw_training(tmp_path / name / "x.svg", [1], {"calibration": {"ECE": [0.1]}}, title="x")
        draw_training(tmp_path / name / "x.png", [1], {"calibration": {"ECE": [0.1]}}, title="x")
    for kind in ("svg", "png"):
        assert (tmp_path / "a" / f"x.{kind}").read_bytes() == (tmp_path / "b" / f"x.{kind}").read_bytes()
