import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data.check.files import fingerprint_of, inspect_file


def photo(seed=0, size=(48, 72)):
    """A smooth picture: noise of 6 x 9 cells, enlarged."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def fingerprint(image):
    return fingerprint_of(np.array(image))


def distance(a, b):
    return bin(a ^ b).count("1")


def test_the_fingerprint_is_that_of_its_definition():
    array = np.array(photo(size=(40, 63)))  # cells of 5 x 7 pixels
    grey = 0.299 * array[..., 0] + 0.587 * array[..., 1] + 0.114 * array[..., 2]
    cells = [[grey[5 * y : 5 * y + 5, 7 * x : 7 * x + 7].mean() for x in range(9)] for y in range(8)]
    expected = 0
    for y in range(8):
        for x in range(8):
            if cells[y][x + 1] > cells[y][x]:
                expected += 2 ** (8 * y + x)
    assert fingerprint_of(array)[0] == expected


def test_the_same_picture_stored_otherwise_has_nearly_the_same_fingerprint(tmp_path):
    image = photo()
    number, small = fingerprint(image)
    image.save(tmp_path / "a.jpg", quality=40)
    for other in (
        Image.open(tmp_path / "a.jpg"),
        image.resize((36, 24)),
        image.resize((180, 120)),
        Image.fromarray((np.array(image) * 0.7).astype(np.uint8)),
        image.convert("L").convert("RGB"),
    ):
        again, thumbnail = fingerprint(other)
        assert distance(number, again) <= 6
        values = [np.frombuffer(each, np.float16).astype(float) for each in (small, thumbnail)]
        assert (values[0] * values[1]).mean() > 0.95
    others = [fingerprint(photo(seed))[0] for seed in range(1, 8)]
    assert min(distance(number, other) for other in others) > 12


def test_a_picture_of_one_colour_has_no_fingerprint():
    assert fingerprint_of(np.full((20, 20, 3), 7, np.uint8)) == (None, b"")
    assert fingerprint_of(np.full((20, 20, 1), np.nan)) == (None, b"")


def test_the_digest_is_of_the_pixels(tmp_path):
    photo().save(tmp_path / "a.png", compress_level=1)
    photo().save(tmp_path / "b.bmp")
    a, b = inspect_file(tmp_path / "a.png", "image"), inspect_file(tmp_path / "b.bmp", "image")
    assert a.digest == b.digest
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.bmp").read_bytes()
    array = np.zeros((4, 6, 1), np.uint8)
    for place, each in enumerate((array, array.reshape(6, 4, 1), array.astype(np.uint16), array + 1)):
        np.save(tmp_path / f"{place}.npy", each)
    assert len({inspect_file(tmp_path / f"{place}.npy", "image").digest for place in range(4)}) == 4


@pytest.mark.parametrize(
    ("name", "words", "bands"),
    [
        ("a.png", "8-bit RGB PNG", 3),
        ("grey.jpg", "8-bit grey JPEG", 1),
        ("alpha.png", "8-bit RGBA PNG", 3),
        ("palette.png", "palette PNG", 3),
        ("deep.tif", "16-bit 5-band TIFF", 5),
        ("floats.npy", "float32 2-band NPY", 2),
    ],
)
def test_files_in_words(tmp_path, name, words, bands):
    image, path = photo(), tmp_path / name
    if name == "deep.tif":
        tifffile.imwrite(path, np.zeros((48, 72, 5), np.uint16), photometric="minisblack", planarconfig="contig")
    elif name == "floats.npy":
        np.save(path, np.zeros((48, 72, 2), np.float32))
    else:
        image.convert({"grey.jpg": "L", "alpha.png": "RGBA", "palette.png": "P"}.get(name, "RGB")).save(path)
    seen = inspect_file(path, "image")
    assert (seen.problem, seen.size, seen.words, seen.bands) == (None, (48, 72), words, bands)


def test_what_cannot_be_read_is_told_not_raised(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for name, words in (("empty.png", "is empty"), ("text.png", "is not an image"), ("lost.png", "cannot be read")):
        for kind in ("image", "mask"):
            seen = inspect_file(tmp_path / name, kind)
            assert seen.problem.startswith(f"{tmp_path / name}: ")
            assert words in seen.problem
            assert seen.size is None
