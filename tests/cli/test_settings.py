"""`fuzzyseg settings`: every setting once, with what may be given, and as the committed page."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.cli.train import OPTIONS
from fuzzyseg.config import Config, override, parse_override, validate
from fuzzyseg.config.short_names import SETTINGS
from fuzzyseg.data import DATASETS
from fuzzyseg.losses import PIXEL_LOSSES
from fuzzyseg.networks import NETWORKS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
LINE = re.compile(r"  (?P<name>[\w.]+)=(?P<default>\S+)  \((?P<kind>[^)]+)\)  (?P<about>.+)")


def call(*words):
    return CliRunner().invoke(app, ["settings", *words])


def listed(*words):
    """Name -> the parts of its line."""
    result = call(*words)
    assert result.exit_code == 0, result.output
    lines = [LINE.fullmatch(line) for line in result.stdout.splitlines() if line.startswith("  ")]
    assert None not in lines
    names = [line["name"] for line in lines]
    assert len(names) == len(set(names))
    return {line["name"]: line for line in lines}


def leaves(values, above=""):
    """The dotted names of what a configuration holds, from its dump: another way than through the models' fields."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def annotations(model=Config, above=""):
    for key, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from annotations(info.annotation, f"{above}{key}.")
        else:
            yield f"{above}{key}", info.annotation


def literals(kind):
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) in (Union, UnionType, Annotated):
        return [value for part in get_args(kind) for value in literals(part)]
    return []


def test_every_setting_stands_there_once_with_its_default():
    found = listed()
    expected = dict(leaves(Config().model_dump()))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        default = found[name]["default"]
        assert (default == "null") == (value is None), name
        # other values are refused or differ: only the default itself, given by hand, changes nothing
        assert validate(override({}, *parse_override(f"{name}={default}"))) == Config(), name


def test_every_setting_says_what_it_does():
    for name, line in listed().items():
        about = line["about"].partition(" Option:")[0]
        assert len(about.split()) > 1, name
        assert "None" not in about, name


def test_all_values_of_a_choice_are_listed():
    found = listed()
    choices = {name: literals(kind) for name, kind in annotations() if literals(kind)}
    assert {"data.cache", "loss.rule", "network.output_stride"} <= choices.keys()
    for name, values in choices.items():
        assert set(values) <= set(found[name]["kind"].split(" | ")), name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("data.balance", "none | images | crops"),
        ("data.cache_mib", "integer >= 0"),
        ("data.encoding", "index | colour | binary | null"),
        ("data.image_size", "HxW | null"),
        ("data.more", "list of strings | null"),
        ("augment.on_device", "true | false"),
        ("augment.scale", "[number, number]"),
        ("loss.adaptive.candidates", "list of numbers > 0 and <= 1"),
        ("loss.threshold", "number > 0 and <= 1 | auto | schedule | adaptive | calibrated | conformal:COVERAGE"),
        ("network.output_stride", "8 | 16 | null"),
        ("train.crop", "HxW"),
        ("train.ema", "number > 0 and < 1 | null"),
    ],
)
def test_what_may_be_given_in_words(name, kind):
    assert listed(name)[name]["kind"] == kind


@pytest.mark.parametrize(
    ("name", "known"),
    [("data.layout", ["auto", *DATASETS]), ("loss.name", ["paper", *PIXEL_LOSSES]), ("network.arch", NETWORKS)],
)
def test_names_that_other_rooms_know_are_in_the_description(name, known):
    assert set(known) <= set(re.findall(r"[\w-]+", listed(name)[name]["about"]))


def test_the_options_of_train_are_named_where_they_stand_for_a_setting():
    found = {name: line["about"] for name, line in listed().items()}
    named = {name: text.rpartition(" Option: ")[2] for name, text in found.items() if " Option: " in text}
    assert named == {SETTINGS[option][0]: f"--{option.replace('_', '-')}." for option in OPTIONS}


def test_a_section_a_section_within_and_a_single_setting():
    assert listed("data").keys() == {f"data.{name}" for name in type(Config().data).model_fields}
    inner = {"loss.schedule.start", "loss.schedule.end", "loss.schedule.share"}
    assert inner < listed("loss").keys()
    assert listed("loss.schedule").keys() == inner
    assert listed("data.cache").keys() == {"data.cache"}
    assert listed("seed").keys() == {"seed"}


def test_the_last_part_of_a_name_is_enough():
    assert listed("on_device").keys() == {"augment.on_device"}
    assert listed("balance").keys() == {"data.balance", "loss.balance"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("data.chache", "Did you mean 'data.cache'?"),
        ("augment.crop", "section. Did you mean 'train.crop'?"),
        ("dta", "Did you mean 'data'?"),
        ("on_devise", "Did you mean 'on_device'?"),
        ("loss.shedule.start", "Did you mean 'loss.schedule.start'?"),
        (
            "qqqq",
            "Available: augment, data, evaluate, init, loss, method, network, optim, out, seed, supervised, track, "
            "train.",
        ),
        ("method.cutmix", "`fuzzyseg methods NAME`"),
    ],
)
def test_an_unknown_name_suggests_and_exits_2(name, hint):
    result = call(name)
    assert result.exit_code == 2
    assert f"found {name!r}" in result.stderr
    assert hint in result.stderr
    assert result.stdout == ""


def test_on_a_terminal_lines_are_wrapped_and_elsewhere_not():
    plain = call("data.policy").stdout
    assert max(map(len, plain.splitlines())) > 120
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parents[1] / "src"), "COLUMNS": "60"}
    command = [sys.executable, "-m", "fuzzyseg", "settings", "data.policy"]
    subprocess.run(command, stdout=theirs, env=environment, check=True)  # short enough to be held until it is read
    os.close(theirs)
    shown = os.read(ours, 10_000).decode().replace("\r", "")
    os.close(ours)
    assert 40 < max(map(len, shown.splitlines())) <= 60
    assert shown.split() == plain.split()


def test_the_page_is_what_the_command_prints():
    assert PAGE.read_text(encoding="utf-8") == call("--markdown").stdout, (
        "run: fuzzyseg settings --markdown > docs/settings.md"
    )


def test_the_page_has_whole_tables():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) == len(listed())
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 5, row  # four cells: bars within one are escaped


@pytest.mark.parametrize("verb", ["train", "check", "split"])
def test_help_says_where_settings_are_listed(verb):
    shown = CliRunner().invoke(app, [verb, "--help"]).stdout
    assert "`fuzzyseg settings" in " ".join(shown.split("Examples:")[0].split())
