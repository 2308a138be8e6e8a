"""`fuzzyseg train`: every option reaches its setting, what comes later wins, and the exit codes of a training."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

import fuzzyseg.experiment
from fuzzyseg.cli import app
from fuzzyseg.config import Config, dump_yaml
from fuzzyseg.engine import NonFiniteLoss

DEFAULTS = Config()


@pytest.fixture
def train(monkeypatch):
    """Calls `fuzzyseg train`; what the experiment was asked for and the command's result."""
    asked = SimpleNamespace(
        config=None, options=None, run=SimpleNamespace(run=Path("runs/a"), finished=True, interrupted=False, step=5)
    )

    def carry_out(config, **options):
        asked.config, asked.options = config, options
        return asked.run

    monkeypatch.setattr(fuzzyseg.experiment, "train", carry_out)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def call(*words):
        asked.result = CliRunner().invoke(app, ["train", *words])
        return asked

    call.asked = asked
    return call


def at(config, key):
    for part in key.split("."):
        config = getattr(config, part)
    return config


OPTIONS = {
    "--more": ("data.more", "a,b", ["a", "b"]),
    "--unlabelled": ("data.unlabelled_from", "a/*.png", ["a/*.png"]),
    "--data": ("data.root", "photos", "photos"),
    "--method": ("method.name", "supervised", "supervised"),
    "--loss": ("loss.name", "fuzzy", "fuzzy"),
    "--labelled": ("data.labelled", "1/8", "1/8"),
    "--steps": ("train.steps", "77", 77),
    "--seed": ("seed", "3", 3),
    "--arch": ("network.arch", "FPN", "FPN"),
    "--encoder": ("network.encoder", "mobilenet_v2", "mobilenet_v2"),
    "--weights": ("network.weights", "a.safetensors", "a.safetensors"),
    "--crop": ("train.crop", "96x128", (96, 128)),
    "--batch": ("train.batch", "6", 6),
    "--init": ("init", "a.pt,b.pt", ["a.pt", "b.pt"]),
    "--out": ("out", "runs/a", "runs/a"),
    "--stop-at": ("train.stop_at", "9", 9),
    "--eval-every": ("train.eval_every", "0", 0),
    "--save-every": ("train.save_every", "4", 4),
    "--val": ("data.val", "0.2", "0.2"),
    "--image-size": ("data.image_size", "128x160", (128, 160)),
    "--snap": ("data.snap", None, True),
    "--device": ("train.device", "cpu", "cpu"),
    "--workers": ("train.workers", "0", 0),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_sets_its_setting_and_nothing_else(train, option):
    key, text, value = OPTIONS[option]
    assert at(DEFAULTS, key) != value
    config = train(*[word for word in (option, text) if word is not None]).config
    assert at(config, key) == value
    changed = DEFAULTS.model_copy(deep=True)
    above, _, name = key.rpartition(".")
    setattr(at(changed, above) if above else changed, name, value)
    assert config == changed


def test_one_number_is_a_square(train):
    assert train("--crop", "256").config.train.crop == (256, 256)


def test_no_eval_and_resume(train):
    asked = train("--no-eval", "--resume")
    assert asked.config.train.evaluate is False
    assert asked.options == {"resume": True}
    asked = train()
    assert asked.config == DEFAULTS
    assert asked.options == {"resume": False}
    assert asked.result.exit_code == 0


def test_the_help_names_every_option_with_a_text():
    shown = CliRunner().invoke(app, ["train", "--help"]).stdout
    entries = {}
    for line in shown.split("Options:")[1].splitlines():
        if line.startswith("  -"):
            name = line.split()[0]
            entries[name] = ""
        if line.strip():
            entries[name] += line
    for name in [*OPTIONS, "--no-eval", "--dry-run", "--resume", "--import"]:
        assert len(entries[name].split()) > 3, name
    assert set(entries) - {"-h,"} == {*OPTIONS, "--no-eval", "--dry-run", "--resume", "--import"}
    assert "None:" not in shown
    assert "2000" in entries["--steps"]
    assert "512x512" in entries["--crop"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], DEFAULTS.train.steps),
        (["RECIPE"], 11),
        (["RECIPE", "--steps", "22"], 22),
        (["--steps", "22", "RECIPE"], 22),
        (["train.steps=33", "--steps", "22", "RECIPE"], 33),
        (["--steps", "22", "RECIPE", "train.steps=33"], 33),
        (["train.steps=33", "train.steps=44"], 44),
    ],
)
def test_what_comes_later_wins(train, tmp_path, words, expected):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train:\n  steps: 11\n  batch: 3\n")
    config = train(*[str(recipe) if word == "RECIPE" else word for word in words]).config
    assert config.train.steps == expected
    assert config.train.batch == (3 if "RECIPE" in words else DEFAULTS.train.batch)


def test_overrides_reach_settings_without_an_option(train):
    config = train("optim.lr=1e-3", "network.decoder_aspp_separable=false", "method.cutmix=false").config
    assert config.optim.lr == 1e-3
    assert config.network.options == {"decoder_aspp_separable": False}
    assert config.method.options == {"cutmix": False}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nonsense"], ["found 'nonsense'", "recipe.yaml or key=value"]),
        (["a.yaml", "b.yml"], ["found 2 recipes", "a.yaml and b.yml"]),
        (["missing.yaml"], ["missing.yaml: cannot be read"]),
        (["train.stesp=3"], ["'train.stesp'", "Did you mean 'train.steps'"]),
        (["trian.steps=3"], ["'trian'", "Did you mean 'train'"]),
        (["--steps", "0"], ["train.steps: found 0"]),
        (["--crop", "wide"], ["train.crop", "found 'wide'", "HEIGHTxWIDTH"]),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_done(train, words, parts):
    asked = train(*words)
    assert asked.result.exit_code == 2
    assert asked.config is None
    for part in parts:
        assert part in asked.result.stderr


def test_a_loss_that_is_not_finite_exits_1_with_its_message(monkeypatch):
    def carry_out(config, **options):
        raise NonFiniteLoss("step 7: supervised is nan")

    monkeypatch.setattr(fuzzyseg.experiment, "train", carry_out)
    result = CliRunner().invoke(app, ["train"])
    assert result.exit_code == 1
    assert result.stderr == "error: step 7: supervised is nan\n"


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_training_that_stops_says_how_to_go_on(train, tmp_path, interrupted):
    run = tmp_path / "my a"
    train.asked.run = SimpleNamespace(run=run, finished=False, interrupted=interrupted, step=5)
    result = train("--data", "photos", "--steps", "40", "--stop-at", "9", "--no-eval", "optim.lr=0.1").result
    assert result.exit_code == (130 if interrupted else 0)
    before = train.asked.config
    run.mkdir()
    (run / "config.yaml").write_text(dump_yaml(before))  # as a training does
    line = result.stdout.splitlines()[-1]
    words = shlex.split(line.removeprefix("to continue: "))
    assert words[:2] == ["fuzzyseg", "train"]
    again = train(*words[2:])
    assert again.options == {"resume": True}
    before.train.stop_at, before.out = None, str(run)
    assert again.config == before


def test_only_the_first_process_says_how_to_go_on(train, monkeypatch):
    train.asked.run = SimpleNamespace(run=Path("runs/a"), finished=False, interrupted=True, step=9)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = train("--out", "runs/a").result
    assert (result.exit_code, result.stdout) == (130, "")
    monkeypatch.setenv("RANK", "0")
    assert "torchrun" in train("--out", "runs/a").result.stdout


def test_the_shipped_recipes_are_valid(train):
    found = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
    recipes = {path: yaml.safe_load(path.read_text()) for path in found}
    single = {path: values for path, values in recipes.items() if not {"arms", "start"} & set(values)}
    assert single  # the others are for sweeps: tests/test_recipes.py
    for recipe in set(recipes) - set(single):
        assert train(str(recipe)).result.exit_code == 2
        assert f"{recipe}: " in train.asked.result.stderr and "fuzzyseg sweep" in train.asked.result.stderr
    for recipe, values in single.items():
        assert train(str(recipe)).result.exit_code == 0, train.asked.result.stderr
        for key, value in values["train"].items():
            found = at(train.asked.config, f"train.{key}")
            assert found == (tuple(value) if isinstance(value, list) else value)
