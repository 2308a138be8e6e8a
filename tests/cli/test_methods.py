import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.cli.methods import LISTING, LOSSES, facts
from fuzzyseg.config import override, parse_override, validate
from fuzzyseg.experiment.build import resolve
from fuzzyseg.losses import PIXEL_LOSSES
from fuzzyseg.methods import METHODS


def test_the_stored_list_is_what_the_classes_declare():
    declared = {name: facts(method) for name, method in METHODS.items()}
    assert list(json.loads(LISTING.read_text(encoding="utf-8")).items()) == list(declared.items()), (
        "run: python -c 'from fuzzyseg.cli.methods import write_listing; write_listing()'"
    )


def test_a_method_from_a_file_is_listed_behind_the_own_ones(tmp_path):
    file = tmp_path / "listed_method.py"
    file.write_text(
        "from fuzzyseg.methods import Method\nclass Mine(Method):\n    paper = 'none yet'\nMETHODS = {'mine': Mine}\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "fuzzyseg", "methods", "--json", "--import", str(file)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(LISTING.parents[2])},
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert list(found) == [*METHODS, "mine"]
    assert found["mine"]["paper"] == "none yet"


def test_the_list_names_every_method_with_what_it_declares():
    found = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    assert list(found) == list(METHODS)
    for name, method in METHODS.items():
        assert found[name]["paper"] == method.paper
        assert found[name]["cost"] == method.cost
        assert set(found[name]["settings"]) == set(method.Config.model_fields)
    assert "does not apply" in found["supervised"]["fuzzy"]
    assert found["cps"]["fuzzy"].startswith("native")


def test_defaults_are_shown_as_they_are_given():
    found = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    for name, method in METHODS.items():
        for key, shown in found[name]["settings"].items():
            value = shown.rpartition("[default: ")[2].removesuffix("]")
            path, given = parse_override(f"method.{key}={value}")
            assert path == ["method", key]
            assert getattr(method.Config(**{key: given}), key) == getattr(method.Config(), key), (name, key)


def test_one_method_with_its_settings():
    result = CliRunner().invoke(app, ["methods", "cps"])
    assert "method.cutmix: Mix pairs" in result.stdout
    assert "supervised\n" not in result.stdout
    wrong = CliRunner().invoke(app, ["methods", "cpss"])
    assert wrong.exit_code == 2
    assert "Did you mean 'cps'" in wrong.stderr


def test_every_loss_is_known_without_torch():
    assert list(LOSSES) == ["paper", *PIXEL_LOSSES]


@pytest.mark.parametrize(
    ("name", "loss", "policy"), [("fpl", "fuzzy", "number"), ("A-FPL", "fuzzy", "adaptive"), ("hard", "hard", "number")]
)
def test_a_loss_asked_for_as_a_method_is_shown_with_a_command_that_uses_it(name, loss, policy):
    shown = CliRunner().invoke(app, ["methods", name]).stdout
    words = shown.partition("fuzzyseg train ")[2].splitlines()[0].split()
    options = dict(pairwise(words))
    values = {"method": {"name": options.get("--method", "cps")}, "loss": {"name": options["--loss"]}}
    for word in words:
        values = override(values, *parse_override(word)) if "=" in word else values
    setup = resolve(validate(values))
    assert (setup.pixel_loss, setup.loss.policy) == (loss, policy)
    refusing = {method for method in METHODS if loss in METHODS[method].refuses}
    assert set(shown.partition("any method except ")[2].splitlines()[0].split(" and ")) == refusing
