"""A cache gives the pixels of none, whatever happens to the files, to it, and to its folder."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.cache import DiskCache, Entry, MemoryCache


@pytest.fixture
def items(tmp_path):
    made = []
    rng = np.random.default_rng(0)
    (tmp_path / "files").mkdir()
    for number in range(4):
        image, mask = (tmp_path / "files" / f"{kind}{number}.png" for kind in ("im", "ma"))
        Image.fromarray(rng.integers(0, 255, (8, 10, 3), np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 3, (8, 10), np.uint8)).save(mask)
        made.append(Item(image, mask, image.stem))
    return made


def reader(folder=None, limit=10**6, size=(6, 7)):
    return Reader(3, 3, 255, size, cache_bytes=limit, cache_dir=folder)


def assert_same(a, b):
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("disk", [True, False])
def test_pixels_are_those_of_no_cache_first_and_again(items, tmp_path, disk):
    cached, plain = reader(tmp_path / "cache" if disk else None), reader(limit=0)
    for _ in range(2):
        for item in items:
            assert_same(cached.read(item, True), plain.read(item, True))


@pytest.mark.parametrize("disk", [True, False])
def test_a_file_that_changes_is_read_anew(items, tmp_path, disk):
    cached = reader(tmp_path / "cache" if disk else None)
    before = cached.read(items[0], True)
    Image.fromarray(np.full((8, 10, 3), 77, np.uint8)).save(items[0].image)
    os.utime(items[0].image, ns=(1, 1))
    after = cached.read(items[0], True)
    assert (after[0] == 77).all()
    assert torch.equal(before[1], after[1])


def test_another_process_and_a_later_run_need_no_file(items, tmp_path, monkeypatch):
    first = reader(tmp_path / "cache")
    expected = first.read(items[1], True)
    monkeypatch.setattr("fuzzyseg.data.reader.read_image", lambda *a, **k: pytest.fail("decoded again"))
    monkeypatch.setattr("fuzzyseg.data.reader.training_labels", lambda *a, **k: pytest.fail("decoded again"))
    for later in (pickle.loads(pickle.dumps(first)), reader(tmp_path / "cache")):
        assert_same(later.read(items[1], True), expected)
        assert later.original_size(items[1]) == (8, 10)


def test_what_is_read_in_another_way_is_another_entry(items, tmp_path):
    folder = tmp_path / "cache"
    reader(folder).read(items[0], True)
    other = Reader(3, 3, 2, (6, 7), cache_bytes=10**6, cache_dir=folder)
    assert_same(other.read(items[0], True), Reader(3, 3, 2, (6, 7)).read(items[0], True))
    assert_same(reader(folder, size=None).read(items[0], True), reader(limit=0, size=None).read(items[0], True))


def test_writing_into_what_was_read_changes_no_cache(items, tmp_path):
    cached = reader(tmp_path / "cache")
    for _ in range(2):
        image, mask = cached.read(items[0], True)
        image.zero_(), mask.zero_()
    assert_same(cached.read(items[0], True), reader(limit=0).read(items[0], True))


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b[:-3], lambda b: b"", lambda b: b"x" * len(b)])
def test_a_damaged_entry_is_made_anew(items, tmp_path, damage):
    reader(tmp_path / "cache").read(items[0], True)
    files = sorted((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    assert_same(reader(tmp_path / "cache").read(items[0], True), reader(limit=0).read(items[0], True))


def test_the_folder_is_bounded_and_the_longest_unused_goes_first(tmp_path):
    entry = Entry(np.zeros((10, 100), np.uint8), (1, 2))  # some 2,000 bytes with what is reckoned for the header
    cache = DiskCache(tmp_path, 7000)
    for number in range(6):
        cache.put((number,), entry)
    stored = [number for number in range(6) if DiskCache(tmp_path, 7000).get((number,)) is not None]
    assert stored == [0, 1, 2]
    for number, age in zip(stored, (3, 1, 2), strict=True):
        os.utime(cache._path((number,)), (age, age))
    DiskCache(tmp_path, 1500)
    assert [number for number in range(6) if cache._path((number,)).exists()] == [0]


def test_memory_is_bounded_and_the_longest_unused_goes_first():
    cache = MemoryCache(250)
    for number in range(2):
        cache.put((number,), Entry(np.zeros(100, np.uint8), (1, 1)))
    cache.get((0,))
    cache.put((2,), Entry(np.zeros(100, np.uint8), (1, 1)))
    cache.put((3,), Entry(np.zeros(300, np.uint8), (1, 1)))
    assert [number for number in range(4) if cache.get((number,)) is not None] == [0, 2]


def test_a_folder_that_cannot_be_made_and_a_file_that_is_gone_are_named(items, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"taken.*data\.cache_dir"):
        reader(tmp_path / "taken" / "cache")
    items[0].image.unlink()
    with pytest.raises(DataError, match=r"im0\.png"):
        reader(tmp_path / "cache").read(items[0], True)
