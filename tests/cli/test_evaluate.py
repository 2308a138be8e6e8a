"""`fuzzyseg evaluate`: what is asked for, and the two forms of the answer."""

import json

import pytest
from typer.testing import CliRunner

import fuzzyseg.experiment
from fuzzyseg.cli import app
from fuzzyseg.cli.evaluate import report

RESULT = {"miou": 0.51234, "images": 3, "protocol": "whole", "iou": {"sky": 0.9, "a long class name": None}}


@pytest.fixture
def evaluate(monkeypatch):
    asked = {}

    def carry_out(source, **options):
        options.pop("progress")(1, 3)
        asked.update(options, source=source)
        return RESULT

    monkeypatch.setattr(fuzzyseg.experiment, "evaluate", carry_out)

    def call(*words):
        return CliRunner().invoke(app, ["evaluate", *words]), asked

    return call


def test_defaults(evaluate):
    result, asked = evaluate("runs/a")
    assert result.exit_code == 0, result.stderr
    assert asked == {"source": "runs/a", "device": "auto"}


def test_every_option_is_handed_on(evaluate):
    _, asked = evaluate("m", "--data", "d", "--split", "test", "--mode", "sliding", "--device", "cpu")
    assert asked == {"source": "m", "data": "d", "split": "test", "mode": "sliding", "device": "cpu"}


def test_the_answer_for_people(evaluate):
    lines = evaluate("runs/a")[0].stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["miou", "51.23", "%"],
        ["images", "3"],
        ["protocol", "whole"],
        ["iou:"],
        ["sky", "90.00", "%"],
        ["a", "long", "class", "name", "-"],
    ]
    assert len({line.rindex("  ") for line in lines if not line.endswith(":")}) == 1  # the values stand in one column


def test_ceilings_stand_beside_the_scores():
    result = {"miou": 0.4, "per_class": {"sky": 0.75, "pole": 0.05, "sea": None}, "miou_resolvable": 0.75,
              "ceiling": {"sky": 0.95, "pole": 0.03, "sea": None}, "ceiling_least": 0.5}  # fmt: skip
    assert [" ".join(line.split()) for line in report(result)] == [
        "miou 40.00 % (75.00 % over the 1 of 3 classes with a ceiling of at least 50.00 %)",
        "per_class:",
        "sky 75.00 % (ceiling 95.00 %)",
        "pole 5.00 % (ceiling 3.00 %)",
        "sea - (ceiling -)",
        "not in the masks: sea; the score excludes these classes",
    ]


def test_the_answer_for_programs(evaluate):
    assert json.loads(evaluate("runs/a", "--json")[0].stdout) == RESULT


@pytest.mark.parametrize(("option", "found", "known"), [("--split", "all", "test"), ("--mode", "half", "sliding")])
def test_what_does_not_exist_is_refused_before_anything_is_read(option, found, known):
    result = CliRunner().invoke(app, ["evaluate", "no_such_run", option, found])
    assert result.exit_code == 2
    assert all(text in result.stderr for text in (option, found, known))
