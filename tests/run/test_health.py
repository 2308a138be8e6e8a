"""Findings: each rule on both sides of its threshold, said once, and silent on the course of a healthy training."""

import json
import math
from contextlib import closing
from dataclasses import replace

import pytest

from fuzzyseg.run.health import Review, findings_of, review_of, start_score
from fuzzyseg.run.logs import MetricsLog, read_lines

REVIEW = Review(steps=400, loss="fuzzy")


def healthy(count=40, every=10, evaluated=(200, 400)):
    """Lines of a training in which all is well: falling losses, three classes, sets of one and two, a rising score."""
    lines = []
    for number in range(1, count + 1):
        step = every * number
        line = {
            "step": step,
            "loss": 1.0,
            "losses": {"supervised": 1 / math.sqrt(number), "unsupervised": 0.2},
            "metrics": {"label_histogram": [0.7, 0.2, 0.1], "k_histogram": [0.8, 0.2]},
        }
        if step in evaluated:
            score = 0.4 + step / 4000
            line["evaluation"] = {"miou": score, "per_class": {"a": 0.8, "b": score, "c": 0.1},
                                  "ceiling": {"a": 0.99, "b": 0.9, "c": 0.9}}  # fmt: skip
        lines.append(line)
    return lines


def kinds(lines, review=REVIEW):
    return {found.kind for found in review.findings(lines)}


def changed(lines, last=20, **values):
    """The last lines with other losses, metrics or an other evaluation."""
    for line in lines[-last:]:
        for key, value in values.items():
            section, _, field = key.partition("__")
            if field and section in line:
                line[section] = {**line[section], field: value}
            elif not field:
                line[section] = value
    return lines


def test_a_healthy_training_has_no_finding():
    lines = healthy()
    assert all(not kinds(lines[:count]) for count in range(1, len(lines) + 1))


@pytest.mark.parametrize("share", [0.97, 0.999])
def test_collapse_needs_one_class_and_no_second_that_is_learnt(share):
    labels = [share, (1 - share) / 2, (1 - share) / 2]
    lines = changed(healthy(), metrics__label_histogram=labels)
    assert kinds(lines) == set()  # class b is learnt: a background that fills the images is no collapse
    lines = changed(lines, evaluation__per_class={"a": 0.9, "b": 0.005, "c": 0.004})
    assert kinds(lines) == ({"collapse"} if share > 0.99 else set())
    blind = changed(healthy(evaluated=()), metrics__label_histogram=labels)
    assert kinds(blind) == ({"collapse"} if share > 0.99 else set())


@pytest.mark.parametrize(("share", "found"), [(0.985, set()), (0.995, {"single_sets"})])
def test_sets_of_one_class_are_found_with_the_fuzzy_loss_only(share, found):
    lines = changed(healthy(), metrics__k_histogram=[share, 1 - share])
    assert kinds(lines) == found
    assert kinds(lines, replace(REVIEW, loss="hard")) == set()
    assert kinds(changed(lines, metrics__k_histogram=[1.0])) == set()  # two classes: K is 1, and announced before


def test_sets_of_one_class_on_purpose_are_no_finding():
    settings = {"train.steps": 400, "loss.name": "fuzzy", "loss.k_cap": 1, "init": None}
    lines = changed(healthy(), metrics__k_histogram=[1.0, 0.0])
    assert not findings_of(lines, review_of(settings))
    assert findings_of(lines, review_of({**settings, "loss.k_cap": None}))


def test_an_unsupervised_loss_of_zero():
    assert kinds(changed(healthy(), losses__unsupervised=1e-5)) == {"no_signal"}
    assert kinds(changed(healthy(), losses__unsupervised=1e-3)) == set()
    assert kinds(changed(healthy(), last=10, losses__unsupervised=0.0)) == set()  # ten lines may be chance
    early = changed(healthy(24, every=3, evaluated=()), losses__unsupervised=0.0)
    assert kinds(early) == set()  # weights still ramp up


@pytest.mark.parametrize(("loss", "found"), [(0.55, set()), (0.65, {"too_hot"})])
def test_a_rising_supervised_loss(loss, found):
    lines = changed(healthy(evaluated=()), last=40, losses__supervised=0.3)
    assert kinds(changed(lines, losses__supervised=loss)) == found


def test_a_rise_of_a_tiny_loss_is_no_finding():
    lines = changed(healthy(), last=40, losses__supervised=0.01)
    assert kinds(changed(lines, losses__supervised=0.08)) == set()


@pytest.mark.parametrize("lost", [None, math.nan])
def test_a_loss_that_is_not_finite_and_skipped_steps(lost):
    lines = healthy()
    lines[-5]["loss"] = lost
    assert kinds(lines) == {"too_hot"}
    assert kinds(changed(healthy(), skipped_steps=15)) == set()  # of 400
    assert kinds(changed(healthy(), skipped_steps=25)) == {"too_hot"}


@pytest.mark.parametrize(("before", "found"), [(0.515, False), (0.525, True), (None, False)])
def test_below_the_start_and_the_baseline_at_this_step(before, found):
    """The last score is 0.5."""
    assert kinds(healthy(), replace(REVIEW, start=before)) == ({"behind_start"} if found else set())
    baseline = {} if before is None else {400: before, 300: 0.9}
    assert kinds(healthy(), replace(REVIEW, baseline=baseline)) == ({"behind_baseline"} if found else set())
    early = [line for line in healthy(evaluated=(80,)) if line["step"] <= 80]
    assert kinds(early, replace(REVIEW, start=0.9)) == set()  # before a quarter of the steps


def test_a_class_that_is_never_predicted():
    lines = changed(healthy(), evaluation__per_class={"a": 0.8, "b": 0.5, "c": 0.0})
    (found,) = REVIEW.findings(lines)
    assert (found.kind, found.level) == ("unseen", "warning") and "c" in found.text  # one in three
    many = {f"c{n}": 0.5 for n in range(9)} | {"rare": 0.0005}
    (found,) = REVIEW.findings(changed(lines, evaluation__per_class=many))
    assert found.level == "note" and "rare (1 of 10" in found.text
    assert kinds(changed(lines, evaluation__per_class={**many, "rare": 0.002})) == set()
    absent = {"a": 0.99, "b": 0.9, "c": None}
    lines = changed(healthy(), evaluation__ceiling=absent, evaluation__per_class={"a": 0.8, "b": 0.5, "c": 0.0})
    assert kinds(lines) == set()  # in no mask
    early = [line for line in healthy(evaluated=(100,)) if line["step"] <= 100]
    assert kinds(changed(early, evaluation__per_class={"a": 0.8, "b": 0.5, "c": 0.0})) == set()


@pytest.mark.parametrize(("last", "fitted", "overfits"), [(0.44, 0.2, True), (0.46, 0.2, False), (0.44, 0.9, False)])
def test_overfitting_is_a_falling_score_under_a_falling_loss(last, fitted, overfits):
    lines = healthy(40, evaluated=(200, 300, 400))
    for line, score in zip((lines[19], lines[29], lines[39]), (0.48, 0.46, last), strict=True):
        line["evaluation"] = {"miou": score, "per_class": {"a": score, "b": score}, "ceiling": {}}
    median = sorted(line["losses"]["supervised"] for line in lines[:20])[10]
    assert kinds(changed(lines, losses__supervised=fitted * median)) == ({"overfitting"} if overfits else set())


def test_each_kind_is_said_once_also_after_a_resumption(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = changed(healthy(), last=40, metrics__k_histogram=[1.0, 0.0])
    for keep, part in ((0, lines[:25]), (lines[24]["step"], lines[25:])):
        with closing(MetricsLog(path, keep_to=keep, review=REVIEW)) as log:
            for line in part:
                log.write(line)
    said = [(line["step"], found["kind"]) for line in read_lines(path) for found in line.get("health", ())]
    assert said == [(200, "single_sets")]
    assert lines[19]["health"] == [found for line in read_lines(path) for found in line.get("health", ())]


def test_a_log_forgets_old_lines_but_no_evaluation(tmp_path):
    seen = []
    with closing(MetricsLog(tmp_path / "a.jsonl", review=lambda lines: seen.append(list(lines)) or [])) as log:
        for line in healthy(1000, every=1, evaluated=(3,)):
            log.write(line)
    assert len(seen[-1]) < 400 and seen[-1][0]["step"] == 3 and seen[-1][-1]["step"] == 1000


def test_the_latest_finding_of_a_kind_is_reported_warnings_first():
    lines = changed(healthy(), last=40, evaluation__per_class={**{f"c{n}": 0.5 for n in range(9)}, "rare": 0.0})
    lines = changed(lines, metrics__k_histogram=[1.0, 0.0])
    lines[4]["health"] = [{"kind": "too_hot", "level": "warning", "text": "x", "advice": "y", "step": 50}]
    found = findings_of(lines, REVIEW)
    assert [(each.kind, each.step) for each in found] == [("too_hot", 50), ("single_sets", 400), ("unseen", 400)]


def test_the_score_of_the_start_is_that_of_its_run(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "result.json").write_text(json.dumps({"last": {"miou": 0.25}}))
    assert start_score([str(tmp_path / "model")]) == start_score([str(tmp_path)]) == 0.25
    assert start_score(["nowhere"]) is None and start_score(None) is None
    (tmp_path / "result.json").write_text(json.dumps({"last": None}))
    assert start_score([str(tmp_path)]) is None
