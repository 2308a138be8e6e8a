import pytest

from fuzzyseg.config import Config, ConfigError, dump_yaml, merge, override, parse_override, read_yaml, validate


def test_defaults_survive_yaml(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(Config()))
    assert validate(read_yaml(path)) == Config()


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("train.ema=0.998", ["train", "ema"], 0.998),
        ("optim.lr=5e-4", ["optim", "lr"], 5e-4),
        ("method.cutmix=false", ["method", "cutmix"], False),
        ("loss.k_cap=", ["loss", "k_cap"], None),
        ("loss.rule=n-1", ["loss", "rule"], "n-1"),
        ("augment.scale=[0.5, 2]", ["augment", "scale"], [0.5, 2]),
    ],
)
def test_overrides_are_read_as_yaml(text, path, value):
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["train.steps", "=3", "steps 5"])
def test_an_override_without_key_or_sign_is_an_error(text):
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_override(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"stepz": 3}}, ["train.stepz", "'train.steps'"]),
        ({"trainn": {}}, ["trainn", "'train'"]),
        ({"optim": {"lr": -1}}, ["optim.lr", "-1", "greater than 0"]),
        ({"lr": 0.1}, ["unknown setting 'lr'", "'optim.lr'"]),
        ({"train": {"crop": "12x"}}, ["train.crop", "12x", "HEIGHTxWIDTH"]),
        ({"loss": {"threshold": 1.5}}, ["loss.threshold", "1.5"]),
        ({"loss": {"weight": "concav"}}, ["loss.weight", "concav", "concave"]),
        ({"loss": {"rule": "continous"}}, ["loss.rule", "continous", "n-1, n, continuous, or a number from 1"]),
        ({"loss": {"rule": 0}}, ["loss.rule", "0", "a number from 1"]),
        ({"loss": {"rule": True}}, ["loss.rule", "True", "a number from 1"]),
    ],
)
def test_errors_name_key_value_and_what_was_expected(values, words):
    with pytest.raises(ConfigError) as error:
        validate(values)
    for word in words:
        assert word in str(error.value)


def test_sizes_take_text_numbers_and_pairs():
    for given in ("64x96", [64, 96]):
        assert validate({"train": {"crop": given}}).train.crop == (64, 96)
    assert validate({"data": {"image_size": 32}}).data.image_size == (32, 32)


def test_counts_and_fractions_of_labelled_images_stay_text():
    assert validate({"data": {"labelled": 46, "val": 0.2}}).data.labelled == "46"
    assert validate({"data": {"labelled": "1/8"}}).data.labelled == "1/8"


def test_merge_lays_sections_over_each_other_and_changes_neither():
    base = {"train": {"steps": 1, "batch": 2}, "seed": 0}
    merged = merge(base, {"train": {"steps": 5}})
    assert merged == {"train": {"steps": 5, "batch": 2}, "seed": 0}
    assert base["train"]["steps"] == 1
    assert override(base, ["train", "steps"], 9)["train"] == {"steps": 9, "batch": 2}


def test_architecture_and_method_take_options_of_their_own():
    config = validate({"network": {"decoder_aspp_separable": False}, "method": {"name": "cps", "cutmix": False}})
    assert config.network.options == {"decoder_aspp_separable": False}
    assert config.method.options == {"cutmix": False}


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_a_recipe_that_is_no_mapping_is_named(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        read_yaml(path)
