import pytest

from fuzzyseg.config import (
    Config,
    ConfigError,
    dump_yaml,
    merge,
    override,
    parse_override,
    read_yaml,
    settings_from,
    validate,
)


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
        ({"augment": {"crop": 3}}, ["unknown setting 'augment.crop'", "'train.crop'"]),
        ({"data": {"seed": 3}}, ["unknown setting 'data.seed'", "Did you mean 'seed'"]),
        ({"loss": {"coverage": 0.9}}, ["unknown setting 'loss.coverage'", "'loss.calibrated.coverage'"]),
        ({"loss": {"weights": "x"}}, ["'network.weights' or 'loss.weight'"]),
        ({"train": {"crop": "12x"}}, ["train.crop", "12x", "HEIGHTxWIDTH"]),
        ({"loss": {"threshold": 1.5}}, ["loss.threshold", "1.5"]),
        ({"loss": {"weight": "concav"}}, ["loss.weight", "concav", "concave"]),
        ({"loss": {"rule": "continous"}}, ["loss.rule", "continous", "n-1, n, continuous, or a fixed K of at least 1"]),
        ({"loss": {"rule": 0}}, ["loss.rule", "0", "a fixed K of at least 1"]),
        ({"loss": {"rule": True}}, ["loss.rule", "True", "a fixed K of at least 1"]),
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


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("optim.lr=.inf", "optim.lr: found inf"),
        ("optim.lr=1e400", "optim.lr: found inf"),
        ("train.ema=nan", "train.ema: found nan"),
        ("train.steps=true", "train.steps: found True"),
        ("optim.lr=true", "optim.lr: found True"),
        ("optim.head_lr_factor=true", "optim.head_lr_factor: found True"),  # equals the default
        ("data.bands=[true]", "data.bands: found"),
        ("data.bands=[0]", "data.bands.0: found 0"),
        ("data.std=[0, 1, 1]", "data.std.0: found 0"),
        ("data.mean=[.nan, 0, 0]", "data.mean.0: found nan"),
        ("supervised.class_weights=[-1, 2]", "supervised.class_weights.0: found -1"),
        ("supervised.name=focal", "supervised.name: found 'focal'"),
        ("supervised.ohem_threshold=1.5", "supervised.ohem_threshold: found 1.5"),
        ("supervised.ohem_min_kept=0", "supervised.ohem_min_kept: found 0"),
        ("supervised.label_smoothing=1.0", "supervised.label_smoothing: found 1"),
        ("supervised.dice=-1", "supervised.dice: found -1"),
        ("loss.schedule.start=0", "loss.schedule.start: found 0"),
        ("loss.schedule.end=1.2", "loss.schedule.end: found 1.2"),
        ("loss.schedule.share=0", "loss.schedule.share: found 0"),
        ("evaluate.scales=[]", "evaluate.scales: found"),
        ("evaluate.scales=[0]", "evaluate.scales.0: found 0"),
        ("augment.scale=[2, 1]", "augment.scale: found"),
        ("augment.scale=[0, 1]", "augment.scale: found"),
        ("augment.scale=[-1, 1]", "augment.scale: found"),
        ("train.crop=0", "train.crop: found 0"),
        ("train.crop=-5", "train.crop: found -5"),
        ("network.decoder_dropout=.nan", "network: found"),
        ("data=3", "data: found 3; this is a section"),
        ("train=[1]", "train: found [1]; this is a section"),
        ("init=''", "init: found ''"),
        ("init='a,,b'", "init: found 'a,,b'"),
        ("network.weights=''", "network.weights: found ''"),
        ("data.more=['']", "data.more: found ['']"),
    ],
)
def test_an_impossible_value_is_an_error_that_names_its_key(words, key):
    with pytest.raises(ConfigError) as error:
        validate(override({}, *parse_override(words)))
    assert str(error.value).startswith(key)


def test_true_and_false_stay_for_settings_that_take_them():
    values = {"train": {"compile": True, "tensorboard": True}, "loss": {"options": {"flag": True}}}
    config = validate(values)
    assert (config.train.compile, config.train.tensorboard, config.loss.options) == (True, True, {"flag": True})


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {steps: 3}\ntrain: {batch: 2}\n", "the key 'train' occurs twice"),
        ("train: {steps: 3, steps: 4}\n", "the key 'steps' occurs twice"),
        ("train: " + "[" * 3000, "nested brackets"),
        ("train: {steps: " + "y" * 1_000_000 + "}", "characters"),
        (LAUGHS + "train: *h\n", "values with aliases expanded"),
        ("train: &a {steps: *a}\n", "an alias contains itself"),
        ("seed: 2020-13-45\n", "not valid YAML"),
        ("seed: !!int ''\n", "not valid YAML"),
        ("seed: !!bool x\n", "not valid YAML"),
        ("seed: !!timestamp x\n", "not valid YAML"),
        ("seed: \x00\n", "not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_hostile_recipe_is_one_short_line(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        validate(read_yaml(path))
    message = str(error.value)
    assert message.startswith(str(path)) and words in message
    assert len(message) < 400 and "\n" not in message


@pytest.mark.parametrize("value", ["a\0b", b"abc"])
def test_a_path_is_text_without_null_characters(value):
    for settings in ({"out": value}, {"data": {"more": ["a", value]}}):
        with pytest.raises(ConfigError, match=r"(out|more): found .*; expected text without null characters"):
            validate(settings)


@pytest.mark.parametrize("words", ["train.steps=" + "[" * 3000, "train.steps=" + "x" * 1_000_000, "x" * 10**6 + "=3"])
def test_a_hostile_override_is_a_short_error(words):
    with pytest.raises(ConfigError) as error:
        validate(override({}, *parse_override(words)))
    assert len(str(error.value)) < 400


def test_anchors_and_merge_keys_stay_possible(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("x: &x {steps: 3}\ntrain: {<<: *x, batch: 2}\n")
    assert read_yaml(path)["train"] == {"steps": 3, "batch": 2}
    path.write_text("x: &x {steps: 3}\ntrain: {<<: *x, steps: 4}\n")  # what is merged in may be overridden
    assert read_yaml(path)["train"] == {"steps": 4}


def test_keywords_are_short_names_dotted_names_or_sections():
    result = settings_from({"train.steps": 5}, {"train.crop": 64, "batch": 2, "optim": {"lr": 0.5}})
    assert (result.train.steps, result.train.crop, result.train.batch, result.optim.lr) == (5, (64, 64), 2, 0.5)
    with pytest.raises(ConfigError, match=r"'train\.crops'\. Did you mean 'train\.crop'"):
        settings_from(None, {"train.crops": 64})
    with pytest.raises(ConfigError, match=r"'trian\.crop'"):
        settings_from(None, {"trian.crop": 64})
