"""`fuzzyseg analyse`: what is asked for, what is printed, and the command end to end on a small model."""

import json

import pytest
from typer.testing import CliRunner

import fuzzyseg.experiment
from fuzzyseg.cli import app
from fuzzyseg.experiment.analyse.text import markdown, thresholds
from support.tiny_data import settings, write_folder

ROW = {
    "threshold": 0.9, "coverage": 0.9123, "top1": 0.88, "rescued": 0.25, "mean_k": 1.25,
    "k_histogram": [0.85, 0.1, 0.03, 0.015, 0.005], "torn": 0.131,
}  # fmt: skip
SURE = {"confidence": 0.95, "share": 0.5, "right": 0.987, "reliable": True}
RESULT = {
    "source": "runs/a", "teacher": "one", "student": "another", "threshold_text": "T = 0.9", "rule": "n-1",
    "weight": "concave", "loss": "fuzzy", "notes": ["something to know"], "answer": ["Cannot tell."],
    "groups": {"val": {"images": 3, "table": [ROW], "confident": [SURE], "confusions": []}}, "figures": {"a.png": "a"},
}  # fmt: skip


@pytest.fixture
def analyse(monkeypatch):
    asked = {}

    def carry_out(source, **options):
        options.pop("progress")(1, 3)
        asked.update(options, source=source)
        return RESULT

    monkeypatch.setattr(fuzzyseg.experiment, "analyse", carry_out)

    def call(*words):
        return CliRunner().invoke(app, ["analyse", *words]), asked

    return call


def test_a_run_is_written_beside_itself(analyse):
    result, asked = analyse("runs/a")
    assert result.exit_code == 0, result.stderr
    assert asked == {
        "source": "runs/a", "out": "runs/a/analysis", "images": 4, "unlabelled_masks": False, "pictures": "png",
        "device": "auto",
    }  # fmt: skip
    assert result.stdout.splitlines()[-1] == "wrote the tables and 1 figures: runs/a/analysis/analysis.md"
    assert "\x1b" not in result.stdout


def test_a_model_before_training_only_prints(analyse):
    result, asked = analyse("--model", "m", "--data", "d")
    assert asked["source"] == "m" and asked["data"] == "d" and asked["out"] is None
    lines = result.stdout.splitlines()
    assert "note: something to know" in lines and lines[-1] == "Cannot tell."
    cells = [line.split() for line in lines]
    assert ["0.95", "50.0", "%", "98.70", "%", "confident", "pixels"] in cells
    assert ["0.9", "88.0", "%", "91.2", "%", "25.0", "%", "1.25"] in [row[:8] for row in cells]


def test_every_option_is_handed_on(analyse):
    words = (
        "--model m --data d --out o --images 2 --limit 9 --threshold .8 --unlabelled-masks --pictures svg --device cpu"
    )
    _, asked = analyse(*words.split())
    assert asked == {
        "source": "m", "data": "d", "out": "o", "images": 2, "limit": 9, "threshold": 0.8, "unlabelled_masks": True,
        "pictures": "svg", "device": "cpu",
    }  # fmt: skip


def test_the_answer_for_programs(analyse):
    assert json.loads(analyse("runs/a", "--json")[0].stdout) == RESULT


@pytest.mark.parametrize("words", [[], ["runs/a", "--model", "m"]])
def test_what_does_not_fit_is_refused(analyse, words):
    result, asked = analyse(*words)
    assert result.exit_code == 2
    assert not asked


def test_tables_are_complete():
    table = thresholds([ROW, {**ROW, "threshold": 0.95}])
    assert table[1] == ["0.9", "88.0 %", "91.2 %", "25.0 %", "1.25", "85.0 %", "10.0 %", "3.0 %", "2.0 %", "13.1 %"]
    assert [line.count("|") for line in markdown(table)] == [11] * 4 + [0]


@pytest.mark.slow
def test_end_to_end(tmp_path):
    small = {"arch": "Unet", "encoder": "mobilenet_v2", "weights": "none", "decoder_channels": [16, 16, 8, 8, 8]}
    data = write_folder(tmp_path / "data")
    config = settings(data, tmp_path / "run", network=small, train={"steps": 2, "crop": [32, 32]})
    run = fuzzyseg.train(config, quiet=True).run
    result = CliRunner().invoke(app, ["analyse", str(run), "--images", "1", "--pictures", "svg", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "teacher: the network whose logits give the sets" in result.stdout
    assert (run / "analysis" / "fuzzy_sets.svg").is_file()
    words = ["analyse", "--model", str(run / "model"), "--data", str(data), "--device", "cpu"]
    before = CliRunner().invoke(app, words)
    assert before.exit_code == 0, before.output
    assert "student = teacher" in before.stdout
    assert before.stdout.count(" %") > 40
