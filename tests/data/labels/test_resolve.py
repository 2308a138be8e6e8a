"""Every encoding of masks that is known: read right, told in words, and asked for where it cannot be told."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from fuzzyseg.data import DataError, Item, Reader, read_dataset
from fuzzyseg.data.labels.class_counts import class_presence
from fuzzyseg.data.labels.decode import decode_array, encode_labels, nearest_colours, training_labels, unpack_colour
from fuzzyseg.data.labels.detect import select_class_colours
from fuzzyseg.data.sample import Encoding

ROAD, CAR, SKY = (128, 64, 128), (64, 0, 128), (70, 130, 180)
COLOURS = np.array([ROAD, CAR, SKY], np.uint8)
INDEX = np.array([[0, 1, 2, 2], [1, 0, 0, 2], [2, 2, 1, 0]])


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array if mode else np.asarray(array), mode).save(path)


def folder(root, *masks, yaml="", suffix=".png", **options):
    """A data set of these mask arrays; images are grey."""
    for number, mask in enumerate(masks):
        save(root / "images" / f"x{number}.png", np.zeros(mask.shape[:2], np.uint8))
        save(root / "masks" / f"x{number}{suffix}", mask)
    if yaml:
        (root / "dataset.yaml").write_text(yaml)
    return read_dataset(root, **options)


def labels(data, place=0):
    return training_labels(data.train[place], classes=len(data.classes), ignore_index=data.ignore_index)


def said(data):
    return "\n".join(data.notes)


@pytest.mark.parametrize(
    "yaml",
    [
        "classes: [road, car, sky]\ncolours: [[128, 64, 128], [64, 0, 128], [70, 130, 180]]",
        "colours: {road: [128, 64, 128], car: [64, 0, 128], sky: [70, 130, 180]}",
        "classes: [road, car, sky]\n"
        "colours: {sky: [[70, 130, 180], [0, 0, 255]], car: [64, 0, 128], road: [128, 64, 128]}",
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours_of_dataset_yaml(tmp_path, yaml, suffix):
    data = folder(tmp_path, COLOURS[INDEX], yaml=yaml, suffix=suffix)
    assert data.classes == ["road", "car", "sky"]
    assert data.colours == [ROAD, CAR, SKY]
    np.testing.assert_array_equal(labels(data), INDEX)
    count = 4 if "255" in yaml else 3
    assert f"colour-coded, {count} colours, from dataset.yaml" in said(data)


def test_transparent_pixels_and_ignored_colours_are_void(tmp_path):
    mask = np.dstack([COLOURS[INDEX], np.full(INDEX.shape, 255, np.uint8)])
    mask[0, 0] = (0, 0, 0, 0)
    mask[1, 1] = (224, 224, 192, 255)
    yaml = "colours: {road: [128, 64, 128], car: [64, 0, 128], sky: [70, 130, 180]}\nignore_colours: [[224, 224, 192]]"
    data = folder(tmp_path, mask, yaml=yaml)
    expected = INDEX.copy()
    expected[0, 0] = expected[1, 1] = 255
    np.testing.assert_array_equal(labels(data), expected)
    assert class_presence(data.train, classes=3, ignore_index=255).all()
    mask[..., 3] = 0
    with pytest.raises(DataError, match=r"every pixel is transparent.*alpha"):
        folder(tmp_path / "clear", mask)


@pytest.mark.parametrize("colour", [(255, 0, 0), (255, 255, 255)])
def test_one_colour_on_transparent_ground_is_asked_about(tmp_path, colour):
    mask = np.where((INDEX > 0)[..., None], (*colour, 255), 0).astype(np.uint8)
    with pytest.raises(DataError, match=r"one colour, \(255, \d+, \d+\), and transparent pixels.*without opacity"):
        folder(tmp_path, mask)


def test_a_class_table_beside_the_data_and_its_void(tmp_path):
    (tmp_path / "class_dict.csv").write_text(
        "name, r, g, b\nVoid,0,0,0\nroad,128,64,128\ncar,64,0,128\nsky,70,130,180\n"
    )
    mask = COLOURS[INDEX]
    mask[2, 3] = 0
    data = folder(tmp_path, mask)
    expected = INDEX.copy()
    expected[2, 3] = 255
    assert data.classes == ["road", "car", "sky"]
    np.testing.assert_array_equal(labels(data), expected)
    assert "4 colours, from class_dict.csv" in said(data)
    # The same table beside masks of row numbers
    index = folder(tmp_path / "index", expected.astype(np.uint8), yaml="classes: [road, car, sky]")
    assert index.classes == ["road", "car", "sky"]
    rows = np.where(expected == 255, 0, expected + 1).astype(np.uint8)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "classes.csv").write_text((tmp_path / "class_dict.csv").read_text().replace(",", ";"))
    data = folder(tmp_path / "rows", rows)
    assert data.classes == ["road", "car", "sky"]
    np.testing.assert_array_equal(labels(data), expected)


def test_tables_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("name,r,g,b\nroad,128,64,300\ncar,64,0,128\n")
    with pytest.raises(DataError, match=r"a\.csv, line 2: found .*300.*from 0 to 255"):
        folder(tmp_path, COLOURS[INDEX])
    (tmp_path / "b.csv").write_text("r,g,b,name\n1,2,3,x\n")
    with pytest.raises(DataError, match=r"several class tables: a\.csv, b\.csv"):
        read_dataset(tmp_path)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(DataError, match=r"b\.csv: has no colour for the class 'y'"):
        read_dataset(tmp_path, classes=["x", "y"])
    with pytest.raises(DataError, match=r"dataset\.yaml: .*car, sky is in only one of them"):
        folder(tmp_path / "c", COLOURS[INDEX], yaml="classes: [road, sky]\ncolours: {road: [1, 2, 3], car: [4, 5, 6]}")
    with pytest.raises(DataError, match=r"colour \(1, 2, 3\) is declared twice"):
        folder(tmp_path / "d", COLOURS[INDEX], yaml="colours: {road: [1, 2, 3], car: [1, 2, 3]}")


def test_colours_found_in_the_files_are_named_after_themselves(tmp_path):
    data = folder(tmp_path, COLOURS[INDEX])
    names = ["colour_64_0_128", "colour_70_130_180", "colour_128_64_128"]
    assert data.classes == names
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(labels(data), order[INDEX])
    assert "colour-coded, 3 colours, found in the files" in said(data)
    assert data.colours == [CAR, SKY, ROAD]
    # A part of the colours alone, with the whole known from elsewhere (a run's model), keeps its order
    part = folder(tmp_path / "part", COLOURS[np.where(INDEX == 1, 0, INDEX)], fallback=data.label_map)
    assert part.classes == names
    np.testing.assert_array_equal(labels(part), order[np.where(INDEX == 1, 0, INDEX)])


def test_names_without_colours_ask_which_is_which(tmp_path):
    with pytest.raises(
        DataError, match=r"is colour-coded.*\(64, 0, 128\), .*Declare the colour of each class in dataset\.yaml"
    ):
        folder(tmp_path, COLOURS[INDEX], yaml="classes: [a, b, c]")


YAML = "colours: {road: [128, 64, 128], car: [64, 0, 128], sky: [70, 130, 180]}"


def blurred():
    mask = COLOURS[INDEX]
    mask[0, 0] = (127, 65, 128)
    mask[1, 3] = (127, 65, 128)
    mask[2, 2] = (67, 65, 154)  # between car and sky
    return mask


def test_colours_that_are_off_are_counted_and_snap_takes_the_nearest(tmp_path):
    data = folder(tmp_path, blurred(), yaml=YAML)
    words = r"x0\.png: found 3 pixels \(25 %\) of 2 colours.*"
    words += r"\(127, 65, 128\) 2 times \(nearest \(128, 64, 128\), distance 1\)"
    with pytest.raises(DataError, match=words + r".*--snap"):
        labels(data)
    data = read_dataset(tmp_path, snap=True)
    expected = np.zeros(INDEX.shape, int)
    for place in np.ndindex(INDEX.shape):  # the rule, a pixel at a time
        distances = [sum((int(a) - int(b)) ** 2 for a, b in zip(blurred()[place], c, strict=True)) for c in COLOURS]
        expected[place] = distances.index(min(distances))
    np.testing.assert_array_equal(labels(data), expected)
    assert "--snap" in said(data)


def test_half_transparent_edges_are_off_too(tmp_path):
    mask = np.dstack([COLOURS[INDEX], np.full(INDEX.shape, 255, np.uint8)])
    mask[0, 1, 3] = 128
    with pytest.raises(DataError, match="found 1 pixels"):
        labels(folder(tmp_path, mask, yaml=YAML))
    np.testing.assert_array_equal(labels(read_dataset(tmp_path, snap=True)), INDEX)


def test_lossy_colour_masks_are_an_error_until_snapped(tmp_path):
    index = INDEX.repeat(16, 0).repeat(16, 1)
    data = folder(tmp_path, COLOURS[index], yaml=YAML, suffix=".jpg")
    with pytest.raises(DataError, match=r"x0\.jpg: found \d+ pixels"):
        labels(data)
    right = labels(read_dataset(tmp_path, snap=True)) == index
    assert right.mean() > 0.97


def test_colours_that_loss_made_of_one_are_not_classes_of_their_own(tmp_path):
    draw = np.random.default_rng(0)
    index = np.kron(INDEX, np.ones((16, 16), int))
    mask = np.clip(COLOURS[index] + draw.integers(-2, 3, (*index.shape, 3)), 0, 255)  # 125 shades, none of them rare
    with pytest.raises(DataError, match=r"distinct colours: \(\d+, \d+, \d+\)") as caught:
        folder(tmp_path, mask.astype(np.uint8), snap=True)
    proposed = str(caught.value).partition("distinct colours: ")[2].count("(")
    assert proposed == 3


def test_near_colours_are_doubted_among_thousands_of_rare_ones_too():
    rare = {(r, g, b): 1 for r in range(20) for g in range(20) for b in range(20)}
    counts = Counter(rare | {ROAD: 10**7, CAR: 10**7, (129, 64, 128): 10**5})
    assert select_class_colours(counts, 1, snap=True) == [CAR, ROAD]


@pytest.mark.parametrize("count", [1, 5])
def test_the_nearest_of_many_is_the_nearest_of_each(count):
    draw = np.random.default_rng(count)
    known = tuple((*(int(v) for v in draw.integers(0, 8, 3) * 32), i) for i in range(count))  # equal distances occur
    packed = draw.integers(0, 2**24, 2000).astype(np.int32) & 0xF0F0F0
    encoding = Encoding(colours=known)
    expected = []
    for colour in packed.tolist():  # the rule, a colour at a time
        wanted = unpack_colour(colour)
        expected.append(
            min((sum((a - b) ** 2 for a, b in zip(wanted, c, strict=False)), i) for i, c in enumerate(known))
        )
    index, squared = nearest_colours(packed, encoding)
    assert list(zip(squared.tolist(), index.tolist(), strict=True)) == expected


def test_rare_and_neighbouring_colours_found_in_files_are_doubted(tmp_path):
    index = np.zeros((60, 60), int)
    index[30:], index[:, 40:] = 1, 2
    mask = COLOURS[index]
    mask[5, 5] = (129, 64, 128)
    with pytest.raises(DataError, match=r"1 are rare or close to a frequent one: \(129, 64, 128\) 1 times.*--snap"):
        folder(tmp_path, mask)
    data = read_dataset(tmp_path, snap=True)
    assert len(data.classes) == 3
    assert labels(data)[5, 5] == data.classes.index("colour_128_64_128")
    photo = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    with pytest.raises(DataError, match=r"contain 3\d\d\d colours"):
        folder(tmp_path / "photo", photo)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_index_masks_of_8_and_16_bits(tmp_path, suffix):
    for dtype in (np.uint8, np.uint16):
        root = tmp_path / np.dtype(dtype).name
        yaml = "classes: [a, b, c]\nignore_index: 65535\n" if dtype == np.uint16 else "classes: [a, b, c]"
        mask = INDEX.astype(dtype)
        mask[0, 0] = np.iinfo(dtype).max
        if suffix == ".npy":
            save(root / "images" / "x0.png", np.zeros(mask.shape, np.uint8))
            (root / "masks").mkdir()
            np.save(root / "masks" / "x0.npy", mask)
            (root / "dataset.yaml").write_text(yaml)
            data = read_dataset(root)
        else:
            data = folder(root, mask, yaml=yaml, suffix=suffix)
        expected = INDEX.copy()
        expected[0, 0] = 255
        np.testing.assert_array_equal(labels(data), expected)
        assert f"index masks ({np.dtype(dtype).itemsize * 8}-bit" in said(data)


def test_negative_and_several_ignored_values(tmp_path):
    mask = INDEX.astype(np.int32)
    mask[0, 0], mask[1, 1], mask[2, 2] = -1, 250, 255
    save(tmp_path / "images/x.png", np.zeros(mask.shape, np.uint8))
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/x.npy", mask)
    (tmp_path / "dataset.yaml").write_text("ignore_index: [-1, 250]")
    data = read_dataset(tmp_path)
    assert len(data.classes) == 3
    expected = INDEX.copy()
    expected[[0, 1, 2], [0, 1, 2]] = 255
    np.testing.assert_array_equal(labels(data), expected)


BINARY = np.where(INDEX == 1, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("yaml", ["", "classes: [background, crack]", "encoding: binary\nclasses: [background, crack]"])
@pytest.mark.parametrize("rgb", [False, True])
def test_binary_masks_0_and_255(tmp_path, yaml, rgb):
    mask = BINARY[..., None].repeat(3, 2) if rgb else BINARY
    data = folder(tmp_path, mask, yaml=yaml)
    assert data.classes == (["background", "crack"] if yaml else ["background", "foreground"])
    np.testing.assert_array_equal(labels(data), INDEX == 1)
    assert "binary masks: 0 is background, 255 is" in said(data)
    # What was told from some files is not forced upon one that it does not fit
    save(data.train[0].mask, np.full_like(mask, 7))
    with pytest.raises(DataError, match=r"x0\.png: found the (values|value) ?.*binary masks|without a class"):
        labels(data)


def test_0_and_255_are_index_masks_where_void_is_named(tmp_path):
    mask = BINARY.copy()
    mask[-1] = 1
    data = folder(tmp_path, mask, yaml="classes: [a, b]\nignore_index: 255")
    np.testing.assert_array_equal(labels(data), mask)


@pytest.mark.parametrize(("values", "void"), [((0, 255), 255), ((0, 1), 1), ((0, 1), 0), ((0, 1, 255), 1)])
@pytest.mark.parametrize("names", ["", "classes: [a, b]\n"])
def test_a_void_value_that_leaves_one_class_is_an_error(tmp_path, values, void, names):
    mask = np.array(values, np.uint8).repeat(8)[None].repeat(8, 0)
    with pytest.raises(DataError, match="ignore_index"):
        folder(tmp_path, mask, yaml=f"{names}ignore_index: {void}")


@pytest.mark.parametrize("names", ["", "classes: [a, b]\n", "encoding: binary\n"])
def test_0_and_65535_are_binary(tmp_path, names):
    data = folder(tmp_path, np.where(BINARY == 255, 65535, 0).astype(np.uint16), yaml=names)
    assert len(data.classes) == 2
    np.testing.assert_array_equal(labels(data), BINARY == 255)


def test_lossy_binary_masks_snap_to_the_nearer(tmp_path):
    mask = np.where(INDEX == 1, 251, 3).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    folder(tmp_path, BINARY.repeat(16, 0).repeat(16, 1))
    (tmp_path / "masks/x0.png").unlink()
    Image.fromarray(mask).save(tmp_path / "masks/x0.jpg", quality=100)
    with pytest.raises(DataError, match="JPEG"):
        labels(read_dataset(tmp_path, encoding="binary"))
    result = labels(read_dataset(tmp_path, encoding="binary", snap=True))
    np.testing.assert_array_equal(result, mask > 127)


def test_greys_of_16_bits_are_asked_about_and_never_snapped_at_128(tmp_path):
    greys = np.linspace(0, 65535, 256).round().reshape(16, 16).astype(np.uint16)
    with pytest.raises(DataError, match="encoding: binary"):
        folder(tmp_path / "a", greys)
    data = read_dataset(tmp_path / "a", encoding="binary", snap=True)
    with pytest.raises(DataError, match="found the values 257"):
        labels(data)
    table = Encoding(table=((0, 0), (65535, 1)), snap=True)
    assert (decode_array(greys, table, 255, tmp_path).labels == (greys > 32767)).all()


@pytest.mark.parametrize("high", [255, 65535])
def test_binary_masks_of_both_depths_in_one_folder(tmp_path, high):
    shape = np.array([[0, 1, 1], [0, 0, 1]])
    for number, value in enumerate((1, high)):
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", (3, 2)).save(tmp_path / "images" / f"{number}.png")
        dtype = np.uint16 if value > 255 else np.uint8
        Image.fromarray((shape * value).astype(dtype)).save(tmp_path / "masks" / f"{number}.png")
    with pytest.raises(DataError, match="encoding: binary"):
        read_dataset(tmp_path)
    data = read_dataset(tmp_path, encoding="binary")
    for item in data.train:
        np.testing.assert_array_equal(training_labels(item, classes=2, ignore_index=data.ignore_index), shape)


def test_nearly_equal_names_are_told_once(tmp_path):
    data = folder(tmp_path, INDEX.astype(np.uint8), yaml='classes: [car, "car ", road]')
    assert said(data).count("nearly equal") == 1


def test_values_that_begin_at_1(tmp_path):
    for number, yaml in enumerate(["", "classes: [a, b, c]"]):
        data = folder(tmp_path / str(number), (INDEX + 1).astype(np.uint8), yaml=yaml)
        assert data.classes == (["a", "b", "c"] if yaml else ["class_1", "class_2", "class_3"])
        np.testing.assert_array_equal(labels(data), INDEX)
        assert "values 1 to 3 and never 0" in said(data)
        save(data.train[0].mask, INDEX.astype(np.uint8))  # a 0 after all, and no word on what it means
        with pytest.raises(DataError, match=r"found the values 0 in 4 pixels.*reduce_zero_label: true"):
            labels(data)


def test_reduce_zero_label(tmp_path):
    mask = (INDEX + 1).astype(np.uint8)
    mask[0, 0] = 0
    data = folder(tmp_path, mask, yaml="classes: [a, b, c]\nreduce_zero_label: true")
    expected = INDEX.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(labels(data), expected)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b, c]")
    with pytest.raises(DataError, match=r"values 0 to 3, but 3 classes.*reduce_zero_label: true.*ignore_index: 3"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text("reduce_zero_label: true")
    assert read_dataset(tmp_path).classes == ["class_1", "class_2", "class_3"]


def test_grey_levels_are_asked_for_and_then_read_by_name(tmp_path):
    grey = np.array([50, 100, 150], np.uint8)[INDEX]
    with pytest.raises(DataError, match=r"values 50, 100, 150; 150 is in .*x0\.png: .*grey levels.*values: \{road: 50"):
        folder(tmp_path, grey)
    (tmp_path / "dataset.yaml").write_text("values: {road: 50, vehicle: [100, 150]}")
    data = read_dataset(tmp_path)
    assert data.classes == ["road", "vehicle"]
    np.testing.assert_array_equal(labels(data), INDEX > 0)
    save(data.train[0].mask, np.full((3, 4), 60, np.uint8))
    with pytest.raises(DataError, match=r"found the values 60 in 12 pixels; expected values of 2 classes.*50 road"):
        labels(data)


@pytest.mark.parametrize("coloured", [False, True])
def test_merged_and_ignored_classes(tmp_path, coloured):
    yaml = "classes: [road, car, sky]\nmerge: {ground: [road, car]}\n"
    mask = COLOURS[INDEX] if coloured else INDEX.astype(np.uint8)
    if coloured:
        yaml += "colours: [[128, 64, 128], [64, 0, 128], [70, 130, 180]]"
    data = folder(tmp_path, mask, yaml=yaml)
    assert data.classes == ["ground", "sky"]
    np.testing.assert_array_equal(labels(data), INDEX == 2)
    assert data.colours == ([ROAD, SKY] if coloured else None)
    assert "3 classes of the files become 2: ground of road, car" in data.encoding.text
    (tmp_path / "dataset.yaml").write_text(yaml.replace("merge: {ground: [road, car]}", "ignore: [car]"))
    data = read_dataset(tmp_path)
    assert data.classes == ["road", "sky"]
    np.testing.assert_array_equal(labels(data), np.array([0, 255, 1])[INDEX])
    (tmp_path / "dataset.yaml").write_text(yaml.replace("road, car]}", "road, cart]}"))
    with pytest.raises(DataError, match=r"merge\.ground: found no class 'cart'.*'car'"):
        read_dataset(tmp_path)


def test_masks_of_two_kinds_are_named(tmp_path):
    with pytest.raises(DataError, match=r"x0\.png is colour-coded and .*x1\.png contains one value"):
        folder(tmp_path, COLOURS[INDEX], INDEX.astype(np.uint8), yaml=YAML)


def palette_mask(path, index, palette):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    image.save(path)


def test_palette_masks_hold_indices_and_their_colours_are_shown(tmp_path):
    folder(tmp_path, INDEX.astype(np.uint8))
    palette_mask(tmp_path / "masks/x0.png", INDEX, COLOURS)
    data = read_dataset(tmp_path)
    np.testing.assert_array_equal(labels(data), INDEX)
    assert data.colours == [ROAD, CAR, SKY]
    assert "palette masks (the index is the class" in said(data)


def test_palettes_that_differ_mean_colours_or_are_asked_about(tmp_path):
    folder(tmp_path, INDEX.astype(np.uint8), INDEX.astype(np.uint8))
    palette_mask(tmp_path / "masks/x0.png", INDEX, COLOURS)
    palette_mask(tmp_path / "masks/x1.png", 2 - INDEX, COLOURS[::-1])  # as a program that counts colours would store
    with pytest.raises(DataError, match=r"palettes have different colours for index 0.*encoding: index or"):
        read_dataset(tmp_path)
    for yaml in (YAML, "encoding: colour"):
        (tmp_path / "dataset.yaml").write_text(yaml)
        data = read_dataset(tmp_path)
        np.testing.assert_array_equal(labels(data, 0), labels(data, 1))
        assert len(np.unique(labels(data))) == 3
    (tmp_path / "dataset.yaml").write_text("encoding: index")
    np.testing.assert_array_equal(labels(read_dataset(tmp_path), 1), 2 - INDEX)


def test_voc_palette_masks_are_indices_also_where_colours_are_named(shared, tmp_path):
    source = shared / "formats" / "labelme_as_voc"
    for stored in sorted((source / "SegmentationClass").iterdir()):
        image = Image.open(stored)
        assert image.mode == "P"
        save(tmp_path / "images" / stored.name, np.zeros(image.size[::-1], np.uint8))
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / stored.name).write_bytes(stored.read_bytes())
    names = (source / "class_names.txt").read_text().split("\n")
    names = [name for name in names if name]
    data = read_dataset(tmp_path, classes=names)
    assert len(data.train) == 3
    for place, item in enumerate(data.train):
        stored = np.array(Image.open(item.mask))
        np.testing.assert_array_equal(labels(data, place), stored)
    assert data.colours[:2] == [(0, 0, 0), (128, 0, 0)]
    # The same masks as their colours, in RGB
    for item in data.train:
        Image.open(item.mask).convert("RGB").save(item.mask)
    table = [f"{name.replace(':', '')}: {list(colour)}" for name, colour in zip(names, data.colours, strict=True)]
    (tmp_path / "dataset.yaml").write_text("ignore_colours: [[224, 224, 192]]\ncolours:\n  " + "\n  ".join(table))
    coloured = read_dataset(tmp_path)
    for place, item in enumerate(sorted((source / "SegmentationClass").iterdir())):
        np.testing.assert_array_equal(labels(coloured, place), np.array(Image.open(item)))


def test_camvid_as_rgba_colours_is_what_it_was(shared, tmp_path):
    source = shared / "data" / "camvid"
    table = np.random.default_rng(1).choice(256, (12, 3), replace=False).astype(np.uint8)
    originals = {}
    for path in sorted((source / "trainannot").iterdir())[::60]:
        mask = np.array(Image.open(path))
        originals[path.stem] = mask
        rgba = np.dstack([table[mask], np.where(mask == 11, 0, 255).astype(np.uint8)])
        save(tmp_path / "frames" / path.name, np.zeros((*mask.shape, 3), np.uint8))
        save(tmp_path / "painted" / path.name, rgba)
    known = read_dataset(source)
    lines = "\n".join(f"  {name}: {table[i].tolist()}" for i, name in enumerate(known.classes))
    (tmp_path / "dataset.yaml").write_text(f"images: frames\nmasks: painted\ncolours:\n{lines}\n")
    data = read_dataset(tmp_path)
    assert data.classes == known.classes
    assert "colour-coded, 11 colours, from dataset.yaml" in said(data)
    for place, item in enumerate(data.train):
        original = originals[item.image.stem]
        np.testing.assert_array_equal(labels(data, place), np.where(original == 11, 255, original))


ENCODINGS = {
    "plain": None,
    "table": Encoding(table=((7, 0), (9, 1), (11, 2), (12, 255)), text="t"),
    "offset": Encoding(reduce_zero=True),
    "binary": Encoding(table=((0, 0), (255, 1)), ignore=()),
    "colours": Encoding(colours=((1, 2, 3, 0), (4, 5, 6, 1), (7, 8, 9, 2), (0, 0, 0, -1)), text="c"),
    "merged": Encoding(colours=((1, 2, 3, 0), (4, 5, 6, 1), (7, 8, 9, 2)), table=((0, 0), (1, 0), (2, 1)), snap=True),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_what_is_written_in_an_encoding_is_read_back(tmp_path, name):
    encoding = ENCODINGS[name]
    index = INDEX % 2 if name in ("binary", "merged") else INDEX
    stored = encode_labels(index, encoding, 255, tmp_path)
    save(tmp_path / "m.png", stored)
    item = Item(tmp_path / "i.png", tmp_path / "m.png", "i", encoding)
    np.testing.assert_array_equal(training_labels(item, classes=3, ignore_index=255), index)
    assert stored.ndim == (3 if encoding and encoding.colours else 2)
    if encoding is not None:
        assert TypeAdapter(Encoding).validate_json(json.dumps(encoding.record())) == encoding
        assert hash(TypeAdapter(Encoding).validate_json(json.dumps(encoding.record()))) == hash(encoding)
        with pytest.raises(DataError, match="has no value for the class index 77"):
            encode_labels(np.array([[77]]), ENCODINGS["table"], 255, tmp_path)


def test_a_pickled_reader_reads_colours_in_another_process(tmp_path):
    data = folder(tmp_path, COLOURS[INDEX], yaml=YAML)
    reader, item = pickle.loads(pickle.dumps((Reader(3, 3, 255, cache_bytes=100), data.train[0])))
    np.testing.assert_array_equal(reader.read(item, True)[1].numpy(), INDEX)


def test_no_note_comes_twice_and_a_void_value_is_named_for_values_only(tmp_path):
    colours = folder(tmp_path / "colours", COLOURS[INDEX], COLOURS[INDEX])
    values = folder(tmp_path / "values", INDEX.astype(np.uint8), yaml="classes: [road, Car, car]")
    grey = folder(tmp_path / "grey", np.repeat(INDEX.astype(np.uint8)[..., None], 3, 2))
    assert [f"value {data.ignore_index} is ignored" in data.notes for data in (colours, values, grey)] == [
        False, True, True,
    ]  # fmt: skip
    for data in (colours, values, grey):
        assert len(set(data.notes)) == len(data.notes)
    assert sum("colour-coded" in note for note in colours.notes) == 1
    assert any("'Car'" in note and "'car'" in note for note in values.notes)
