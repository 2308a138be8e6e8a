"""Held-out images and folds that hold the classes, and the notes on validation sets that show little."""

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.splits.split import make_split
from fuzzyseg.data.splits.stratify import shuffled, stratified


def make(root, classes, val=()):
    """A folder data set: the mask of image n holds the classes classes[n]; `val` are those of the val folder."""
    for split, rows in (("train", classes), ("val", val)):
        for number, held in enumerate(rows):
            for kind, values in (("images", [0]), ("masks", sorted(held))):
                path = root / kind / split / f"im{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.array([values] * 2, np.uint8)).save(path)
    most = max(max(held) for held in [*classes, *val]) + 1
    return read_dataset(root, classes=[f"c{i}" for i in range(most)])


def held_by(items):
    return set().union(*(set(np.unique(np.array(Image.open(item.mask))).tolist()) for item in items))


def covered(present, *parts):
    return sum(int(present[list(part)].any(0).sum()) for part in parts)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 8), classes=st.integers(1, 6), density=st.floats(0, 1))
def test_exchanges_never_lose_a_class_and_a_part_of_one_is_the_best_there_is(seed, count, classes, density):
    present = np.random.default_rng(seed).random((count, classes)) < density
    for first in range(1, count):
        before = [list(range(first)), list(range(first, count))]
        after = stratified(before, present)
        assert [len(part) for part in after] == [len(part) for part in before]
        assert sorted([*after[0], *after[1]]) == list(range(count))
        assert covered(present, *after) >= covered(present, *before)
        if first == 1:
            all_pairs = ([[i], [k for k in range(count) if k != i]] for i in range(count))
            assert covered(present, *after) == max(covered(present, *pair) for pair in all_pairs)
        if covered(present, *after) == covered(present, *before):
            assert after == before  # what is good already stays as it was drawn


def test_most_arrangements_are_the_best_that_any_choice_gives():
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(60):
        count = int(rng.integers(4, 9))
        first, present = int(rng.integers(1, count)), rng.random((count, 5)) < rng.random(5)
        best = max(
            covered(present, chosen, set(range(count)) - set(chosen)) for chosen in combinations(range(count), first)
        )
        missed += covered(present, *stratified([range(first), range(first, count)], present)) < best
    assert missed <= 3


def test_of_equal_exchanges_the_one_between_groups_of_like_size_is_made():
    present = np.array([[1, 0], [1, 0], [1, 1], [1, 1]], bool)  # class 1 in two members of the second part
    after = stratified([[0, 1], [2, 3]], present, [7, 2, 3, 9])
    assert [sorted(part) for part in after] == [[0, 2], [1, 3]]


RARE = [{0, 1}] * 18 + [{0, 2}, {0, 2}]


@pytest.mark.parametrize("val", [None, "0.2", "2"])
def test_a_class_of_two_labelled_images_is_in_both_parts_of_a_hold_out(tmp_path, val):
    data = make(tmp_path, RARE)
    for seed in range(6):
        split = make_split(data, val=val, seed=seed)
        assert held_by(split.val) == held_by(split.labelled) == {0, 1, 2}
        assert len(split.val) == (2 if val == "2" else 4)
        again = make_split(read_dataset(tmp_path), val=val, seed=seed)
        assert [item.name for item in again.val] == [item.name for item in split.val]
    blind = [make_split(data, val=val, seed=seed, policy="random") for seed in range(6)]
    assert any(held_by(split.val) != {0, 1, 2} for split in blind)  # which reads no mask


def test_a_hold_out_that_covers_the_classes_is_the_seeded_draw(tmp_path):
    data = make(tmp_path, [{0, 1}] * 20)
    for seed in range(4):
        drawn = [data.train[place].name for place in shuffled(data.train, seed, "validation")[:4]]
        assert [item.name for item in make_split(data, seed=seed).val] == drawn


def test_with_a_list_of_labelled_images_no_other_mask_is_read_for_the_hold_out(tmp_path):
    data = make(tmp_path, RARE)
    (tmp_path / "masks/train/im019.png").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("im000\nim001\n")
    split = make_split(data, labelled=str(tmp_path / "list.txt"), val="1", seed=1)
    assert len(split.labelled) == 2


@pytest.mark.parametrize("group", [None, r"im\d\d(\d)"])
def test_folds_are_disjoint_cover_all_labelled_images_and_hold_the_classes(tmp_path, group):
    data = make(tmp_path, [{0, 1}] * 15 + [{0, 2}] * 4 + [{0, 3}])
    folds = [make_split(data, val=f"fold:{number}/4", seed=3, group=group) for number in range(1, 5)]
    held = [{item.name for item in fold.val} for fold in folds]
    assert set.union(*held) == {item.name for item in data.train}
    assert sum(map(len, held)) == 20
    assert all(
        {item.name for item in fold.labelled} == set.union(*held) - part for fold, part in zip(folds, held, strict=True)
    )
    if group is None:
        assert [len(part) for part in held] == [5] * 4
        assert all({0, 1, 2} <= held_by(fold.val) for fold in folds)
        assert len({fold.hash for fold in folds}) == 4
    else:  # im000 and im010 stay together
        digits = [{name[-1] for name in part} for part in held]
        assert sum(map(len, digits)) == 10


def test_folds_of_a_list_divide_the_list(tmp_path):
    data = make(tmp_path, RARE)
    (tmp_path / "list.txt").write_text("".join(f"im{number:03d}\n" for number in range(6)))
    folds = [make_split(data, labelled=str(tmp_path / "list.txt"), val=f"fold:{k}/3") for k in (1, 2, 3)]
    named = {f"train/im{number:03d}" for number in range(6)}
    for fold in folds:
        assert {item.name for item in fold.val + fold.labelled} == named
        assert len(fold.val) == 2
        assert len(fold.unlabelled) == 14
    assert set.union(*({item.name for item in fold.val} for fold in folds)) == named


@pytest.mark.parametrize("text", ["fold:0/5", "fold:6/5", "fold:1/1", "fold:1", "fold:a/5", "fold:-1/5", "fold:1/2/3"])
def test_a_fold_that_is_none_is_named(tmp_path, text):
    with pytest.raises(DataError, match="expected fold:K/N"):
        make_split(make(tmp_path, RARE), val=text)


def test_more_folds_than_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="21 for 20 labelled images"):
        make_split(make(tmp_path, RARE), val="fold:1/21")


def test_the_validation_images_of_a_run_can_be_used_again(tmp_path):
    data = make(tmp_path / "data", RARE)
    first = make_split(data, seed=2, policy="random")
    record = tmp_path / "split.json"
    record.write_text(json.dumps(first.record()))
    again = make_split(data, val=str(record), seed=2)
    assert again.val == first.val
    assert again.hash == first.hash
    (tmp_path / "data/images/train" / f"{first.val[0].image.name}").unlink()
    (tmp_path / "data/masks/train" / f"{first.val[0].image.name}").unlink()
    with pytest.raises(DataError, match=f"1 of its validation images are missing in the data: {first.val[0].name}"):
        make_split(read_dataset(tmp_path / "data"), val=str(record))
    record.write_text("[]")
    with pytest.raises(DataError, match="is not the split"):
        make_split(data, val=str(record))


def test_few_validation_images_and_classes_without_one_are_told(tmp_path):
    notes = " ".join(make_split(make(tmp_path / "a", [{0, 1, 2}] * 4, val=[{0, 1}] * 3)).notes)
    assert "3 validation images" in notes
    assert "c2 not in the validation masks" in notes
    enough = " ".join(make_split(make(tmp_path / "b", [{0, 1}] * 2, val=[{0, 1}] * 20)).notes)
    assert "validation images:" not in enough and "not in the" not in enough
