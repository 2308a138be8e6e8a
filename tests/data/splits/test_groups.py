"""Groups stay whole, whatever is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, DataSet, Item
from fuzzyseg.data.datasets.combine import add_unlabelled
from fuzzyseg.data.splits.groups import group_keys
from fuzzyseg.data.splits.split import make_split


def items(names):
    return [Item(Path(f"images/{name}.png"), None, name) for name in names]


def test_rules():
    names = ["p1/a_001", "p1/a_002", "p2/b-7", "p2/c"]
    assert group_keys(items(names), "folder") == ["p1", "p1", "p2", "p2"]
    assert group_keys(items(names), "prefix") == ["p1/a", "p1/a", "p2/b", "p2/c"]
    assert group_keys(items(names), r"p(\d)") == ["1", "1", "2", "2"]
    assert group_keys(items(names), r"[abc]") == ["a", "a", "b", "c"]


def test_what_a_rule_does_not_fit_is_named():
    with pytest.raises(DataError, match="2 image names: x, y"):
        group_keys(items(["v1_x", "x", "y"]), r"v(\d)")
    with pytest.raises(DataError, match="not a regular expression"):
        group_keys(items(["a"]), "(")


@pytest.fixture
def videos(tmp_path):
    """Eight videos of 2 to 4 frames; class 2 only in video 5."""
    made = []
    for video in range(8):
        for frame in range(2 + video % 3):
            name = f"v{video}_{frame:03d}"
            mask = np.zeros((4, 4), np.uint8)
            mask[0, 0] = 1
            if video == 5 and frame == 1:
                mask[1] = 2
            path = tmp_path / f"{name}.png"
            Image.fromarray(mask).save(path)
            made.append(Item(path, path, name))
    return DataSet(tmp_path, "folder", ["a", "b", "c"], 255, made, None, None)


def video(item):
    return item.name.split("_")[0]


@pytest.mark.parametrize("policy", ["cover", "random"])
def test_no_video_is_in_two_lists(videos, policy):
    for seed in range(5):
        split = make_split(videos, labelled="6", val="0.3", seed=seed, policy=policy, group="prefix")
        parts = [{video(i) for i in part} for part in (split.labelled, split.unlabelled, split.val)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert 6 <= len(split.labelled) < 6 + 4
        assert len(split.labelled) + len(split.unlabelled) + len(split.val) == len(videos.train)


@pytest.fixture
def half_annotated(videos):
    """The same videos, but every second frame has no mask."""
    train = [replace(item, mask=None) if place % 2 else item for place, item in enumerate(videos.train)]
    return replace(videos, train=train)


def test_frames_without_masks_of_a_validation_video_are_not_trained_on(half_annotated):
    for seed in range(5):
        split = make_split(half_annotated, labelled="3", val="0.3", seed=seed, group="prefix")
        scored = {video(item) for item in split.val}
        trained = {video(item) for part in (split.labelled, split.unlabelled, split.all_) for item in part}
        assert scored
        assert not scored & trained
        left = sum(video(item) in scored and item.mask is None for item in half_annotated.train)
        assert left and f"{left} more images of its groups (prefix) are excluded from training" in "; ".join(
            split.notes
        )


def test_lists_made_by_groups_are_followed_by_groups(half_annotated, tmp_path):
    """What `split --group` wrote, trained with the same rule: unmasked frames of its videos stay out here too."""
    first = make_split(half_annotated, labelled="3", val="0.3", group="prefix")
    for part in ("labelled", "val"):
        (tmp_path / f"{part}.txt").write_text("".join(f"{item.name}\n" for item in getattr(first, part)))
    lists = {part: str(tmp_path / f"{part}.txt") for part in ("labelled", "val")}
    assert make_split(half_annotated, **lists, group="prefix").hash == first.hash
    assert make_split(half_annotated, **lists).hash != first.hash


def test_a_video_that_is_named_as_labelled_is_not_held_out(half_annotated, tmp_path):
    named = tmp_path / "labelled.txt"
    masked = {video(item): item.name for item in half_annotated.train if item.mask is not None}
    expected = {masked["v2"], masked["v3"]}
    named.write_text("\n".join(expected) + "\n")
    for seed in range(5):
        split = make_split(half_annotated, labelled=str(named), val="0.3", seed=seed, group="prefix")
        assert {item.name for item in split.labelled} == expected
        assert not {video(item) for item in split.val} & {"v2", "v3"}


def test_without_the_rule_videos_are_torn_apart(videos):
    split = make_split(videos, labelled="6", val="0.3", group=None)
    assert {video(i) for i in split.val} & {video(i) for i in split.labelled + split.unlabelled}


def test_that_whole_groups_are_more_than_was_asked_for_is_said(videos):
    split = make_split(videos, labelled="1", val="none", group="prefix")
    assert len(split.labelled) > 1
    assert "whole groups (prefix) until 1 are reached" in split.notes[0]
    assert "groups" not in make_split(videos, labelled="1", val="none").notes[0]


def test_groups_are_nested_and_cover_the_classes(videos):
    small = make_split(videos, labelled="4", val="none", group="prefix")
    large = make_split(videos, labelled="9", val="none", group="prefix")
    names = [i.name for i in small.labelled]
    assert names == [i.name for i in large.labelled][: len(names)]
    assert "v5" in {video(i) for i in small.labelled}  # the rarest class is in the first group
    assert small.uncovered == []


def test_one_group_for_all_cannot_be_held_out(videos):
    with pytest.raises(DataError, match="one group"):
        make_split(videos, group="v")


@pytest.mark.parametrize("rule", ["prefix", r"(v\d)", r"^(?:train/|val/)?(v\d)"])
@pytest.mark.parametrize("layout", ["flat", "train", "val"])
def test_further_images_of_a_validation_video_stay_out_too(videos, tmp_path, rule, layout):
    """Named with --unlabelled their names begin fallback, and those of a split's folder do so as well."""
    for number in range(9):
        path = tmp_path / "more" / f"v{number}_100.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    train, val = videos.train, None
    if layout != "flat":
        train = [replace(item, name=f"train/{item.name}") for item in train]
    if layout == "val":
        train, val = train[6:], [replace(item, name=f"val/{item.mask.stem}") for item in train[:6]]
    dataset = add_unlabelled(replace(videos, train=train, val=val), [tmp_path / "more"])
    if rule.startswith("^") and layout != "val":
        with pytest.raises(DataError, match="does not match"):
            make_split(dataset, labelled="4", val="0.3", group=rule)
        return
    split = make_split(dataset, labelled="4", val="val" if val else "0.3", group=rule)
    held = {item.image.stem.split("_")[0] for item in split.val}
    learnt = {item.image.stem.split("_")[0] for item in split.all_ if item.prefix}
    assert held and learnt == {f"v{number}" for number in range(9)} - held
    assert "more images of its groups" in "; ".join(split.notes)
