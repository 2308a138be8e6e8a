"""Means, deviations and intervals against numbers worked out by hand."""

import re

from fuzzyseg.config.plan import Plan
from fuzzyseg.experiment.sweeps import Cell, Grid, tables
from fuzzyseg.experiment.sweeps.tables import ONE_RUN
from fuzzyseg.report.paired import interval, mean_std


def row(miou, seconds=0.5):
    return {"result": {"labelled": 4, "last": {"miou": miou}}, "seconds_per_step": seconds, "memory_mib": 100}


def test_interval_is_students():
    # differences 1, 2, 3: mean 2, s = 1, t(.975, 2) = 4.3027, half width 4.3027 / sqrt 3
    assert interval([1.0, 2.0, 3.0]) == "+2.00 ± 2.48 (n = 3)"
    # of a cross-validation with 3 folds: 4.3027 sqrt(1 / 3 + 1 / 2)
    assert interval([1.0, 2.0, 3.0], 3) == "+2.00 ± 3.93 (n = 3)"
    assert interval([-0.5]) == "-0.50 (one pair: no interval)"
    assert interval([]) == "-"
    assert mean_std([1.0, 3.0]) == "2.00 ± 1.41"


def test_differences_are_paired_by_seed_and_what_is_missing_is_told():
    plan = Plan(title="T", arms={"a": {}, "b": {}}, pairs=[("a", "b")], expected={"a": [50.0]})
    grid = Grid(plan, seeds=3)
    rows = {
        Cell("a", None, 0): row(0.40),
        Cell("b", None, 0): row(0.30),
        Cell("a", None, 1): row(0.50),
        Cell("b", None, 1): row(0.42),
        Cell("a", None, 2): row(0.99, seconds=0.7),  # has no partner: no part of the difference
    }
    text = tables(grid, rows, {Cell("b", None, 2): "memory"})
    assert "| a - b | all | +9.00 ± 12.71 (n = 2) |" in text
    assert "| a | all (4) | 3 | 63.00 ± 31.58 | 50.00 | 0.50 | 100 |" in text
    assert "- b-s2: failed: memory" in text
    assert "Not run yet" not in text
    assert "Not run yet: 1 of 6 (b-s2)" in tables(grid, rows)


def test_names_mean_nothing_in_markdown():
    names = ["a|b", "`c`", "<b>d</b>", "*e*"]
    plan = Plan(title="T | x\n# y", arms={name: {} for name in [*names, "n\n| f"]}, pairs=[(names[0], names[1])])
    grid = Grid(plan, labelled=["lists/<a>|b.txt"], seeds=2)
    text = tables(grid, {}, {grid.cells[0]: "error: <i>`x`\n# no"})
    lines = text.splitlines()
    assert sum(line.startswith("#") for line in lines) == 1
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {6, 3}
    for mark in "`<*":
        assert not re.search(rf"(?<!\\){re.escape(mark)}", text)
    told = [re.sub(r"\\(.)", r"\1", row[0].strip()) for row in rows if len(row) == 6][2:]
    assert told == [*names, "n | f"]


def test_the_score_over_resolvable_classes_stands_beside_miou():
    grid = Grid(Plan(title="T", arms={"new": {}, "old": {}}), seeds=2)
    rows = {cell: row(0.4) for cell in grid.cells}
    for cell, share in zip([cell for cell in grid.cells if cell.arm == "new"], (0.5, 0.52), strict=True):
        rows[cell]["result"]["last"]["miou_resolvable"] = share
    rows[Cell("old", None, 0)]["result"]["last"]["miou_resolvable"] = 0.5  # the other row of the arm lacks it
    text = tables(grid, rows)
    assert "| arm | labelled | runs | mIoU | resolvable | s/step |" in text
    assert "| new | all (4) | 2 | 40.00 ± 0.00 | 51.00 ± 1.41 |" in text
    assert "| old | all (4) | 2 | 40.00 ± 0.00 | - |" in text


def test_differences_of_arms_that_were_not_chosen_are_not_announced():
    plan = Plan(title="T", arms={"a": {}, "b": {}, "c": {}}, pairs=[("a", "b")])
    assert "| difference |" in tables(Grid(plan), {})
    assert "| difference |" not in tables(Grid(plan, arms=["a", "c"]), {Cell("a", None, 0): row(0.4)})


def test_runs_that_went_on_from_different_weights_are_not_subtracted():
    grid = Grid(Plan(title="T", arms={"two": {}, "one": {}}, pairs=[("two", "one")]), seeds=3)
    rows = {
        Cell("two", None, 0): {**row(0.40), "starts": ["a", "b"]},  # two networks, the first from the other's weights
        Cell("one", None, 0): {**row(0.30), "starts": ["a"]},
        Cell("two", None, 1): {**row(0.50), "starts": ["a", "b"]},
        Cell("one", None, 1): {**row(0.10), "starts": ["c"]},
        Cell("two", None, 2): {**row(0.60), "starts": ["a", "b"]},
        Cell("one", None, 2): row(0.48),  # an older row, which does not say
    }
    text = tables(grid, rows)
    assert "| two - one | all | +11.00 ± 12.71 (n = 2) |" in text
    assert "Excluded: 1 pair of" in text
    assert "Excluded" not in tables(grid, {cell: each for cell, each in rows.items() if cell.seed != 1})


def test_what_runs_had_to_say_is_told_once_with_the_arms_that_said_it():
    grid = Grid(Plan(title="T", arms={"a": {}, "b": {}, "c": {}}), seeds=2)
    spoke = row(0.4)
    spoke["result"] = {**spoke["result"], "notes": ["a mask hides it"]}
    rows = {cell: spoke if cell.arm != "b" else row(0.4) for cell in grid.cells}
    assert tables(grid, rows).count("- a, c: a mask hides it.") == 1
    assert "b: a mask" not in tables(grid, rows)


def test_different_starts_of_one_seed_are_named_and_those_of_different_seeds_are_not():
    grid = Grid(Plan(title="T", arms={"a": {}, "b": {}, "c": {}}), seeds=2)
    starts = {("a", 0): ["x"], ("b", 0): ["y", "x"], ("c", 0): ["x", "z"], ("a", 1): ["z"], ("b", 1): ["z"]}
    rows = {Cell(arm, None, seed): {**row(0.4), "starts": given} for (arm, seed), given in starts.items()}
    text = tables(grid, rows)
    assert "- all labelled, seed 0: the initial weights differ (x: a, c; y: b)." in text
    assert "seed 1" not in text
    assert "not recorded: c" in tables(grid, {**rows, Cell("c", None, 1): row(0.4)})


def test_a_table_says_whether_runs_have_initial_weights():
    said = [tables(Grid(Plan(title="T", arms={"a": {}}, start=start), init=init), {}) for start, init in
            [(None, None), ({}, None), ({}, "v,w")]]  # fmt: skip
    assert "start from" not in said[0]
    assert "supervised pretraining" in said[1]
    assert "given weights" in said[2]


def test_published_scores_are_not_shown_as_those_of_another_setting():
    plan = Plan(title="T", arms={"a": {}}, expected={"a": [50.0]}, labelled=["46"])
    assert "these runs use a different one" not in tables(Grid(plan, settings={"data": {"root": "d"}}), {})
    assert "In brackets" not in tables(Grid(plan), {})
    text = tables(Grid(plan, recipe={"network": {"arch": "FPN"}}, labelled=["23"]), {})
    assert "different one (set: network)" in text
    assert "| 50.00 (46) |" in text
    assert "In brackets: the amount of labels" in text
    assert "published scores" not in tables(Grid(Plan(title="T", arms={"a": {}})), {})


def test_differences_pair_runs_of_one_subset_and_seed():
    plan = Plan(title="T", arms={"a": {}, "b": {}}, pairs=[("a", "b")], subsets=[1, 2], seeds=[4])
    rows = {Cell("a", None, 4, 1): row(0.40), Cell("b", None, 4, 1): row(0.30),
            Cell("a", None, 4, 2): row(0.90), Cell("b", None, 4, 2): row(0.78)}  # fmt: skip
    assert "| a - b | all | +11.00 ± 12.71 (n = 2) |" in tables(Grid(plan), rows)


def test_rows_of_several_versions_of_the_code_are_named():
    grid = Grid(Plan(title="T", arms={"a": {}, "b": {}}))
    one = {"sources": "s1", "commit": "c" * 40}
    rows = {Cell("a", None, 0): {**row(0.4), "code": one}, Cell("b", None, 0): {**row(0.3), "code": one}}
    assert "versions of the code" not in tables(grid, rows)
    rows[Cell("b", None, 0)]["code"] = {"sources": "s2", "commit": None}
    assert "(cccccccccccc, s2)" in tables(grid, rows)


def test_differences_over_resolvable_classes_stand_beside_those_of_all_where_both_runs_have_them():
    plan = Plan(title="T", arms={"a": {}, "b": {}}, pairs=[("a", "b")])
    rows = {Cell(arm, None, seed): row(share) for arm, share in (("a", 0.5), ("b", 0.4)) for seed in (0, 1, 2)}
    for seed, (one, two) in enumerate([(0.63, 0.60), (0.65, 0.60)]):
        rows[Cell("a", None, seed)]["result"]["last"]["miou_resolvable"] = one
        rows[Cell("b", None, seed)]["result"]["last"]["miou_resolvable"] = two
    assert "| a - b | all | +10.00 ± 0.00 (n = 3) | +4.00 ± 12.71 (n = 2) |" in tables(Grid(plan, seeds=3), rows)


def test_a_table_of_one_run_of_each_says_that_its_differences_may_be_chance():
    plan = Plan(title="T", arms={"a": {}, "b": {}}, pairs=[("a", "b")])
    rows = {Cell(arm, None, seed): row(share) for arm, share in (("a", 0.5), ("b", 0.4)) for seed in (0, 1)}
    assert ONE_RUN in tables(Grid(plan), rows)
    assert ONE_RUN not in tables(Grid(plan, seeds=2), rows)
    assert ONE_RUN not in tables(Grid(Plan(title="T", arms={"a": {}})), rows)  # no difference


def test_folds_are_runs_whose_differences_are_paired_fold_by_fold():
    plan = Plan(title="T", arms={"a": {}, "b": {}}, pairs=[("a", "b")])
    scores = {"a": (0.5, 0.3), "b": (0.4, 0.22)}
    rows = {Cell(arm, None, 0, None, fold): row(scores[arm][fold - 1]) for arm in scores for fold in (1, 2)}
    text = tables(Grid(plan, folds=2), rows)
    assert "| a | all (4) | 2 | 40.00 ± 14.14 |" in text
    assert "| a - b | all | +9.00 ± 22.01 (n = 2) |" in text  # t(.975, 1) = 12.706, s = 1.414, sqrt(1 / 2 + 1)
    assert ONE_RUN not in text
    apart = {**rows, Cell("b", None, 0, None, 2): {**row(0.2), "starts": ["x"]}}
    apart[Cell("a", None, 0, None, 2)] = {**row(0.2), "starts": ["y"]}
    assert "all labelled, seed 0, fold 2: the initial weights differ" in tables(Grid(plan, folds=2), apart)


def test_every_column_but_counts_is_explained():
    grid = Grid(Plan(title="T", arms={"a": {}}, expected={"a": [50.0]}))
    scored = row(0.4)
    scored["result"]["last"]["miou_resolvable"] = 0.5
    text = tables(grid, {grid.cells[0]: scored})
    head = next(line for line in text.splitlines() if line.startswith("| arm"))
    for name in {each.strip() for each in head.strip("|").split("|")} - {"labelled", "runs"}:
        assert f"{name}: " in text
    assert "resolvable: " not in tables(grid, {})


def test_a_table_of_few_validation_images_says_what_they_can_show():
    grid = Grid(Plan(title="T", arms={"a": {}, "b": {}, "c": {}}))

    def text(images, grid=grid, **score):
        rows = {cell: row(0.4) for cell in grid.cells}
        for cell, error in zip(grid.cells, (0.01, 0.03, 0.02), strict=False):
            rows[cell]["result"]["last"] |= {"images": images, "miou_error": error, **score}
        return tables(grid, rows)

    assert "of 9 validation images" in text(9) and "about 4.0 points" in text(9)
    assert "validation images" not in text(20)
    assert "validation images" not in text(1, miou_error=None)
    assert "validation images:" not in text(9, Grid(Plan(title="T", arms={"a": {}}), folds=2))
