"""Which runs there are, and the settings of each."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import fuzzyseg.experiment.sweeps
from fuzzyseg.cli import app
from fuzzyseg.config import ConfigError, validate
from fuzzyseg.config.plan import Plan
from fuzzyseg.experiment.sweeps import Cell, Grid, comparison
from fuzzyseg.experiment.sweeps.rows import differences, identity

OUT = Path("out")


def plan(**fields):
    arms = {
        "T=0.5": {"loss": {"name": "fuzzy", "threshold": 0.5}},
        "plain": {"method": {"name": "supervised"}, "loss": {"name": "paper"}},
    }
    return Plan.model_validate({"title": "t", "arms": arms, **fields})


def test_cells_are_arms_amounts_and_seeds_and_paired_arms_stand_together():
    grid = Grid(plan(labelled=["1/16", "1/8"]), seeds=2)
    assert [cell.name for cell in grid.cells[:4]] == [
        "T_0.5-1_16-s0",
        "plain-1_16-s0",
        "T_0.5-1_16-s1",
        "plain-1_16-s1",
    ]
    assert len(grid.cells) == 8
    assert [cell.arm for cell in Grid(plan(), arms=["plain"]).cells] == ["plain"]
    assert {cell.labelled for cell in Grid(plan(labelled=["1/16"]), labelled=["23"]).cells} == {"23"}


def test_layers_base_reading_command_arm():
    base = {"optim": {"lr": 0.5, "momentum": 0.1, "power": 0.2}, "loss": {"threshold": 0.7}}
    readings = {"paper": {"optim": {"lr": 0.6, "power": 0.3}}, "other": {"optim": {"lr": 0.9}}}
    settings = {"optim": {"power": 0.4}, "loss": {"threshold": 0.8}}
    grid = Grid(plan(base=base, readings=readings), {}, settings)
    config = grid.config(grid.cells[0], OUT)
    assert (config.optim.momentum, config.optim.lr, config.optim.power) == (0.1, 0.6, 0.4)
    assert config.loss.threshold == 0.5  # the arm's: what is compared is never overridden
    other = Grid(plan(base=base, readings=readings), {}, settings, reading="other")
    assert other.config(other.cells[0], OUT).optim.lr == 0.9


def test_an_arms_own_base_and_reading_go_over_the_plans_and_under_recipe_and_command():
    """What a source sets for an arm is not what is compared: a recipe or a setting replaces it, like the plan's."""
    arms = {
        "plain": {"method": {"name": "cps"}, "loss": {"name": "hard"}},
        "other": {
            "method": {"name": "ael"},
            "loss": {"name": "fuzzy"},
            "base": {"optim": {"lr": 0.2, "power": 0.5}, "network": {"encoder": "resnet18"}},
            "readings": {"b": {"optim": {"momentum": 0.7, "lr": 0.25}, "method": {"name": "ael", "gamma": 1.0}}},
        },
    }
    readings = {"a": {"optim": {"lr": 0.3}}, "b": {"optim": {"lr": 0.4, "momentum": 0.6}}}
    compared = plan(arms=arms, readings=readings, base={"optim": {"lr": 0.1, "momentum": 0.5}})

    def told(reading, recipe=None, settings=None):
        grid = Grid(compared, recipe or {}, settings or {}, reading=reading)
        configs = {cell.arm: grid.config(cell, OUT) for cell in grid.cells}
        return {
            arm: (c.optim.lr, c.optim.momentum, c.optim.power, c.network.encoder, c.method.options)
            for arm, c in configs.items()
        }

    assert told("a") == {"plain": (0.3, 0.5, 0.9, "resnet50", {}), "other": (0.2, 0.5, 0.5, "resnet18", {})}
    assert told("b") == {
        "plain": (0.4, 0.6, 0.9, "resnet50", {}),
        "other": (0.25, 0.7, 0.5, "resnet18", {"gamma": 1.0}),
    }
    replaced = told("b", {"network": {"encoder": "resnet34"}}, {"optim": {"momentum": 0.8}, "method": {"gamma": 0.0}})
    assert replaced["plain"] == (0.4, 0.8, 0.9, "resnet34", {})
    assert replaced["other"] == (0.25, 0.8, 0.5, "resnet34", {"gamma": 0.0})


def test_a_recipes_sections_take_the_place_of_the_plans():
    base = {"network": {"arch": "DeepLabV3Plus", "decoder_aspp_separable": False}, "train": {"precision": "bf16"}}
    recipe = {"network": {"arch": "FPN"}, "optim": {"lr": 0.7}}
    grid = Grid(
        plan(base=base, readings={"paper": {"optim": {"lr": 0.6, "power": 0.3}}}), recipe, {"optim": {"momentum": 0.5}}
    )
    config = grid.config(grid.cells[0], OUT)
    assert config.network.options == {}
    assert config.train.precision == "bf16"  # the recipe says nothing of the loop
    assert (config.optim.lr, config.optim.power, config.optim.momentum) == (0.7, 0.9, 0.5)


def test_each_seed_draws_its_own_subset():
    grid = Grid(plan(), seeds=3)
    configs = [grid.config(Cell("plain", None, seed), OUT) for seed in range(3)]
    assert [(c.seed, c.data.split_seed) for c in configs] == [(0, 0), (1, 1), (2, 2)]


def test_starts_are_supervised_of_different_seeds_as_many_as_networks_and_shared_by_the_arms():
    base = {"method": {"name": "cps", "cutmix": False}, "loss": {"name": "fuzzy"}, "optim": {"lr": 0.25}}
    grid = Grid(plan(base=base, start={"train": {"steps": 7}}), seeds=2)
    cps, plain = Cell("T=0.5", "4", 1), Cell("plain", "4", 1)
    assert [start.name for start in grid.starts(cps)] == ["start0-4-s1", "start1-4-s1"]
    assert grid.starts(plain) == grid.starts(cps)[:1]
    first, second = (grid.config(start, OUT) for start in grid.starts(cps))
    assert (first.seed, second.seed, first.data.split_seed, second.data.split_seed) == (2, 3, 1, 1)
    assert (first.method.name, first.train.steps, first.optim.lr, first.init) == ("supervised", 7, 0.25, None)
    assert first.method.options == {}
    assert grid.config(cps, OUT).init == ["out/start0-4-s1/model", "out/start1-4-s1/model"]
    assert grid.config(plain, OUT).init == ["out/start0-4-s1/model"]
    assert grid.config(plain, OUT).method.options == {}  # cutmix is another method's


def test_files_to_start_from_are_filled_in():
    grid = Grid(plan(start={}), labelled=["1/8"], seeds=2, init="w/{labelled}-{seed}-a,w/{labelled}-{seed}-b")
    assert grid.config(Cell("T=0.5", "1/8", 1), OUT).init == ["w/1_8-1-a", "w/1_8-1-b"]
    assert grid.config(Cell("plain", "1/8", 1), OUT).init == ["w/1_8-1-a"]
    with pytest.raises(ConfigError, match=r"--init: found 1 file, expected 2 for .*: cps trains 2 networks"):
        Grid(plan(start={}), labelled=["1/8"], init="w/one")
    assert grid.starts(Cell("plain", "1/8", 1)) == []


def test_a_method_option_of_the_command_reaches_the_arms_whose_method_has_it_and_is_never_lost():
    compared, _ = comparison(["cps", "gct", "supervised"], ["paper"])
    grid = Grid(compared, {"method": {"name": "cps", "cutmix": False}}, {"method": {"detector_width": 8}})
    told = {cell.arm: grid.config(cell, OUT).method.options for cell in grid.cells}
    assert told == {"cps paper": {"cutmix": False}, "gct paper": {"detector_width": 8}, "supervised paper": {}}
    with pytest.raises(ConfigError, match=r"method\.detector_widht: no method of this sweep has it \(cps, gct, super"):
        Grid(compared, {}, {"method": {"detector_widht": 8}})
    with pytest.raises(ConfigError, match=r"method\.detector_width: no method of this sweep has it \(cps\)"):
        Grid(compared, {}, {"method": {"detector_width": 8}}, arms=["cps paper"])


@pytest.mark.parametrize(
    ("fields", "options", "words"),
    [
        ({}, {"arms": ["T=0.6"]}, "Did you mean 'T=0.5'"),
        ({}, {"seeds": 0}, "at least 1"),
        ({}, {"reading": "paper"}, "has none"),
        ({"readings": {"paper": {}}}, {"reading": "papr"}, "Did you mean 'paper'"),
        ({"arms": {"a": {"loss": {"treshold": 1}}}}, {}, "Did you mean 'loss.threshold'"),
        ({"arms": {"a": {"method": {"name": "supervised"}, "loss": {"name": "hard"}}}}, {}, "does not apply"),
        ({"arms": {"a b": {}, "a_b": {}}}, {}, "rename one"),
        ({"arms": {"a": {"train": {"evaluate": False}}}}, {}, "found false for 'a'; expected true"),
    ],
)
def test_what_cannot_run_shows_before_the_first_run(fields, options, words):
    with pytest.raises(ConfigError, match=words):
        Grid(plan(**fields), **options)


def test_a_row_is_known_by_what_is_computed_not_by_where():
    def config(**data):
        return validate({"out": "a", "data": {"root": "/x", **data}, "network": {"weights": "/x/w.safetensors"}})

    here = identity(config())
    there = {"out": "b", "data": {"root": "/y"}, "network": {"weights": "/y/w.safetensors"}, "train": {"workers": 0}}
    elsewhere = identity(validate(there))
    assert here == elsewhere
    assert "/x" not in str(here)
    assert differences(here, identity(config(labelled="7"))) == ["data.labelled was None and is now '7'"]
    older = {key: value for key, value in here.items() if key != "optim.power"}
    assert differences(older, here) == []  # a setting that came later, at its default
    assert differences(older, {**here, "optim.power": 0.5}) == ["optim.power was 0.9 and is now 0.5"]


def test_a_methods_own_settings_are_in_the_row_given_or_not():
    def row(**method):
        return identity(validate({"method": {"name": "cps", **method}}))

    assert (row()["method.cutmix"], row(cutmix=False)["method.cutmix"]) == (True, False)
    assert row() == row(cutmix=True)  # said or not, it is the same run
    before = {**row(), "method.boxes": 1}  # made when another number was the default
    assert differences(before, row()) == ["method.boxes was 1 and is now 3"]
    older = {key: value for key, value in row().items() if not key.startswith("method.") or key == "method.name"}
    assert differences(older, row()) == []
    assert differences(older, row(cutmix=False)) == ["method.cutmix was True and is now False"]


def test_published_scores_stand_beside_other_amounts_with_their_own():
    grid = Grid(plan(labelled=["1/16", "1/8"], expected={"T=0.5": [60.0, 70.0]}), labelled=["23", "1/8", "46"])
    assert [grid.expected(Cell("T=0.5", a, 0)) for a in grid.amounts] == [(60.0, "1/16"), (70.0, "1/8"), (None, None)]
    assert grid.expected(Cell("plain", "23", 0)) == (None, None)


def test_a_comparison_leaves_out_what_does_not_apply_and_runs_the_papers_loss_once():
    made, said = comparison(["supervised", "cps"], ["paper", "hard", "fuzzy"])
    assert list(made.arms) == ["supervised paper", "cps paper", "cps fuzzy"]
    against = [("cps paper", "supervised paper"), ("cps fuzzy", "supervised paper")]
    assert made.pairs == [*against, ("cps fuzzy", "cps paper")]
    assert not any("supervised" in sentence for sentence in said)  # it is the reference, whatever the losses
    assert (
        sum("does not apply" in sentence for sentence in comparison(["cac", "cps"], ["paper", "hard", "fuzzy"])[1]) == 2
    )
    only, _ = comparison(["cps"], ["hard", "fuzzy"])
    assert list(only.arms) == ["supervised paper", "cps hard", "cps fuzzy"]  # the reference, asked for or not
    assert only.arms["supervised paper"] == {"method": {"name": "supervised"}, "loss": {"name": "paper"}}
    assert only.pairs[-1] == ("cps fuzzy", "cps hard")
    assert list(comparison(["supervised"], ["hard"])[0].arms) == ["supervised paper"]
    with pytest.raises(ConfigError, match="nothing left to compare"):
        comparison(["cac"], ["hard"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "cpss"], "--methods: found 'cpss'. Did you mean 'cps'"),
        (["--loss", "hard,fuzy"], "--loss: found 'fuzy'. Did you mean 'fuzzy'"),
        (["data.crop=64"], "Did you mean 'train.crop'"),
    ],
)
def test_a_misspelt_name_is_told_by_the_command(words, said):
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_comparison_says_where_the_loss_is_not_all_that_differs():
    made, said = comparison(["fixmatch", "ael", "cps"], ["hard", "fuzzy"])
    assert said[0] in made.about  # it stands in the table too
    assert [sentence.split(":")[0] for sentence in said] == ["fixmatch"]  # ael has no threshold unless one is set
    assert "both changes" in said[0]
    assert comparison(["fixmatch"], ["fuzzy", "soft"])[1] == []


def test_a_comparison_says_where_fpl_is_a_variant_of_ours():
    about = comparison(["cps", "vat", "gct"], ["hard", "fuzzy"])[0].about
    assert "FPL in vat, gct is our variant" in about
    assert "variant" not in comparison(["vat"], ["paper", "hard"])[0].about
    assert "variant" not in comparison(["cps"], ["hard", "fuzzy"])[0].about


@pytest.fixture
def grids(monkeypatch):
    """The grids of the sweeps that a command runs, in place of running them."""
    made = []

    def run(grid, *rest, **options):
        made.append(grid)
        return SimpleNamespace(table="", interrupted=False, failed={})

    monkeypatch.setattr(fuzzyseg.experiment.sweeps, "sweep", run)
    return made


def test_the_options_of_train_are_settings_of_all_runs(grids, tmp_path):
    words = ["--arch", "FPN", "--encoder", "resnet18", "--crop", "64x96", "--batch", "3", "--workers", "0"]
    words += ["--more", "other", "--eval-every", "5", "--device", "cpu"]
    result = CliRunner().invoke(app, ["compare", "--methods", "cps", "--data", str(tmp_path), *words])
    assert result.exit_code == 0, result.stderr
    configs = [grids[0].config(cell, OUT) for cell in grids[0].cells]
    assert len(configs) > 2
    for config in configs:
        assert (config.network.arch, config.network.encoder) == ("FPN", "resnet18")
        train = config.train
        assert (train.crop, train.batch, train.workers, train.eval_every, train.device) == ((64, 96), 3, 0, 5, "cpu")
        assert config.data.more == ["other"]


@pytest.mark.parametrize("name", ["compare", "sweep"])
@pytest.mark.parametrize(("asked", "steps"), [(None, 7), ("3", 3), ("0", None)])
def test_the_steps_of_the_start_that_are_asked_for_go_before_the_recipes(grids, tmp_path, name, asked, steps):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("start: {train.steps: 7, optim.lr: 0.5}\n")
    (tmp_path / "plan.yaml").write_text("title: T\narms: {a: {method.name: cps}}\n")
    chosen = ["compare", str(recipe), "--methods", "cps", "--loss", "hard"]
    words = chosen if name == "compare" else ["sweep", str(tmp_path / "plan.yaml"), str(recipe)]
    result = CliRunner().invoke(app, [*words, "--data", str(tmp_path), *(["--start-steps", asked] if asked else [])])
    assert result.exit_code == 0, result.stderr
    (grid,) = grids
    starts = [grid.config(start, OUT) for start in grid.starts(grid.cells[-1])]
    assert [(start.train.steps, start.optim.lr) for start in starts] == ([] if steps is None else [(steps, 0.5)] * 2)


def test_subsets_and_seeds_as_lists_are_crossed_and_each_pair_has_its_own_starts():
    base = {"method": {"name": "cps"}, "loss": {"name": "fuzzy"}}
    grid = Grid(plan(base=base, start={}, labelled=["4"], subsets=[7, 8], seeds=[1, 3]), arms=["T=0.5"])
    configs = [grid.config(cell, OUT) for cell in grid.cells]
    assert [(c.data.split_seed, c.seed) for c in configs] == [(7, 1), (7, 3), (8, 1), (8, 3)]
    assert len({cell.name for cell in grid.cells}) == 4
    starts = [start for cell in grid.cells for start in grid.starts(cell)]
    made = [grid.config(start, OUT) for start in starts]
    assert len({start.name for start in starts}) == 8
    assert [c.data.split_seed for c in made] == [7, 7, 7, 7, 8, 8, 8, 8]
    assert len({c.seed for c in made[:4]}) == 4  # four networks of one subset, none with another's first weights
    init = Grid(plan(base=base, subsets=[7], seeds=[3]), arms=["T=0.5"], init="w/{subset}-{seed}-a,w/{subset}-{seed}-b")
    assert init.config(init.cells[0], OUT).init == ["w/7-3-a", "w/7-3-b"]


def test_a_plans_seeds_give_way_to_the_commands_and_a_subset_follows_its_seed():
    grid = Grid(plan(seeds=[5, 6]), arms=["plain"])
    assert [(c.seed, c.data.split_seed) for c in (grid.config(cell, OUT) for cell in grid.cells)] == [(5, 5), (6, 6)]
    assert [cell.seed for cell in Grid(plan(seeds=[5, 6]), arms=["plain"], seeds=3).cells] == [0, 1, 2]
    with pytest.raises(ValueError, match="seeds"):
        plan(seeds=[5, 5])


def test_folds_repeat_every_arm_with_each_fold_for_validation_and_starts_of_its_own():
    base = {"method": {"name": "cps"}, "loss": {"name": "fuzzy"}}
    grid = Grid(plan(base=base, start={}), seeds=2, folds=3)
    assert len(grid.cells) == 2 * 2 * 3
    assert len({cell.name for cell in grid.cells}) == 12
    configs = [grid.config(cell, OUT) for cell in grid.cells if cell.arm == "plain"]
    assert [(c.seed, c.data.split_seed, c.data.val) for c in configs] == [
        (seed, seed, f"fold:{fold}/3") for seed in (0, 1) for fold in (1, 2, 3)
    ]
    for cell in grid.cells:  # a start must not have learnt from the images that validate its runs
        starts = [grid.config(start, OUT) for start in grid.starts(cell)]
        assert {start.data.val for start in starts} == {grid.config(cell, OUT).data.val}
    one, two = (grid.config(Cell("plain", None, 0, None, fold), OUT) for fold in (1, 2))
    assert differences(identity(one), identity(two)) == ["data.val was 'fold:1/3' and is now 'fold:2/3'"]
    init = Grid(plan(base=base), arms=["plain"], folds=2, init="w/{fold}")
    assert [init.config(cell, OUT).init for cell in init.cells] == [["w/1"], ["w/2"]]
    with pytest.raises(ConfigError, match=r"--val: found '0\.2' and --folds"):
        Grid(plan(), settings={"data": {"val": "0.2"}}, folds=3)
