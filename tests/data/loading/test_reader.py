import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from fuzzyseg.data.loading import reader as reader_module
from fuzzyseg.data.loading.reader import Reader
from fuzzyseg.data.sample import DataError, Item


@pytest.fixture
def items(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for number in range(4):
        image, mask = tmp_path / f"i{number}.png", tmp_path / f"m{number}.png"
        Image.fromarray(rng.integers(0, 256, (12, 20, 3)).astype(np.uint8)).save(image)
        Image.fromarray(rng.choice([0, 1, 2, 7], (12, 20)).astype(np.uint8)).save(mask)
        made.append(Item(image, mask, f"i{number}"))
    return made


def test_reads_shapes_types_and_void(items):
    image, mask = Reader(3, 3, 7).read(items[0], True)
    assert (image.shape, image.dtype) == ((3, 12, 20), torch.uint8)
    assert (mask.shape, mask.dtype) == ((12, 20), torch.uint8)
    stored = np.array(Image.open(items[0].mask))
    np.testing.assert_array_equal(mask.numpy(), np.where(stored == 7, 255, stored))
    np.testing.assert_array_equal(image.numpy(), np.array(Image.open(items[0].image)).transpose(2, 0, 1))
    grey, _ = Reader(1, 3, 7).read(items[0], False)
    np.testing.assert_array_equal(grey[0].numpy(), np.array(Image.open(items[0].image).convert("L")))


def test_resizes_image_bilinearly_and_mask_by_nearest(items):
    for channels, mode in ((3, "RGB"), (1, "L")):
        reader = Reader(channels, 3, 7, image_size=(5, 9))
        image, mask = reader.read(items[0], True)
        expected = np.array(Image.open(items[0].image).convert(mode).resize((9, 5), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image.numpy(), expected.reshape(5, 9, channels).transpose(2, 0, 1))
        assert set(mask.unique().tolist()) <= {0, 1, 2, 255}
        # Nearest neighbour: the pixel at the centre of the target pixel.
        rows = ((np.arange(5) + 0.5) * 12 / 5).astype(int)
        columns = ((np.arange(9) + 0.5) * 20 / 9).astype(int)
        stored = np.array(Image.open(items[0].mask))[rows][:, columns]
        np.testing.assert_array_equal(mask.numpy(), np.where(stored == 7, 255, stored))


def test_mask_file_is_not_opened_unless_asked_for(items):
    items[0].mask.write_bytes(b"damaged")
    reader = Reader(3, 3, 7, cache_bytes=10**6)
    assert reader.read(items[0], False)[1] is None
    with pytest.raises(DataError, match=r"m0\.png"):
        reader.read(items[0], True)
    with pytest.raises(DataError, match=r"i0\.png: has no mask"):
        reader.read(Item(items[0].image, None, "i0"), True)


@pytest.mark.parametrize("cached", [0, 10**6])
def test_size_mismatch_gives_both_sizes(items, cached):
    Image.fromarray(np.zeros((20, 12), np.uint8)).save(items[0].mask)
    reader = Reader(3, 3, 7, image_size=(4, 4), cache_bytes=cached)
    for _ in range(2):
        with pytest.raises(DataError, match=r"m0\.png: is 20x12.*i0\.png is 12x20.*EXIF"):
            reader.read(items[0], True)


@pytest.mark.parametrize("size", [None, (5, 9)])
@pytest.mark.parametrize("limit", [1, 1500, 10**6])
def test_cache_gives_the_pixels_of_no_cache_and_stays_bounded(items, size, limit):
    plain, cached = Reader(3, 3, 7, size), Reader(3, 3, 7, size, cache_bytes=limit)
    for number in (0, 1, 0, 2, 3, 0, 1, 2, 3, 3):
        for with_mask in (False, True):
            for expected, result in zip(
                plain.read(items[number], with_mask), cached.read(items[number], with_mask), strict=True
            ):
                assert (expected is None and result is None) or torch.equal(expected, result)
        held = sum(entry.array.nbytes for entry in cached._cache.entries.values())
        assert held == cached._cache.used <= limit


def test_cache_saves_reading_drops_the_oldest_and_is_not_written_through(items, monkeypatch):
    opened = []

    def counted(path, channels, **_):
        opened.append(path.name)
        return np.zeros((10, 10, channels), np.uint8)

    monkeypatch.setattr(reader_module, "read_image", counted)
    reader = Reader(3, 3, 7, cache_bytes=600)  # two images of 300 bytes
    first, _ = reader.read(items[0], False)
    first.fill_(9)
    assert reader.read(items[0], False)[0].sum() == 0
    reader.read(items[1], False)[0].fill_(9)
    reader.read(items[0], False)
    reader.read(items[2], False)  # drops 1, which was used least recently
    assert reader.read(items[0], False)[0].sum() == 0
    reader.read(items[1], False)
    assert opened == ["i0.png", "i1.png", "i2.png", "i1.png"]


def test_pickled_reader_reads_the_same_and_carries_no_cache(items):
    reader = Reader(3, 3, 7, (5, 9), cache_bytes=10**6)
    image, mask = reader.read(items[0], True)
    data = pickle.dumps(reader)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert copy == reader
    assert not copy._cache.entries
    result = copy.read(items[0], True)
    assert torch.equal(result[0], image)
    assert torch.equal(result[1], mask)


def test_sizes_are_checked_before_training_by_their_headers(tmp_path):
    from fuzzyseg.data.loading.reader import check_sizes

    for name, size in (("image", (6, 8)), ("good", (6, 8)), ("bad", (8, 6))):
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"{name}.png")
    image = tmp_path / "image.png"
    check_sizes([Item(image, tmp_path / "good.png", "a"), Item(image, None, "b")])
    with pytest.raises(DataError, match=r"bad\.png: is 8x6 .* is 6x8"):
        check_sizes([Item(image, tmp_path / "good.png", "a"), Item(image, tmp_path / "bad.png", "c")])
