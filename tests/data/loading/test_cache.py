"""A cache gives the pixels of none, whatever happens to the files, to it, and to its folder."""

import errno
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.loading import disk_cache as cache
from fuzzyseg.data.loading.disk_cache import DiskCache, Entry
from fuzzyseg.data.loading.reader import MemoryCache, stamp


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
def test_files_that_change_places_are_read_anew_though_time_and_length_are_the_same(tmp_path, disk):
    paths = [tmp_path / f"{name}.bmp" for name in "abc"]
    for value, path in enumerate(paths[:2]):
        Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(path)
        os.utime(path, ns=(10**18, 10**18))  # as unpacked from an archive
    for later in (False, True):
        cached = reader(tmp_path / "cache" if disk else None)
        first, _ = cached.read(Item(paths[0], None, "a"), False)
        for old, new in ((0, 2), (1, 0), (2, 1)):
            paths[old].rename(paths[new])
        cached = reader(tmp_path / "cache") if disk else cached
        second, _ = cached.read(Item(paths[0], None, "a"), False)
        assert (int(first[0, 0, 0]), int(second[0, 0, 0])) == ((1, 0) if later else (0, 1))


def test_a_relative_path_means_the_file_of_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "x.bmp").write_bytes(b"a")
    monkeypatch.chdir(tmp_path)
    assert stamp(Path("x.bmp")) == stamp(tmp_path / "x.bmp")


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
    monkeypatch.setattr("fuzzyseg.data.loading.reader.read_image", lambda *a, **k: pytest.fail("decoded again"))
    monkeypatch.setattr("fuzzyseg.data.loading.reader.training_labels", lambda *a, **k: pytest.fail("decoded again"))
    for later in (pickle.loads(pickle.dumps(first)), reader(tmp_path / "cache")):
        assert_same(later.read(items[1], True), expected)


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
    files = sorted((tmp_path / "cache").glob("*.pixels"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    assert_same(reader(tmp_path / "cache").read(items[0], True), reader(limit=0).read(items[0], True))


def refused(code):
    """What the operating system says instead of opening a file."""

    def opened(*_, **__):
        raise OSError(code, os.strerror(code))

    return opened


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EIO])
def test_an_entry_that_cannot_be_opened_just_now_stays(tmp_path, monkeypatch, code):
    disk, entry = DiskCache(tmp_path, 10**6), Entry(np.full((3, 4), 7, np.uint8), (6, 8))
    disk.put((1,), entry)
    with monkeypatch.context() as patch:
        for owner, name in ((Path, "open"), (os, "open"), (np, "load")):
            patch.setattr(owner, name, refused(code))
        assert disk.get((1,)) is None
    result = DiskCache(tmp_path, 10**6).get((1,))
    assert np.array_equal(result.array, entry.array)
    assert result.original == entry.original


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 1), np.float32), np.arange(4, dtype=np.uint8), np.ones((0, 5), bool)]
)
def test_arrays_come_back_as_they_were(tmp_path, array):
    DiskCache(tmp_path, 2000).put((1,), Entry(array, (5, 6)))
    result = DiskCache(tmp_path, 2000).get((1,))
    assert (result.array.dtype, result.array.shape, result.original) == (array.dtype, array.shape, (5, 6))
    assert np.array_equal(result.array, array)


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".npy", ".pixels", ".part"))


def test_the_folder_is_bounded_and_the_longest_unused_goes_first(tmp_path):
    entry = Entry(np.zeros((10, 100), np.uint8), (1, 2))  # 1,272 bytes with the headers
    disk = DiskCache(tmp_path, 4000)
    for number in range(6):
        disk.put((number,), entry)
    stored = [number for number in range(6) if DiskCache(tmp_path, 4000).get((number,)) is not None]
    assert stored == [0, 1, 2]
    for number, age in zip(stored, (3, 1, 2), strict=True):
        os.utime(disk._path((number,)), (age, age))
    DiskCache(tmp_path, 1500)
    assert [number for number in range(6) if disk._path((number,)).exists()] == [0]


def test_an_entry_that_is_used_is_no_longer_the_longest_unused(tmp_path):
    disk = DiskCache(tmp_path, 10**6)
    for number in range(2):
        disk.put((number,), Entry(np.zeros(1000, np.uint8), (1, 1)))
        os.utime(disk._path((number,)), (number + 1, number + 1))
    disk.get((0,))
    DiskCache(tmp_path, 1500)
    assert [number for number in range(2) if disk._path((number,)).exists()] == [0]


def _store(folder, first):
    disk = DiskCache(folder, 50_000)
    for number in range(first, first + 20):
        disk.put((number,), Entry(np.zeros(4000, np.uint8), (1, 1)))


def test_caches_that_are_open_at_once_keep_one_limit(tmp_path):
    caches = [DiskCache(tmp_path / "one", 50_000) for _ in range(4)]
    for who, disk in enumerate(caches):
        for number in range(20):
            disk.put((who, number), Entry(np.zeros(4000, np.uint8), (1, 1)))
    processes = [multiprocessing.Process(target=_store, args=(tmp_path / "many", 10 * who)) for who in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    for folder in (tmp_path / "one", tmp_path / "many"):
        assert 40_000 < folder_bytes(folder) <= 50_000
        assert not list(folder.glob("*.part"))


def test_what_killed_processes_left_goes_and_files_of_others_stay(tmp_path):
    left = tmp_path / f"{'0a' * 16}.12.34.part"
    for path in (left, tmp_path / "film.part", tmp_path / "scores.npy"):
        path.write_bytes(b"x" * 900)
    disk = DiskCache(tmp_path, 1400)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == ["film.part", "scores.npy"]
    disk.put((1,), Entry(np.zeros(1000, np.uint8), (1, 1)))
    assert disk.get((1,)) is not None


def test_entries_of_another_format_or_decoder_are_others(tmp_path, monkeypatch):
    DiskCache(tmp_path, 2000).put((1,), Entry(np.zeros(4, np.uint8), (1, 1)))
    assert DiskCache(tmp_path, 2000).get((1,)) is not None
    for owner, name in ((cache, "FORMAT"), (cache.PIL, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, "another")
            assert DiskCache(tmp_path, 2000).get((1,)) is None


def test_a_folder_to_be_read_only_and_a_full_disk_stop_nothing(items, tmp_path, monkeypatch):
    """A disk that is to be read only refuses even to remove what is not there."""
    folder, plain = tmp_path / "cache", reader(limit=0)
    reader(folder).read(items[0], True)
    kept = sorted(path.read_bytes() for path in folder.glob("*.pixels"))
    opened = Path.open

    def only_read(path, mode="r", *rest, **named):
        return opened(path, mode, *rest, **named) if mode == "rb" else refused(errno.EROFS)()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", only_read)
        for owner, name in ((Path, "unlink"), (os, "utime"), (os, "replace")):
            patch.setattr(owner, name, refused(errno.EROFS))
        for path in folder.glob("*.pixels"):
            os.chmod(path, 0o444)
        cached = reader(folder, limit=100)
        for item in items[:2]:
            assert_same(cached.read(item, True), plain.read(item, True))
    assert sorted(path.read_bytes() for path in folder.glob("*.pixels")) == kept
    cached = reader(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused(errno.ENOSPC))
        assert_same(cached.read(items[2], True), plain.read(items[2], True))
    assert len(list(folder.glob("*.pixels"))) == 2
    assert not list(folder.glob("*.part"))


def test_a_lock_that_another_process_holds_stops_storing_only(tmp_path):
    disk, entry = DiskCache(tmp_path, 10**6), Entry(np.zeros(4, np.uint8), (1, 1))
    with FileLock(tmp_path / "lock"):
        disk.put((1,), entry)
        start = time.monotonic()
        disk.put((2,), entry)
        assert time.monotonic() - start < 0.5  # it does not wait a second time
    assert disk.get((1,)) is disk.get((2,)) is None
    later = DiskCache(tmp_path, 10**6)
    later.put((1,), entry)
    assert later.get((1,)) is not None


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
