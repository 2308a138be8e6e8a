from pathlib import Path

import numpy as np
import pytest

from fuzzyseg.data.check import duplicates
from fuzzyseg.data.check.duplicates import DISTANCE, LIKENESS, exact_duplicates, near_duplicates
from fuzzyseg.data.check.files import FileInfo, inspect_file

SIDES = (("labelled", "unlabelled"), ("val", "test"))


def seen(name, digest=None, number=0, small=None):
    small = np.linspace(-1.5, 1.5, 256) if small is None else small
    small = (small - small.mean()) / small.std()
    return FileInfo(
        Path(name),
        digest=(digest or name).encode(),
        fingerprint=number,
        thumbnail=small.astype(np.float16).tobytes(),
    )


def names(groups):
    return [{name: [str(each.path) for each in members] for name, members in group.members.items()} for group in groups]


def test_equal_pixels_make_a_group_in_whichever_lists():
    lists = {
        "labelled": [seen("a", "1"), seen("b", "2"), seen("c", "3")],
        "unlabelled": [seen("d", "4"), seen("e", "4")],
        "val": [
            seen("f", "1"),
            seen("g", "5"),
            FileInfo(Path("bad"), "bad: is empty"),
            FileInfo(Path("x"), "x: is empty"),
        ],
    }
    groups = exact_duplicates(lists)
    assert names(groups) == [{"labelled": ["a"], "val": ["f"]}, {"unlabelled": ["d", "e"]}]
    assert groups[0].between(("labelled",), ("val", "test"))
    assert not groups[0].between(("unlabelled",), ("val",))
    assert not groups[1].between(("unlabelled",), ("val",))
    assert len(groups[1].images) == 2


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_near_pairs_are_those_of_a_loop_over_all_pairs(block, monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    rng = np.random.default_rng(0)
    bases = [int(n) for n in rng.integers(0, 2**63, 4)]

    def some(prefix, count):
        result = []
        for index in range(count):
            number = bases[index % 4]
            for bit in rng.integers(0, 64, rng.integers(0, 16)):
                number ^= 1 << int(bit)
            small = np.linspace(-1, 1, 256) + rng.normal(0, rng.choice([0.01, 0.6]), 256)
            result.append(seen(f"{prefix}{index}", number=number, small=small))
        return result

    lists = {"labelled": some("l", 7), "unlabelled": some("u", 4), "val": some("v", 6), "test": some("t", 2)}
    links = []
    for a in lists["labelled"] + lists["unlabelled"]:
        for b in lists["val"] + lists["test"]:
            bits = sum((a.fingerprint >> k & 1) != (b.fingerprint >> k & 1) for k in range(64))
            one, two = (np.frombuffer(each.thumbnail, np.float16).astype(np.float64) for each in (a, b))
            if bits <= DISTANCE and np.corrcoef(one, two)[0, 1] >= LIKENESS:
                links.append((str(a.path), str(b.path)))
    assert 3 < len(links) < 60
    expected = []
    for a, b in links:
        touching = [group for group in expected if group & {a, b}]
        expected = [group for group in expected if group not in touching] + [{a, b}.union(*touching)]
    result = [{name for part in group.values() for name in part} for group in names(near_duplicates(lists, *SIDES))]
    assert sorted(map(sorted, result)) == sorted(map(sorted, expected))


def test_one_side_alone_and_equal_images_are_no_near_pairs():
    assert near_duplicates({"labelled": [seen("a"), seen("b")], "val": []}, *SIDES) == []
    assert near_duplicates({"labelled": [seen("a", "1")], "val": [seen("b", "1")]}, *SIDES) == []
    assert len(near_duplicates({"labelled": [seen("a", "1")], "val": [seen("b", "2")]}, *SIDES)) == 1


def test_alike_bits_of_another_picture_are_no_pair():
    """Pictures that are flat but for noise may share their bits."""
    other = np.random.default_rng(1).normal(0, 1, 256)
    assert near_duplicates({"labelled": [seen("a")], "val": [seen("b", small=other)]}, *SIDES) == []


def test_pictures_of_one_colour_are_passed(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 9), np.uint8))
    np.save(tmp_path / "b.npy", np.ones((9, 9), np.uint8))
    images = [inspect_file(tmp_path / name, "image") for name in ("a.npy", "b.npy")]
    assert near_duplicates({"labelled": images[:1], "val": images[1:]}, *SIDES) == []
