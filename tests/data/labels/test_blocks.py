"""Files above the limit of pixels, row block by row block: what is found is what the whole says."""

import numpy as np
import pytest
import tifffile

from fuzzyseg.data import Item
from fuzzyseg.data.check.files import inspect_file
from fuzzyseg.data.check.labels import mask_statistics
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.raster import open_raster
from fuzzyseg.data.labels import blocks
from fuzzyseg.data.labels.class_counts import class_presence, distinct_values
from fuzzyseg.data.labels.detect import count_colours
from fuzzyseg.data.sample import Encoding

HEIGHT, WIDTH = 1250, 1100
TIFFS = {"tiles": {"tile": (64, 128)}, "strips": {"rowsperstrip": 70}}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 200 * WIDTH)


def smooth(bands=3, dtype=np.uint8):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / (90 + 40 * band)) + np.cos(y / (70 + 30 * band)) for band in range(bands)]
    return (np.stack(waves, 2) * 50 + 120).astype(dtype)


def labels():
    return (smooth(1)[..., 0] // 70).astype(np.uint8)  # 0 to 3


def write(path, array, kind):
    if kind == "numpy":
        path = path.with_suffix(".npy")
        np.save(path, array)
        return path
    colours = "rgb" if array.ndim == 3 and array.shape[2] in (3, 4) else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if array.ndim == 3 and array.shape[2] == 4 else {}
    extra |= {"planarconfig": "contig"} if array.ndim == 3 and array.shape[2] > 1 else {}
    tifffile.imwrite(path, array, photometric=colours, compression="zlib", **extra, **TIFFS[kind])
    return path


@pytest.mark.parametrize("kind", [*TIFFS, "numpy"])
@pytest.mark.parametrize(("bands", "dtype"), [(3, np.uint8), (4, np.uint8), (1, np.uint16), (5, np.float32)])
def test_an_image_is_seen_as_the_whole_is(tmp_path, kind, bands, dtype):
    path = write(tmp_path / "a.tif", smooth(bands, dtype), kind)
    whole = inspect_file(path, "image")
    assert (whole.problem, whole.windows) == (None, False)
    assert whole.fingerprint is not None
    with pixel_limit(1):
        seen = inspect_file(path, "image")
        assert "has 1250 x 1100 pixels" in inspect_file(path, "image", windows=False).problem
    assert seen.windows
    assert {**vars(seen), "windows": False} == vars(whole)


@pytest.mark.parametrize("array", [labels(), labels()[..., None].repeat(3, 2), labels().astype(np.float32)])
def test_a_mask_is_seen_as_the_whole_is(tmp_path, array):
    path = write(tmp_path / "a.tif", array, "tiles")
    whole = inspect_file(path, "mask")
    with pixel_limit(1):
        seen = inspect_file(path, "mask")
    assert whole.problem is None
    assert {**vars(seen), "windows": False} == vars(whole)


def test_row_blocks_are_the_file_and_share_no_tile(tmp_path):
    raster = open_raster(write(tmp_path / "a.tif", smooth(), "tiles"))
    boxes = list(blocks.row_blocks(raster))
    assert [box[0] for box in boxes] == [0, *(box[2] for box in boxes[:-1])]
    assert boxes[-1][2:] == (HEIGHT, WIDTH)
    assert len(boxes) > 2
    assert all(box[0] % 64 == 0 for box in boxes)


@pytest.mark.parametrize("kind", TIFFS)
def test_damage_in_any_part_is_found(tmp_path, kind):
    path = write(tmp_path / "a.tif", smooth(), kind)
    with tifffile.TiffFile(path) as file:
        place, size = file.pages[0].dataoffsets[-2], file.pages[0].databytecounts[-2]
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(bytes(data))
    with pixel_limit(1):
        assert f"{path}: cannot be decoded" in inspect_file(path, "image").problem
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pixel_limit(1):
        assert inspect_file(path, "image").problem is not None


def test_labels_values_and_colours_of_large_masks(tmp_path):
    array = labels()
    array[3, 5], array[700, 9], array[1200:, 2] = 77, 77, 90
    item = Item(tmp_path / "none.png", write(tmp_path / "a.tif", array, "strips"), "a")
    table = np.arange(256 * 3).reshape(256, 3).astype(np.uint8)
    coloured = Item(tmp_path / "none.png", write(tmp_path / "c.tif", table[array], "tiles"), "c")
    encoding = Encoding(colours=tuple((*map(int, table[i]), i) for i in range(4)), text="coloured")
    known = Item(coloured.image, coloured.mask, "c", encoding)

    def everything():
        return (
            [mask_statistics(each, 4, 255) for each in (item, known)],
            list(distinct_values([item])),
            class_presence([item], classes=100, ignore_index=255).tolist(),
            count_colours([coloured]),
        )

    whole = everything()
    with pixel_limit(1):
        assert everything() == whole
    (result, _), *_ = whole
    assert [(each.value, each.pixels, each.row, each.column) for each in result.unmapped] == [
        (90, 50, 1200, 2),
        (77, 2, 3, 5),
    ]
