"""The app: help, version, errors as messages with their exit codes, `python -m fuzzyseg`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fuzzyseg.experiment
from fuzzyseg.cli import app
from fuzzyseg.cli.errors import explained
from fuzzyseg.config import ConfigError

SOURCE = Path(__file__).parents[2] / "src"


def call(*words):
    return CliRunner().invoke(app, words)


@pytest.fixture
def failing(monkeypatch):
    def arrange(error):
        def train(config, **options):
            raise error

        monkeypatch.setattr(fuzzyseg.experiment, "train", train)

    return arrange


def test_without_a_command_it_lists_them():
    shown = call().output
    for verb in ("train", "evaluate", "predict"):
        assert f"  {verb} " in shown


def test_every_command_has_a_summary_that_is_not_cut():
    assert "..." not in call("--help").stdout.split("Commands:")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "--stepz", "3"], "--stepz"),
        (["train", "--steps", "many"], "Invalid value for '--steps'"),
        (["predict", "run", "image.png"], "--out"),
    ],
)
def test_a_mistyped_command_line_is_explained_and_exits_2(words, message):
    result = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("train.steps: found 'x'"), 2), (ConfigError("found [b]"), 2), (OSError(28, "disc full"), 1)],
)
def test_an_error_for_the_user_is_one_message_and_a_full_disk_is_no_wrong_input(failing, error, code):
    failing(error)
    result = call("train", "--out", "run")
    assert result.exit_code == code
    assert result.stderr == f"error: {error}\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a\nb"), KeyError("resnet5"), RecursionError(), TypeError("x" * 9000), AssertionError()]
)
def test_a_fault_of_ours_is_one_line_that_says_what_was_done_and_exits_1(failing, error):
    failing(error)
    result = call("train", "--out", "run")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and len(result.stderr) < 600
    assert "fuzzyseg train failed" in result.stderr and type(error).__name__ in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_too_little_memory_names_the_settings_that_need_less(failing, error):
    failing(error)
    result = call("train", "--out", "run")
    assert result.exit_code == 1
    assert "out of memory" in result.stderr and "--batch" in result.stderr


def test_a_link_to_itself_is_a_wrong_input(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    result = call("train", "--data", str(tmp_path / "loop"), "--weights", "none", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and "loop" in result.stderr and "failed" not in result.stderr


def test_an_error_of_a_library_is_not_taken_for_one_of_the_users():
    """A ValueError that no one here wrote says nothing without what was being done."""

    def failing():
        int("text")

    with pytest.raises(ValueError) as error:
        failing()
    message, code = explained(error.value, "train")
    assert code == 1 and "fuzzyseg train failed" in message and "invalid literal" in message


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "run", "", "--out", "out"],
        ["predict", "", "image.png", "--out", "out"],
        ["predict", "run", "image.png", "--out", ""],
        ["evaluate", ""],
        ["evaluate", "run", "--data", ""],
        ["check", ""],
        ["split", "", "--out", "out"],
        ["convert", "", "--out", "out"],
        ["train", "--data", ""],
        ["train", "--out", ""],
        ["train", "--init", ""],
        ["sweep", "", "--table"],
        ["compare", "--results", ""],
    ],
)
def test_an_empty_value_is_refused_by_name(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*words)
    assert result.exit_code == 2
    assert "found an empty value" in result.stderr
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(failing):
    error = ConfigError("no such thing")
    failing(error)
    assert call("--debug", "train", "--out", "run").exception is error
    fault = ZeroDivisionError("bug")
    failing(fault)
    assert call("--debug", "train", "--out", "run").exception is fault


def test_an_interruption_outside_of_the_training_exits_130(failing):
    failing(KeyboardInterrupt())
    result = call("train", "--out", "run")
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"


def test_a_long_message_is_not_wrapped_off_a_terminal(failing):
    failing(ConfigError("word " * 60 + "end"))
    assert len(call("train", "--out", "run").stderr.splitlines()) == 1


def _process(*words, folder=None):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-m", "fuzzyseg", *words], capture_output=True, text=True, env=environment, cwd=folder
    )


def test_python_m_fuzzyseg_runs_and_reports_without_a_traceback(tmp_path):
    result = _process("train", "nonsense", folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr == ("error: found 'nonsense'; expected a recipe.yaml or key=value, such as train.ema=0.998\n")


HEAVY = ("matplotlib", "pycocotools", "rasterio", "segmentation_models_pytorch", "tensorboard", "timm", "torchvision")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fuzzyseg", ("fuzzyseg.losses", "pydantic", "typer", "torch", *HEAVY)),
        ("from fuzzyseg import fuzzy_positive_loss", ("pydantic", "PIL", "typer", *HEAVY)),
        (["--help"], ("torch", *HEAVY)),
        (["train", "--help"], ("torch", *HEAVY)),
        (["settings"], ("torch", *HEAVY)),
        (["methods"], ("torch", *HEAVY)),
        (["methods", "cps", "--json"], ("torch", *HEAVY)),
        (["methods", "fpl"], ("torch", *HEAVY)),
        (["train", "optim.lrr=1"], ("torch", *HEAVY)),
        (["train", "--method", "cpss"], ("torch", *HEAVY)),
        (["train", "--loss", "fuzy"], ("torch", *HEAVY)),
        (["train", "method.cutmixx=1"], ("torch", *HEAVY)),
        (["compare", "--methods", "cpss"], ("torch", *HEAVY)),
        (["compare", "optim.lrr=1"], ("torch", *HEAVY)),
        (["sweep", "PLAN", "optim.lrr=1"], ("torch", *HEAVY)),
        (["sweep", "WRONG"], ("torch", *HEAVY)),
    ],
)
def test_nothing_is_imported_before_it_is_used(tmp_path, code, absent):
    """The time that these take is measured by benchmarks/startup.py; what costs it is asserted here."""
    for name, method in (("PLAN", "cps"), ("WRONG", "cpss")):
        (tmp_path / name).write_text(f"title: x\narms: {{a: {{method.name: {method}}}}}\n")
    if isinstance(code, list):
        code = [str(tmp_path / word) if word.isupper() else word for word in code]
        code = f"from fuzzyseg.cli import app\ntry: app({code})\nexcept SystemExit: pass"
    code = f"import sys\n{code}\nfound = sorted(set({absent}) & set(sys.modules))\nassert not found, found"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


def test_every_public_name_can_be_had():
    assert {name for name in fuzzyseg.__all__ if not hasattr(fuzzyseg, name)} == set()
    with pytest.raises(AttributeError, match="no attribute 'fuzzy_loss'"):
        fuzzyseg.fuzzy_loss  # noqa: B018


def test_version_is_the_packages():
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout == f"fuzzyseg {fuzzyseg.__version__}\n"
