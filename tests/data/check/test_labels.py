import numpy as np
from PIL import Image

from fuzzyseg.data.check.labels import mask_statistics
from fuzzyseg.data.sample import Encoding, Item

COLOURS = Encoding(colours=((128, 0, 0, 0), (0, 128, 0, 1), (0, 0, 128, 2)), text="three colours")


def item(tmp_path, array, encoding=None):
    Image.fromarray(array).save(tmp_path / "m.png")
    return Item(tmp_path / "i.png", tmp_path / "m.png", "i", encoding)


def test_pixels_are_counted_and_what_means_nothing_is_placed(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    mask[0] = 11
    mask[4, 7:10], mask[3, 29], mask[19, 0] = 77, 9, 77
    result = mask_statistics(item(tmp_path, mask), 3, 11)
    assert result.counts == tuple(sum(int(v == c) for row in mask for v in row) for c in range(3))
    assert result.void == 30
    assert result.unmapped_pixels == 5
    assert result.unmapped_values == 2
    assert [(each.value, each.pixels, each.row, each.column) for each in result.unmapped] == [
        (77, 4, 4, 7),
        (9, 1, 3, 29),
    ]
    assert result.unmapped[0].words() == "77 in 4 pixels, first at row 4, column 7"
    assert not result.all_void


def test_many_values_are_counted_and_the_frequent_ones_listed(tmp_path):
    mask = np.repeat(np.arange(40, 60), 3).reshape(6, 10).astype(np.uint8)
    mask[0, 0] = 59
    result = mask_statistics(item(tmp_path, mask), 3, 255)
    assert (result.unmapped_values, result.unmapped_pixels, len(result.unmapped)) == (20, 60, 5)
    assert (result.unmapped[0].value, result.unmapped[0].pixels) == (59, 4)
    assert (result.unmapped[0].row, result.unmapped[0].column) == (0, 0)


def test_colours_and_the_nearest(tmp_path):
    table = np.array([[128, 0, 0, 255], [0, 128, 0, 255], [0, 0, 128, 255], [0, 0, 0, 0]], np.uint8)
    mask = table[np.random.default_rng(0).integers(0, 4, (8, 8))]
    mask[2, 5] = 3, 120, 0, 255
    result = mask_statistics(item(tmp_path, mask, COLOURS), 3, 255)
    (unmapped,) = result.unmapped
    assert (unmapped.value, unmapped.row, unmapped.column, unmapped.nearest) == ((3, 120, 0), 2, 5, (0, 128, 0))
    assert result.void == int((mask[..., 3] == 0).sum())
    snapped = mask_statistics(item(tmp_path, mask, Encoding(colours=COLOURS.colours, snap=True)), 3, 255)
    assert (snapped.snapped, snapped.unmapped) == (1, ())
    assert snapped.counts == (result.counts[0], result.counts[1] + 1, result.counts[2])


def test_void_alone_and_what_cannot_be_read(tmp_path):
    assert mask_statistics(item(tmp_path, np.full((5, 5), 255, np.uint8)), 3, 255).all_void
    nothing = mask_statistics(item(tmp_path, np.full((5, 5), 9, np.uint8)), 3, 255)
    assert not nothing.all_void
    (tmp_path / "m.png").write_text("text")
    lost = mask_statistics(Item(tmp_path / "i.png", tmp_path / "m.png", "i"), 3, 255)
    assert str(tmp_path / "m.png") in lost.problem
    assert not lost.all_void
