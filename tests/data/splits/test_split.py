import hashlib
import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzzyseg.data import DataError, Item, read_dataset
from fuzzyseg.data.datasets.tables import quoted
from fuzzyseg.data.labels import decode as labels_module
from fuzzyseg.data.labels.class_counts import class_presence
from fuzzyseg.data.splits.holdout import hold_out
from fuzzyseg.data.splits.spec import parse_amount, read_list
from fuzzyseg.data.splits.split import labelled_order, make_split
from fuzzyseg.data.splits.stratify import shuffled
from fuzzyseg.run.files import write_text


def put(path, values=((0, 1), (1, 2))):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def make(root, labelled=30, free=5, val=0, kinds=4):
    """A folder data set: image n holds class 0 and class n % kinds; free ones come last and have no mask."""
    for number in range(labelled + free):
        put(root / "images/train" / f"im{number:03d}.png")
        if number < labelled:
            put(root / "masks/train" / f"im{number:03d}.png", [[0, number % kinds]])
    for number in range(val):
        put(root / "images/val" / f"im{number:03d}.png")
        put(root / "masks/val" / f"im{number:03d}.png")
    return read_dataset(root, classes=[f"c{i}" for i in range(kinds)])


def names(items):
    return [item.name for item in items]


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("46", 367, 46), ("1", 10, 1), ("10", 10, 10), ("1/8", 367, 46), ("1/16", 367, 23), ("1/32", 367, 11),
        ("1/2", 5, 3), ("1/2", 7, 4), ("0.5", 5, 3), ("0.2", 12, 2), ("1/100", 10, 1), ("1/1", 10, 10), ("1.0", 10, 10),
        (" 1/4 ", 8, 2),
    ],
)  # fmt: skip
def test_amounts_are_counts_or_fractions_rounded_to_the_nearest(text, count, expected):
    assert parse_amount(text, count) == expected


@pytest.mark.parametrize("text", ["0", "-3", "11", "1/0", "0.0", "-1/2", "5/4", "1.5"])
def test_amounts_out_of_reach_say_what_was_found(text):
    with pytest.raises(DataError, match=rf"found {text} .*expected a count from 1 to 10, a fraction"):
        parse_amount(text, 10)


def items_of(count):
    return [Item(f"{i}.png", f"{i}.png", f"im{i}") for i in range(count)]


def literal_order(items, present, seed):
    """The rule as written in the issue, one image at a time."""
    digest = {i: hashlib.sha256(f"labelled|{seed}|{items[i].name}".encode()).digest() for i in range(len(items))}
    shuffle = sorted(digest, key=digest.get)
    rarity = [sum(bool(row[c]) for row in present) for c in range(len(present[0]))]
    order, covered = [], set()
    while True:
        missing = [c for c in range(len(rarity)) if rarity[c] > 0 and c not in covered]
        if not missing:
            break
        least = min(rarity[c] for c in missing)
        pick = None
        for i in shuffle:
            if i not in order and any(present[i][c] for c in missing if rarity[c] == least):
                pick = i
                break
        order.append(pick)
        covered |= {c for c in range(len(rarity)) if present[pick][c]}
    return order + [i for i in shuffle if i not in order]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 25), classes=st.integers(1, 8), density=st.floats(0, 1))
def test_order_equals_the_literal_rule(seed, count, classes, density):
    present = np.random.default_rng(seed).random((count, classes)) < density
    items = items_of(count)
    order = labelled_order(items, present, seed)
    assert order == literal_order(items, present.tolist(), seed)
    assert sorted(order) == list(range(count))
    assert labelled_order(items, None, seed) == shuffled(items, seed, "labelled")


def test_cover_takes_the_rarest_first_and_needs_few_images():
    present = np.zeros((50, 5), bool)
    present[:, 0] = True
    present[[7, 9], 1] = True
    present[33, 2] = True  # the rarest
    present[[9, 20, 21], 3] = True
    for seed in range(5):
        order = labelled_order(items_of(50), present, seed)
        assert order[0] == 33
        assert order[1] in (7, 9)
        needed = 2 if order[1] == 9 else 3
        assert present[order[:needed]].any(0).tolist() == [True, True, True, True, False]
    assert len({tuple(labelled_order(items_of(50), present, seed)) for seed in range(5)}) == 5


def test_subsets_are_nested_and_follow_from_the_seed_not_from_file_order(tmp_path):
    data = make(tmp_path)
    for policy in ("cover", "random"):
        sets = [names(make_split(data, labelled=str(n), seed=3, policy=policy).labelled) for n in range(1, 25)]
        for small, large in itertools.pairwise(sets):
            assert large[: len(small)] == small
    first = make_split(data, labelled="8", seed=3)
    random.Random(0).shuffle(data.train)
    again = make_split(data, labelled="8", seed=3)
    assert names(again.labelled) == names(first.labelled)
    assert names(again.val) == names(first.val)
    assert again.hash == first.hash
    assert make_split(data, labelled="8", seed=4).hash != first.hash


@pytest.mark.parametrize("val", [None, "0.3", "4", "list", "none"])
@pytest.mark.parametrize("labelled", [None, "6", "1/3", "list"])
@pytest.mark.parametrize("unlabelled", ["rest", "all"])
def test_no_image_leaks_and_no_unlabelled_item_has_a_mask(tmp_path, val, labelled, unlabelled):
    data = make(tmp_path, labelled=20, free=4)
    (tmp_path / "val.txt").write_text("im000\nim001.png\nimages/train/im002.png\n")
    (tmp_path / "labelled.txt").write_text("im010\nim011\n")
    split = make_split(
        data,
        labelled=str(tmp_path / "labelled.txt") if labelled == "list" else labelled,
        val=str(tmp_path / "val.txt") if val == "list" else val,
        unlabelled=unlabelled,
        seed=1,
    )
    chosen, free, everything, kept = (set(names(x)) for x in (split.labelled, split.unlabelled, split.all_, split.val))
    assert not kept & everything
    assert chosen <= everything
    assert everything | kept == set(names(data.train))
    assert free == (everything if unlabelled == "all" else everything - chosen)
    assert all(item.mask is None for item in split.unlabelled)
    assert all((item.mask is not None) == (item.name in chosen) for item in split.all_)
    assert all(item.mask is not None for item in split.labelled + split.val)
    assert split.held_out == (val != "none")
    expected = {None: 4, "0.3": 6, "4": 4, "list": 3, "none": 0}[val]
    assert len(kept) == expected
    if labelled == "1/3":
        assert len(chosen) == int((20 - expected) / 3 + 0.5)
    if labelled is None:
        assert len(chosen) == 20 - expected


def test_held_out_images_do_not_depend_on_how_many_are_labelled(tmp_path):
    data = make(tmp_path)
    kept = {
        tuple(names(make_split(data, labelled=n, policy=p).val))
        for n in ("3", "1/2", None)
        for p in ("cover", "random")
    }
    assert len(kept) == 1
    assert len(next(iter(kept))) == 6
    assert any("no val folder" in sentence and "held out" in sentence for sentence in make_split(data).notes)


def test_val_folder_is_used_and_can_be_overridden(tmp_path):
    data = make(tmp_path, val=3)
    split = make_split(data, labelled="5")
    assert names(split.val) == ["val/im000", "val/im001", "val/im002"]
    assert (split.held_out, split.choose_best, len(split.all_)) == (False, True, 35)
    assert names(make_split(data, val="val").val) == names(split.val)
    assert len(make_split(data, val="0.1").val) == 3
    assert make_split(data, val="0.1").held_out
    assert (make_split(data, val="none").val, make_split(data, val="none").choose_best) == ([], False)
    (tmp_path / "list.txt").write_text("val/im001\n")
    split = make_split(data, val=str(tmp_path / "list.txt"))
    assert (names(split.val), split.held_out) == (["val/im001"], False)
    with pytest.raises(DataError, match=r"found 'test'.*expected a fraction.*val, none"):
        make_split(data, val="test")


def test_test_folder_may_validate(tmp_path):
    make(tmp_path)
    put(tmp_path / "images/test/t.png")
    put(tmp_path / "masks/test/t.png")
    data = read_dataset(tmp_path)
    assert names(make_split(data, val="test").val) == ["test/t"]
    assert names(make_split(data).test) == ["test/t"]


def test_val_folder_without_masks_is_not_validated_on(tmp_path):
    data = make(tmp_path, val=2)
    for path in (tmp_path / "masks/val").iterdir():
        path.unlink()
    data = read_dataset(tmp_path)
    split = make_split(data)
    assert split.held_out
    assert not {name for name in names(split.all_) if name.startswith("val")}
    with pytest.raises(DataError, match="val folder has no image with a mask"):
        make_split(data, val="val")


@pytest.mark.parametrize(("count", "best"), [(11, False), (12, True)])  # two of them are held out
def test_no_best_checkpoint_from_a_handful(tmp_path, count, best):
    split = make_split(make(tmp_path, labelled=count))
    assert split.choose_best is best
    assert any("no best checkpoint" in sentence for sentence in split.notes) is not best


def test_few_labelled_of_many_choose_no_best_either(tmp_path):
    data = make(tmp_path)
    assert not make_split(data, labelled="9").choose_best
    assert make_split(data, labelled="10").choose_best


def test_classes_that_cannot_be_covered_are_listed(tmp_path):
    data = make(tmp_path, labelled=30, kinds=4)
    data.classes.append("nowhere")
    split = make_split(data, labelled="1", val="none")
    assert set(split.uncovered) < {"c1", "c2", "c3", "nowhere"}
    assert len(split.uncovered) == 3
    assert "nowhere" in split.uncovered
    assert any("in none of the 30 masks: nowhere" in sentence for sentence in split.notes)
    assert make_split(data, labelled="8", val="none").uncovered == ["nowhere"]


def test_random_policy_reads_no_mask_and_cover_reads_each_once(tmp_path, monkeypatch):
    data = make(tmp_path)
    read = []
    real = labels_module.read_mask
    monkeypatch.setattr(labels_module, "read_mask", lambda path, **how: (read.append(path), real(path, **how))[1])
    split = make_split(data, labelled="4", policy="random")
    assert (read, split.uncovered, split.policy) == ([], [], "random")
    make_split(data, labelled="4", policy="cover")
    assert len(read) == len(set(read)) == 30  # the 6 that are held out too, so that they hold the classes


def test_presence_ignores_void_and_names_bad_files(tmp_path):
    put(tmp_path / "a.png", [[0, 2, 255]])
    put(tmp_path / "b.png", [[1, 3, 3]])
    items = [Item(tmp_path / name, tmp_path / name, name) for name in ("a.png", "b.png")]
    result = class_presence(items, classes=3, ignore_index=3)
    assert result.tolist() == [[True, False, True], [False, True, False]]
    with pytest.raises(DataError, match=r"b\.png: found the values 3"):
        class_presence(items, classes=3, ignore_index=255)


def test_list_files_take_names_stems_paths_and_comments(tmp_path):
    data = make(tmp_path)
    path = tmp_path / "list.txt"
    path.write_text(
        "# chosen by hand\n\ntrain/im003\nim004\nim005.png\nimages/train/im006.png\nim004\n"
        f"{tmp_path / 'images/train/im007.png'}\n"
    )
    split = make_split(data, labelled=str(path))
    assert names(split.labelled) == [f"train/im00{i}" for i in range(3, 8)]
    assert split.policy == "list"
    assert len(split.val) == 6  # still a fifth of all images with masks
    path.write_text("im003\nim0044\n")
    with pytest.raises(DataError, match=r"list\.txt, line 2: found no image 'im0044'.*mean"):
        make_split(data, labelled=str(path))
    path.write_text("im031\n")
    with pytest.raises(DataError, match=r"list\.txt: lists 1 images without a mask: train/im031"):
        make_split(data, labelled=str(path))
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match=r"list\.txt: lists no image"):
        make_split(data, labelled=str(path))
    with pytest.raises(DataError, match=r"absent\.txt: cannot be read"):
        make_split(data, labelled=str(tmp_path / "absent.txt"))


def test_a_stem_that_fits_two_images_is_an_error(tmp_path):
    for folder in ("day", "night"):
        put(tmp_path / "images" / folder / "a.png")
        put(tmp_path / "masks" / folder / "a.png")
    (tmp_path / "list.txt").write_text("a\n")
    with pytest.raises(DataError, match="'a' matches day/a, night/a"):
        make_split(read_dataset(tmp_path), labelled=str(tmp_path / "list.txt"), val="none")


def test_an_image_in_both_lists_is_an_error(tmp_path):
    data = make(tmp_path)
    (tmp_path / "list.txt").write_text("im003\nim004\n")
    with pytest.raises(DataError, match="train/im003, train/im004: listed as labelled and as validation"):
        make_split(data, labelled=str(tmp_path / "list.txt"), val=str(tmp_path / "list.txt"))


def test_impossible_wishes_say_why(tmp_path):
    data = make(tmp_path, labelled=5, free=2)
    with pytest.raises(DataError, match="found 6 of 5 training images with masks"):
        make_split(data, labelled="6")
    with pytest.raises(DataError, match="--labelled: found 5 of 4 images with masks not for validation"):
        make_split(data, labelled="5")
    with pytest.raises(DataError, match="found 0 of 5"):
        make_split(data, labelled="0")
    with pytest.raises(DataError, match="5 validation images cannot be held out of 5"):
        make_split(data, val="5")
    (tmp_path / "list.txt").write_text("\n".join(f"im00{i}" for i in range(5)))
    with pytest.raises(DataError, match=r"cannot be held out of 5 .* 5 of them listed as labelled.*--val none"):
        make_split(data, labelled=str(tmp_path / "list.txt"))
    with pytest.raises(DataError, match="validation takes all 5"):
        make_split(data, val=str(tmp_path / "list.txt"))
    with pytest.raises(DataError, match="1 validation images cannot be held out of 1"):
        make_split(make(tmp_path / "one", labelled=1))
    put(tmp_path / "bare/images/x.png")
    with pytest.raises(DataError, match="none of 1 training images has a mask"):
        make_split(read_dataset(tmp_path / "bare", classes=["a", "b"]))


def test_holding_back_takes_the_last_labelled_images_and_their_masks(tmp_path):
    data = make(tmp_path)
    for unlabelled in ("rest", "all"):
        split = make_split(data, labelled="12", seed=5, unlabelled=unlabelled)
        left, held = hold_out(split, data, 3)
        assert held == split.labelled[-3:]
        assert all(item.mask is not None for item in held)
        assert left.labelled == split.labelled[:-3]
        assert set(names(left.unlabelled)) == {*names(split.unlabelled), *names(held)}
        assert len(left.unlabelled) == len(set(names(left.unlabelled)))
        assert all(item.mask is None for item in left.unlabelled)  # promise 2 holds for them too
        masked = [item for item in left.all_ if item.mask is not None]
        assert set(names(masked)) == set(names(left.labelled))
        assert (left.val, left.uncovered) == (split.val, [])
        assert left.hash != split.hash
        assert "3 of the 12 labelled images are held out and used without masks" in left.notes


def test_holding_back_takes_whole_groups(tmp_path):
    data = make(tmp_path)
    split = make_split(data, labelled="12", seed=5)
    group = r"im(\d\d)"
    assert len({item.name[-3:-1] for item in split.labelled}) == 3
    for count in (1, 5, 11):
        left, held = hold_out(split, data, count, group)
        tens = [{item.name[-3:-1] for item in part} for part in (held, left.labelled)]
        assert tens[0] and tens[1] and not tens[0] & tens[1]
        assert len(held) >= count or len(tens[1]) == 1
        assert sorted(names(held) + names(left.labelled)) == sorted(names(split.labelled))
        assert all(item.mask is not None for item in [*held, *left.labelled])
    with pytest.raises(DataError, match=r"3 of 12 labelled images cannot .* one training group \(\^\)"):
        hold_out(split, data, 3, "^")


def test_classes_lost_by_holding_back_are_named(tmp_path):
    data = make(tmp_path)
    split = make_split(data, labelled="3", seed=5)
    lost = {"c1", "c2", "c3"} - set(split.uncovered)
    assert lost
    left, _ = hold_out(split, data, 2)
    assert "c0" not in left.uncovered
    assert len(left.uncovered) == 2  # one image holds class 0 and one other
    assert left.notes[-1].startswith("in no labelled training image: c")
    blind, _ = hold_out(make_split(data, labelled="3", seed=5, policy="random"), data, 2)
    assert not any("in no labelled" in sentence for sentence in blind.notes)
    for count in (0, 3):
        with pytest.raises(DataError, match=f"{count} of 3 labelled images cannot be held out"):
            hold_out(split, data, count)


def test_record_is_json_and_its_hash_is_of_the_lists(tmp_path):
    split = make_split(make(tmp_path), labelled="1/3", seed=5)
    record = json.loads(json.dumps(split.record()))
    assert record["labelled"] == names(split.labelled)
    assert (record["seed"], record["policy"], record["held_out"], record["uncovered"]) == (5, "cover", True, [])
    lists = {part: sorted(record[part]) for part in ("labelled", "unlabelled", "val", "test")}
    assert record["hash"] == hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()[:16]


def test_camvid_subsets_cover_all_classes(shared):
    data = read_dataset(shared / "data" / "camvid")
    small, large = (make_split(data, labelled=part, seed=0) for part in ("1/32", "1/16"))
    assert (len(small.labelled), len(small.unlabelled), len(large.labelled), len(small.val)) == (11, 356, 23, 101)
    assert names(large.labelled)[:11] == names(small.labelled)
    assert small.uncovered == []
    assert class_presence(small.labelled, classes=11, ignore_index=11).any(0).all()


def test_a_listed_image_of_validation_is_called_that(tmp_path):
    make(tmp_path / "data", val=2)
    data = read_dataset(tmp_path / "data")
    path = tmp_path / "l.txt"
    held = data.val[0].name
    path.write_text(f"{data.train[0].name}\n{held}\n")
    with pytest.raises(DataError, match=rf"line 2: '{held}' is a validation or test image, not a training image"):
        make_split(data, labelled=str(path))


def test_a_published_line_may_have_the_full_stem_of_a_shortened_name(tmp_path):
    image = tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    item = Item(image, image, "ulm/ulm_000000_000019")
    path = tmp_path / "l.txt"
    path.write_text("/images/train/ulm_000000_000019_leftImg8bit.png\t/segmentation/train/ulm.png\n")
    assert read_list(path, [item], tmp_path) == [item]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line", ["images\\train\\b.png", "train\\b", r"C:\data\images\train\b.png", "b é"])
def test_lists_as_windows_writes_them(tmp_path, encoding, line):
    image = tmp_path / "images" / "train" / ("b é.png" if "é" in line else "b.png")
    items = [Item(image, None, f"train/{image.stem}"), Item(tmp_path / "images/c.png", None, "c")]
    (tmp_path / "list.txt").write_bytes(f"{line}\r\nc\r\n".encode(encoding))
    assert read_list(tmp_path / "list.txt", items, tmp_path) == items


NAMES = [
    "# a",
    "a #b",
    " a",
    "a ",
    "a\nb",
    "a\u2028b",
    '"a"',
    '"',
    "a\tb",
    "a\\b",
    "x.png y.png",
    "\udcff",
    "a\x85",
    "é",
]


def test_lists_are_read_back_whatever_the_names_are(tmp_path):
    items = [Item(tmp_path / f"{name}.png", None, name) for name in NAMES]
    write_text(tmp_path / "list.txt", "# head\n" + "".join(f"{quoted(item.name)}\n" for item in items))
    assert read_list(tmp_path / "list.txt", items, tmp_path) == items
    assert len(set(shuffled(items, 0, "labelled"))) == len(items)


def test_usual_names_are_listed_as_they_are():
    for name in ("train/im01", "cat 3", "scan_2024-01", "größe", "a#b", "a #1"):
        assert quoted(name) == name


def test_images_that_were_held_out_before_are_held_out_again(tmp_path):
    data = make(tmp_path, labelled=8)
    split = make_split(data, val="none")
    first = [item.name for item in split.labelled[:2]]
    kept, held = hold_out(split, data, 3, names=first)
    assert [item.name for item in held] == first
    assert [item.name for item in kept.labelled] == [item.name for item in split.labelled[2:]]
    assert [item.name for item in hold_out(split, data, 3)[1]] == [item.name for item in split.labelled[-3:]]


def test_a_comment_begins_a_line_or_follows_two_blanks(tmp_path):
    items = [Item(tmp_path / f"{name}.png", None, name) for name in ("a", "a #1", "a #2", "b # c")]
    (tmp_path / "list.txt").write_text("  # a comment\na #1.png  # why\na #2\nb # c\t# d\n")
    assert read_list(tmp_path / "list.txt", items, tmp_path) == items[1:]
    (tmp_path / "list.txt").write_text("a # why\n")
    with pytest.raises(DataError, match=r"line 1: found no image 'a # why'.*a comment starts a line"):
        read_list(tmp_path / "list.txt", items, tmp_path)


@pytest.mark.parametrize("unlabelled", ["rest", "all"])
def test_partly_labelled_images_are_unlabelled_images_too(tmp_path, unlabelled):
    data = make(tmp_path, labelled=6, free=2)
    put(tmp_path / "masks/train/im003.png", [[255, 1], [1, 0]])
    options = {"val": "none", "unlabelled": unlabelled}
    before, after = make_split(data, **options), make_split(data, void="unlabelled", **options)
    assert names(after.labelled) == names(before.labelled)
    assert set(names(after.unlabelled)) - set(names(before.unlabelled)) == (
        {"train/im003"} if unlabelled == "rest" else set()
    )
    assert len(after.unlabelled) == len(set(names(after.unlabelled)))
    assert all(item.mask is None for item in after.unlabelled)
