"""Which files are found as images, which are counted, and which never are: in every place that looks for files."""

import os

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.datasets.combine import add_unlabelled
from fuzzyseg.data.io.find import find_images
from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.io.mask import read_mask

PICTURE = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))


def save(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.save(path, **options)
    return path


def names(found):
    return [path.relative_to(found.root).as_posix() for path in found.files]


def tree(root):
    for name in ("a.png", "sub/b.jpg", "sub/deep/c.png"):
        save(root / name)
    for name in ("._a.png", "__MACOSX/._a.png", "__MACOSX/d.png", ".ipynb_checkpoints/a-checkpoint.png"):
        save(root / name, format="PNG")
    (root / "Thumbs.db").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    (root / "sub" / "e.xyz").write_text("x")
    os.mkfifo(root / "pipe.png")
    (root / "sub" / "round").symlink_to(root, target_is_directory=True)
    return root


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("pattern", "expected", "others"),
    [
        ("", ["a.png", "sub/b.jpg", "sub/deep/c.png"], {".txt": 1, ".xyz": 1, "not a regular file": 1}),
        ("*", ["a.png"], {".txt": 1, "not a regular file": 1}),
        ("*.png", ["a.png"], {"not a regular file": 1}),
        ("**/*.png", ["a.png", "sub/deep/c.png"], {"not a regular file": 1}),
        ("**", ["a.png", "sub/b.jpg", "sub/deep/c.png"], {".txt": 1, ".xyz": 1, "not a regular file": 1}),
        ("s?b/[b-c].*", ["b.jpg"], {}),
        ("*/*.xyz", [], {".xyz": 1}),
        ("sub/**/deep/*", ["deep/c.png"], {}),
    ],
)
def test_folders_and_patterns(tmp_path, pattern, expected, others):
    result = find_images(tree(tmp_path / "in") / pattern)
    shown = {path.relative_to(tmp_path / "in").as_posix() for path in result.files}
    assert {path.split("/")[-1] for path in shown} == {path.split("/")[-1] for path in expected}
    assert dict(result.others) == others


@pytest.mark.timeout(20)
def test_more_images_say_what_they_leave_out(tmp_path):
    save(tmp_path / "data" / "images" / "a.png")
    (tmp_path / "data" / "masks").mkdir()
    Image.fromarray(np.array([[0, 1, 2]] * 4, np.uint8).repeat(2, 1)).save(tmp_path / "data" / "masks" / "a.png")
    dataset = read_dataset(tmp_path / "data")
    for source in (tree(tmp_path / "new"), tmp_path / "new" / "**" / "*"):
        result = add_unlabelled(dataset, [source])
        assert len(result.train) == 1 + 3
        assert any("not read as images: 1 .txt, 1 .xyz, 1 not a regular file" in note for note in result.notes)
    with pytest.raises(DataError, match=r"contains no image; not read: 1 \.xyz"):
        add_unlabelled(dataset, [tmp_path / "new" / "sub" / "*.xyz"])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.mat"])
def test_a_pipe_is_an_error_wherever_it_is_named(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for read in (read_header, read_image, read_mask):
        with pytest.raises(DataError, match=r"not a regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jfif", "JPEG"), ("a.gif", "GIF"), ("a.jp2", "JPEG2000"), ("a.png ", "PNG")]
)
def test_further_suffixes(tmp_path, name, kind):
    path = save(tmp_path / name, format=kind)
    assert names(find_images(tmp_path)) == [name]
    np.testing.assert_array_equal(read_image(path), np.array(Image.open(path).convert("RGB")))
    assert read_header(path).size == (4, 6)


def test_of_an_animation_the_first_frame_counts_and_a_gif_mask_keeps_its_indices(tmp_path):
    index = np.array([[0, 1, 2, 2]] * 3, np.uint8)
    frames = [Image.fromarray(part) for part in (index, 2 - index)]
    for frame in frames:
        frame.putpalette([10, 0, 0, 0, 20, 0, 0, 0, 30])
    frames[0].save(tmp_path / "m.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.gif"), index)
    np.testing.assert_array_equal(read_image(tmp_path / "m.gif")[0, 1], [0, 20, 0])


def test_a_mask_of_jpeg_2000_is_refused(tmp_path):
    with pytest.raises(DataError, match="JPEG2000, which changes the class indices"):
        read_mask(save(tmp_path / "m.jp2"))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".jpg"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "failed download"),
        (b"", "is empty"),
    ],
)
def test_what_stands_in_place_of_a_file_is_told(tmp_path, suffix, content, reason):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=reason):
            read(path)
