"""TIFF files with several pages: bands, or refused; a thumbnail is no page."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.loading.value_range import header_notes

GREY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
PICTURES = {
    "bits": lambda: Image.fromarray(GREY > 127),
    "palette": lambda: Image.fromarray(GREY // 64).convert("P"),
    "rgb": lambda: Image.fromarray(np.dstack([GREY] * 3)),
}


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("kind", PICTURES)
def test_pages_that_are_no_bands_are_refused(tmp_path, kind, scanned):
    """scanned: the tag says that each directory is a page, and pages differ in size."""
    first, second = PICTURES[kind](), PICTURES[kind]()
    if scanned:
        second = second.crop((0, 0, 14, 9))
        for page in (first, second):
            page.encoderinfo = {}
    info = {254: 2} if scanned else {}
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second], tiffinfo=info)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"a\.tif: has 2 pages; expected one image.*separate file"):
            read(tmp_path / "a.tif")


def test_grey_pages_are_bands_which_is_told_and_no_mask(tmp_path):
    path, stack = tmp_path / "a.tif", np.stack([GREY, GREY + 1, GREY + 2])
    tifffile.imwrite(path, stack, photometric="minisblack")
    np.testing.assert_array_equal(read_image(path), np.moveaxis(stack, 0, -1))
    assert "1 of 1 TIFF images have several pages" in header_notes([Item(path, None, "a")])[0]
    with pytest.raises(DataError, match=r"a\.tif: has 3 pages; expected one"):
        read_mask(path)


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_thumbnail_is_no_image(tmp_path, first, flagged):
    pages = [(np.dstack([GREY] * 3), 0), (np.dstack([GREY] * 3)[::4, ::4], int(flagged))]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for array, kind in reversed(pages) if first else pages:
            file.write(array, photometric="rgb", subfiletype=kind, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pages[0][0])
