import pytest

from fuzzyseg.config import ConfigError
from fuzzyseg.config.load import nested
from fuzzyseg.config.plan import Plan, read_plan

ARMS = "arms: {a: {loss.name: hard}, b: {loss: {name: fuzzy}, loss.threshold: 0.5}}\n"


def read(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return read_plan(path)


def test_dotted_and_nested_settings_are_one(tmp_path):
    plan = read(tmp_path, "title: x\nbase: {train.steps: 5, train: {batch: 2}}\nstart:\n" + ARMS)
    assert plan.base == {"train": {"steps": 5, "batch": 2}}
    assert plan.arms == {"a": {"loss": {"name": "hard"}}, "b": {"loss": {"name": "fuzzy", "threshold": 0.5}}}
    assert plan.start is None
    assert nested({"a.b.c": 1, "a": {"b.d": 2}}) == {"a": {"b": {"c": 1, "d": 2}}}


def test_amounts_are_text(tmp_path):
    assert read(tmp_path, "title: x\nlabelled: [23, 1/8]\n" + ARMS).labelled == ["23", "1/8"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {steps: 3}\n", "fuzzyseg train"),
        ("title: x\nbasis: {}\n" + ARMS, "Did you mean 'base'"),
        ("title: x\narms: {}\n", "at least one"),
        ("title: x\nexpected: {c: [1.0]}\n" + ARMS, "one of the arms a, b"),
        ("title: x\narms: {'a, b': {}}\n", "without commas"),
        ("title: x\npairs: [[a, c]]\n" + ARMS, "one of the arms a, b"),
        ("title: x\narms: {a: {readings: {papr: {}}}}\nreadings: {paper: {}}\n", "'papr'.*expected settings of paper"),
        ("title: x\narms: {a: {readings.paper: 3}}\nreadings: {paper: {}}\n", "'paper': 3, expected settings"),
        ("title: x\narms: {a: {base: 3}}\n", "arms.a.base: found 3, expected settings"),
        ("title: x\nlabelled: [1, 2]\nexpected: {a: [1.0]}\n" + ARMS, "expected 2, one per amount"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words) as error:
        read(tmp_path, text)
    assert "plan.yaml" in str(error.value)


def test_an_arm_without_settings_is_the_base(tmp_path):
    assert Plan.model_validate({"title": "x", "arms": {"plain": None}}).arms == {"plain": {}}
