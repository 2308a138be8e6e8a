"""A data set of which every file has something wrong, one thing each, and others that are in order."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.config import ConfigError, validate
from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.check.files import inspect_file
from fuzzyseg.data.datasets.read import locate
from fuzzyseg.experiment import check_files
from fuzzyseg.experiment.check_data import _Check, check
from fuzzyseg.experiment.check_files import Examiner
from fuzzyseg.experiment.prepare_data import split_for
from support.tiny_data import write_folder


def checked(root, *, seed=0, channels=3, **data):
    return check(
        validate({"data": {"root": str(root), **data}, "seed": seed, "network": {"channels": channels}}), workers=2
    )


def kinds(report):
    return {finding.kind: finding for finding in report.findings}


def files(finding):
    return sorted(detail["file"].rpartition("/")[2] for detail in finding.details)


def smooth(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """16 training images, 12 with masks, 3 for validation; smooth ones, so that fingerprints tell them apart."""
    root = write_folder(tmp_path / "data", size=(48, 64))
    for number, path in enumerate(sorted((root / "images").rglob("*.png"))):
        smooth(number).save(path)
    return root


def test_a_data_set_in_order(folder):
    report = checked(folder)
    assert report.findings == []
    assert report.lists == {"labelled": (12, 12), "unlabelled": (4, 0), "val": (3, 3)}
    assert dict(report.images) == {"8-bit RGB PNG": 19}
    assert dict(report.masks) == {"8-bit grey PNG": 15}
    assert dict(report.sizes) == {(48, 64): 19}
    for side, pixels, images in (("train", "pixels", "images"), ("val", "held_pixels", "held_images")):
        masks = [np.array(Image.open(path)) for path in (folder / "masks" / side).glob("*.png")]
        for place, each in enumerate(report.classes):
            assert getattr(each, pixels) == sum(int((mask == place).sum()) for mask in masks)
            assert getattr(each, images) == sum(bool((mask == place).any()) for mask in masks)
    assert [each.name for each in report.classes] == ["low", "middle", "high"]
    assert report.void == 12 * 2 * 64
    assert "index masks (8-bit PNG)" in report.notes


@pytest.fixture
def wrong(folder):
    images, masks = folder / "images" / "train", folder / "masks" / "train"
    (images / "im00.png").write_bytes((images / "im00.png").read_bytes()[:-400])
    (masks / "im01.png").write_text("text")
    Image.open(masks / "im02.png").transpose(Image.Transpose.ROTATE_90).save(masks / "im02.png")
    mask = np.array(Image.open(masks / "im03.png"))
    mask[5, 7], mask[40, 9] = 9, 9
    Image.fromarray(mask).save(masks / "im03.png")
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(masks / "im04.png")
    shutil.copy(masks / "im05.png", masks / "im055.png")
    for name, source in (("copy.bmp", "im06"), ("near.jpg", "im07"), ("alone.png", "im15")):
        Image.open(images / f"{source}.png").save(folder / "images" / "val" / name)
        shutil.copy(masks / "im08.png", (folder / "masks" / "val" / name).with_suffix(".png"))
    smooth(99).save(folder / "images" / "val" / "bare.png")
    shutil.copy(images / "im09.png", images / "im99.png")
    smooth(98).convert("RGBA").convert("CMYK").save(images / "print.jpg")
    (images / "im14.png").write_bytes(b"")
    return folder


def test_each_fault_is_found_and_named_and_nothing_is_changed(wrong):
    def state():
        return {
            path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in sorted(wrong.rglob("*"))
            if path.is_file()
        }

    before = state()
    report = checked(wrong)
    assert state() == before
    result = kinds(report)
    assert {kind for kind, each in result.items() if each.level == "error"} == {
        "unreadable", "orphaned", "size", "values", "leakage",
    }  # fmt: skip
    assert {kind for kind, each in result.items() if each.level == "warning"} == {
        "missing", "all_void", "near_leakage", "unlabelled_leakage", "duplicate",
    }  # fmt: skip
    assert (report.errors, report.warnings) == (5, 5)
    assert [each.level for each in report.findings] == ["error"] * 5 + ["warning"] * 5
    assert files(result["unreadable"]) == ["im00.png", "im01.png", "im14.png"]
    assert files(result["orphaned"]) == ["im055.png"]
    assert "mean 'im05'" in result["orphaned"].details[0]["text"]
    assert files(result["size"]) == ["im02.png"]
    assert "sides are swapped" in result["size"].advice
    assert files(result["values"]) == ["im03.png"]
    assert result["values"].details[0]["values"] == [{"value": 9, "pixels": 2, "row": 5, "column": 7}]
    assert files(result["all_void"]) == ["im04.png"]
    assert files(result["missing"]) == ["bare.png"]
    groups = {kind: [detail["files"] for detail in result[kind].details] for kind in result if "leak" in kind}
    names = {
        kind: [{part: [path.rpartition("/")[2] for path in paths] for part, paths in each.items()} for each in result]
        for kind, result in groups.items()
    }
    assert names["leakage"] == [{"labelled": ["im06.png"], "val": ["copy.bmp"]}]
    assert names["near_leakage"] == [{"labelled": ["im07.png"], "val": ["near.jpg"]}]
    assert names["unlabelled_leakage"] == [{"unlabelled": ["im15.png"], "val": ["alone.png"]}]
    assert all(each.advice for each in report.findings)
    assert report.lists["labelled"] == (9, 9)


def test_bands_that_the_network_does_not_take(folder):
    np.save(folder / "images" / "train" / "im16.npy", np.zeros((48, 64, 5), np.uint8))
    result = kinds(checked(folder))
    assert result["bands"].level == "error"
    assert files(result["bands"]) == ["im16.npy"]
    assert "network.channels=5" in result["bands"].advice
    assert "bands" not in kinds(checked(folder, bands=[1, 2, 3]))
    assert len(kinds(checked(folder, channels=5))["bands"].details) == 19


@pytest.mark.skipif(sys.platform != "linux", reason="what is put in place of a decoder must be inherited by a fork")
def test_a_file_that_a_decoder_dies_of_is_named_and_the_others_are_read(folder, monkeypatch):
    def deadly(path, kind, **options):
        if path.name == "im03.png" and kind == "mask":
            os.kill(os.getpid(), signal.SIGKILL)
        return inspect_file(path, kind, **options)

    monkeypatch.setattr(check_files, "inspect_file", deadly)
    report = checked(folder)
    (finding,) = report.findings
    assert finding.kind == "unreadable"
    assert files(finding) == ["im03.png"]
    assert "died of SIGKILL" in finding.details[0]["text"]
    assert report.lists["labelled"] == (11, 11)


def test_rare_and_absent_classes(folder):
    (folder / "dataset.yaml").write_text("classes: [low, middle, high, rare, only_val, never]\n")
    for path, places in (("train/im00.png", 3), ("val/im16.png", 4)):
        mask = np.array(Image.open(folder / "masks" / path))
        mask[10, 10:13] = places
        Image.fromarray(mask).save(folder / "masks" / path)
    result = kinds(checked(folder))
    assert [detail["class"] for detail in result["rare_class"].details] == ["rare"]
    assert (result["rare_class"].details[0]["pixels"], result["rare_class"].details[0]["images"]) == (3, 1)
    texts = [detail["text"] for detail in result["absent_class"].details]
    assert texts == [
        "only_val (4): in no training mask, but in 1 mask of validation or test",
        "never (5): in no training mask",
    ]


def test_colours_that_no_class_has_and_snap(folder):
    table = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 128]], np.uint8)
    for path in (folder / "masks").rglob("*.png"):
        mask = np.array(Image.open(path))
        mask[mask == 255] = 0
        Image.fromarray(table[mask]).save(path)
    broken = np.array(Image.open(folder / "masks" / "train" / "im02.png"))
    broken[20, 30] = 100, 5, 5
    Image.fromarray(broken).save(folder / "masks" / "train" / "im02.png")
    (folder / "dataset.yaml").write_text("colours: {low: [128, 0, 0], middle: [0, 128, 0], high: [0, 0, 128]}\n")
    report = checked(folder)
    (finding,) = report.findings
    assert (finding.kind, files(finding)) == ("values", ["im02.png"])
    assert finding.details[0]["values"] == [{"value": (100, 5, 5), "pixels": 1, "row": 20, "column": 30}]
    assert "nearest (128, 0, 0)" in finding.details[0]["text"]
    assert "--snap" in finding.advice
    assert any("colour-coded, 3 colours, from dataset.yaml" in sentence for sentence in report.notes)
    snapped = checked(folder, snap=True)
    assert snapped.findings == []
    assert any("--snap: 1 pixels" in sentence for sentence in snapped.notes)


def test_masks_that_cannot_be_understood_leave_the_rest_of_the_report(folder):
    (folder / "dataset.yaml").unlink()
    for number, path in enumerate(sorted((folder / "masks" / "train").glob("*.png"))):
        Image.fromarray(np.full((48, 64), number * 20, np.uint8)).save(path)
    shutil.copy(folder / "images" / "train" / "im06.png", folder / "images" / "val" / "im16.png")
    result = kinds(checked(folder))
    assert set(result) == {"not_understood", "leakage"}
    assert "grey levels" in result["not_understood"].details[0]["text"]


def test_lists_of_a_split_and_images_from_elsewhere(folder, tmp_path):
    (tmp_path / "labelled.txt").write_text("train/im00\ntrain/im01\n")
    (tmp_path / "val.txt").write_text("train/im02\ntrain/im03\n")
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(folder / "images" / "train" / "im02.png", more / "again.png")
    (more / "bad.png").write_text("text")
    lists = {"labelled": str(tmp_path / "labelled.txt"), "val": str(tmp_path / "val.txt")}
    report = checked(folder, **lists, unlabelled_from=[str(more)])
    assert report.lists == {"labelled": (2, 2), "unlabelled": (13, 0), "val": (2, 2)}
    result = kinds(report)
    assert set(result) == {"unreadable", "unlabelled_leakage"}
    assert files(result["unreadable"]) == ["bad.png"]
    assert set(kinds(checked(folder, val=str(tmp_path / "lost.txt")))) == {"split"}


def test_several_roots(folder, tmp_path):
    other = write_folder(tmp_path / "other", images=3, masks=3, val=0, size=(48, 64))
    for number, path in enumerate(sorted((other / "images").rglob("*.png"))):
        smooth(50 + number).save(path)
    (other / "dataset.yaml").write_text("classes: [high, low, middle]\n")
    report = checked(folder, more=[str(other)])
    assert report.findings == []
    assert report.lists["labelled"] == (15, 15)
    alone, added = checked(folder), checked(other, val="none")
    sums = {each.name: each.pixels for each in alone.classes}
    for each in added.classes:
        sums[each.name] += each.pixels
    assert sums == {each.name: each.pixels for each in report.classes}


def test_what_cannot_be_brought_together_and_what_cannot_be_looked_at(folder, tmp_path):
    shutil.copy(folder / "images" / "train" / "im00.png", folder / "images" / "train" / "im00.bmp")
    (finding,) = checked(folder).findings
    assert (finding.kind, finding.level) == ("structure", "error")
    assert "im00.bmp" in finding.details[0]["text"]
    with pytest.raises(DataError, match="does not exist"):
        checked(tmp_path / "nowhere")
    (folder / "images" / "train" / "im00.bmp").unlink()
    with pytest.raises(DataError, match="--unlabelled: lost does not exist"):
        checked(folder, unlabelled_from=["lost"])
    with pytest.raises(ConfigError, match="DATA: not given"):
        check(validate({}))


@pytest.mark.parametrize("split", ["*", "train"])
@pytest.mark.parametrize("size", [None, (9, 9)])
def test_unusable_masks_are_not_called_missing(folder, split, size):
    for path in (folder / "masks").glob(f"{split}/*.png"):
        path.write_bytes(b"") if size is None else Image.new("L", size).save(path)
    result = kinds(checked(folder))
    assert set(result) - {"rare_class", "absent_class"} == {"size" if size else "unreadable"}


def test_masks_without_an_image_are_not_called_missing(folder):
    for path in (folder / "masks").rglob("*.png"):
        path.rename(path.with_stem(path.stem.upper()))
    assert set(kinds(checked(folder))) == {"orphaned", "missing"}


def test_no_mask_at_all(folder):
    shutil.rmtree(folder / "masks")
    report = checked(folder)
    assert kinds(report)["no_masks"].level == "error"
    assert report.lists["unlabelled"] == (16, 0)


@pytest.mark.parametrize("options", [{}, {"val": "1/3"}, {"val": "fold:2/4"}, {"labelled": "4"}, {"policy": "random"}])
def test_the_validation_images_are_those_of_training(folder, options):
    rng = np.random.default_rng(0)
    shutil.rmtree(folder / "images" / "val")
    shutil.rmtree(folder / "masks" / "val")
    for path in (folder / "masks" / "train").glob("*.png"):  # most classes are in few masks
        Image.fromarray(np.kron(rng.choice(3, (2, 2), p=[0.8, 0.1, 0.1]), np.ones((24, 32))).astype(np.uint8)).save(
            path
        )
    config = validate({"data": {"root": str(folder), **options}, "seed": 5})
    steps = _Check(config, [locate(folder)], Examiner(config.data, 2, None), None)
    dataset = read_dataset(folder)
    held = [item.name for item in steps._lists(dataset, True)["val"]]
    assert held == [item.name for item in split_for(config.data, 5, dataset).val]
    report = check(config, workers=2)
    assert report.lists["val"] == (len(held), len(held))
    counts = [int((np.array(Image.open(folder / "masks" / f"{name}.png")) == 2).any()) for name in held]
    assert report.classes[2].held_images == sum(counts)


def test_the_labelled_images_are_asked_for_as_in_training(folder):
    assert "split" in kinds(checked(folder, labelled="nosuch.txt"))
    assert "nosuch.txt" in kinds(checked(folder, labelled="nosuch.txt"))["split"].details[0]["text"]
    assert "split" in kinds(checked(folder, labelled="500"))
    some = checked(folder, labelled="1/2")
    assert some.findings == []
    assert any("--labelled 1/2: " in sentence for sentence in some.notes)
    assert some.lists["labelled"] == (12, 12)


def test_images_above_the_limit_are_fine_where_windows_can_read_them(folder):
    size = (1250, 1000)
    image = np.array(smooth(77).resize(size[::-1], Image.Resampling.BICUBIC))
    mask = np.array(Image.open(folder / "masks/train/im00.png").resize(size[::-1], Image.Resampling.NEAREST))
    for kind, array in (("images", image), ("masks", mask)):
        colours = "rgb" if kind == "images" else "minisblack"
        path = folder / kind / "train" / "large.tif"
        tifffile.imwrite(path, array, photometric=colours, compression="zlib", tile=(128, 128))
    report, whole = checked(folder, max_megapixels=1), checked(folder)
    assert report.findings == whole.findings == []
    sentence = "1 image is larger than 1 million pixels: read in windows, in prediction and training"
    assert sentence in report.notes
    assert [each for each in report.notes if each != sentence] == whole.notes
    assert report.classes == whole.classes
    assert report.lists["labelled"] == (13, 13)
    for options in ({"image_size": (64, 64)}, {}):
        if not options:
            Image.fromarray(image).save(folder / "images/train/large.png")
            (folder / "images/train/large.tif").unlink()
        (finding,) = checked(folder, max_megapixels=1, **options).findings
        assert finding.kind == "unreadable"
        assert "data.max_megapixels" in finding.details[0]["text"]
