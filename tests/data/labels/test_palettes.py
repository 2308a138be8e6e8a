"""Palette masks: named colours against indices, in one file or in all, in every place that names colours."""

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, combine, read_dataset
from fuzzyseg.data.annotations import read_annotations, write_dataset
from fuzzyseg.data.labels.decode import training_labels

BLACK, RED, GREEN, CREAM = (0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)
INDEX = np.array([[0, 1, 2, 2], [0, 0, 0, 1]], np.uint8)
TRUTH = np.array(["ground", "red", "green"])[INDEX]


def palette(path, index=INDEX, colours=(BLACK, RED, GREEN), void=None, suffix=".png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(index, np.uint8), "P")
    values = [value for colour in colours for value in colour]
    if void is not None:
        values += [0] * (3 * 255 - len(values)) + list(void)
    image.putpalette(values)
    image.save(path.with_suffix(suffix))


def folder(root, count=1, yaml="", split="", **options):
    for number in range(count):
        image = root / "images" / split / f"x{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(INDEX.shape, np.uint8)).save(image)
        palette(root / "masks" / split / f"x{number}.png", **options)
    if yaml:
        (root / "dataset.yaml").write_text(yaml)
    return root


def named(data, items=None, place=0):
    """The class name of each pixel."""
    result = training_labels((items or data.train)[place], classes=len(data.classes), ignore_index=data.ignore_index)
    return np.array([*data.classes, *["void"] * (256 - len(data.classes))])[result]


MAPPING = "colours: {green: [0, 128, 0], red: [128, 0, 0], ground: [0, 0, 0]}"
LIST = "classes: [green, red, ground]\ncolours: [[0, 128, 0], [128, 0, 0], [0, 0, 0]]"
TABLE = "name,r,g,b\ngreen,0,128,0\nred,128,0,0\nground,0,0,0\n"


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("source", ["mapping", "list", "table", "table with void"])
def test_named_colours_decide_where_the_palette_has_another_order(tmp_path, source, suffix):
    folder(tmp_path, 3, yaml={"mapping": MAPPING, "list": LIST}.get(source, ""), suffix=suffix)
    if source.startswith("table"):
        (tmp_path / "classes.csv").write_text(TABLE + "void,9,9,9\n" * source.endswith("void"))
    data = read_dataset(tmp_path)
    assert set(data.classes) == {"green", "red", "ground"}
    for place in range(3):
        np.testing.assert_array_equal(named(data, place=place), TRUTH)
    assert any("colours, not indices, are the classes" in note for note in data.notes)


@pytest.mark.parametrize(
    "yaml",
    [
        "colours: {ground: [0, 0, 0], red: [128, 0, 0], green: [0, 128, 0]}",
        "classes: [ground, red, green]\ncolours: [[9, 9, 9], [8, 8, 8], [7, 7, 7]]",  # to be shown; none in the files
    ],
)
def test_indices_decide_where_no_colour_says_otherwise(tmp_path, yaml):
    index = INDEX.copy()
    index[0, 0] = 255
    for number, void in enumerate([CREAM, BLACK, RED]):  # a palette that is filled up tells nothing
        data = read_dataset(folder(tmp_path / str(number), yaml=yaml, index=index, void=void))
        expected = TRUTH.copy().astype("<U6")
        expected[0, 0] = "void"
        np.testing.assert_array_equal(named(data), expected)


def test_void_by_its_index_stays_void_where_the_colours_decide(tmp_path):
    index = INDEX.copy()
    index[0, 0] = 255
    expected = TRUTH.copy().astype("<U6")
    expected[0, 0] = "void"
    np.testing.assert_array_equal(
        named(read_dataset(folder(tmp_path, yaml=MAPPING, index=index, void=CREAM))), expected
    )


def test_a_disagreement_with_a_colour_without_a_name_is_an_error(tmp_path):
    folder(tmp_path, yaml="colours: {green: [0, 128, 0], ground: [0, 0, 0]}")
    with pytest.raises(DataError, match=r"x0\.png: index and colour disagree: index 0 .*index 1 has .*\(128, 0, 0\)"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text(
        "encoding: index\nclasses: [a, b, c]\ncolours: [[0, 128, 0], [0, 0, 0], [1, 1, 1]]"
    )
    np.testing.assert_array_equal(named(read_dataset(tmp_path)), np.array(["a", "b", "c"])[INDEX])


def test_unused_colours_of_a_palette_do_not_matter(tmp_path):
    yaml = "colours: {ground: [0, 0, 0], red: [128, 0, 0], green: [0, 128, 0]}"
    data = read_dataset(folder(tmp_path, yaml=yaml, colours=(BLACK, RED, GREEN, RED, BLACK)))
    np.testing.assert_array_equal(named(data), TRUTH)
    assert not any("colours, not indices" in note for note in data.notes)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_palette_of_many_that_differs_is_named_or_its_colours_decide(tmp_path, split):
    folder(tmp_path, 60, split="train")
    folder(tmp_path, 2, split="val")
    folder(tmp_path, 2, split="test")
    folder(tmp_path, 2, split=split)
    palette(tmp_path / "masks" / split / "x1.png", np.array([0, 2, 1])[INDEX], (BLACK, GREEN, RED))
    with pytest.raises(
        DataError, match=rf"{split}/x1\.png and .*different colours for index [12] .*in 1, .* in \d+ masks"
    ):
        read_dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text("colours: {ground: [0, 0, 0], red: [128, 0, 0], green: [0, 128, 0]}")
    data = read_dataset(tmp_path)
    for item in [*data.train, *data.val, *data.test]:
        np.testing.assert_array_equal(named(data, [item]), TRUTH)


def test_palettes_that_differ_in_unused_entries_are_index_masks(tmp_path):
    folder(tmp_path, 2)
    palette(tmp_path / "masks/x1.png", colours=(BLACK, RED, GREEN, CREAM))
    palette(tmp_path / "masks/x0.png", np.minimum(INDEX, 1), colours=(BLACK, RED, CREAM))
    data = read_dataset(tmp_path, classes=["ground", "red", "green"])
    np.testing.assert_array_equal(named(data, place=1), TRUTH)


@pytest.mark.parametrize("trained", ["rgb", "palette"])
def test_further_data_are_read_by_the_colours_of_the_first(tmp_path, trained):
    first = folder(tmp_path / "first", yaml="classes: [ground, red, green]" if trained == "palette" else MAPPING)
    if trained == "rgb":
        Image.open(first / "masks/x0.png").convert("RGB").save(first / "masks/x0.png")
    known = read_dataset(first)
    other = folder(tmp_path / "other", index=np.array([1, 2, 0])[INDEX], colours=(GREEN, BLACK, RED))
    evaluated = read_dataset(other, fallback=known.label_map)
    assert evaluated.classes == known.classes
    np.testing.assert_array_equal(named(evaluated), TRUTH)
    more = combine(known, more=[other])
    for place in range(2):
        np.testing.assert_array_equal(named(more, place=place), TRUTH)


@pytest.mark.parametrize("stored", ["palette", "rgb", "index"])
@pytest.mark.parametrize("yaml", ["", "classes: [green, ground, red]"])
def test_one_folder_read_as_voc_and_converted_as_cvat_has_the_same_classes(tmp_path, stored, yaml):
    labels = "# label:colour\nred:128,0,0::\nbackground:0,0,0::\ngreen:0,128,0::\n"
    yaml = yaml.replace("ground", "background")
    for number in range(2):
        (tmp_path / "in/JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*INDEX.shape, 3), np.uint8)).save(tmp_path / f"in/JPEGImages/x{number}.png")
        palette(tmp_path / f"in/SegmentationClass/x{number}.png")
    for path in (tmp_path / "in/SegmentationClass").iterdir():
        if stored == "rgb":
            Image.open(path).convert("RGB").save(path)
        if stored == "index":
            Image.fromarray(np.array([1, 0, 2], np.uint8)[INDEX]).save(path)  # the entries of the label map
    (tmp_path / "in/labelmap.txt").write_text(labels)
    write_dataset(read_annotations(tmp_path / "in"), tmp_path / "out")
    truth = np.where(TRUTH == "ground", "background", TRUTH)
    np.testing.assert_array_equal(named(read_dataset(tmp_path / "out")), truth)
    if yaml and stored != "index":
        (tmp_path / "in/dataset.yaml").write_text(yaml)
    np.testing.assert_array_equal(named(read_dataset(tmp_path / "in")), truth)


LABELMAP = "ground:0,0,0::\nred:128,0,0::\ngreen:0,128,0::\n"
ORDERS = {
    "class_names.txt": "ground\ngreen\nred\n",
    "dataset.yaml": "classes: [ground, green, red]",
    "classes.csv": "name,r,g,b\nground,0,0,0\ngreen,0,128,0\nred,128,0,0\n",
}


def exported(root, stored, **files):
    """A folder in VOC's form: index masks, palette masks, or those with the palette in the order of `stored`."""
    (root / "JPEGImages").mkdir(parents=True)
    Image.fromarray(np.zeros((*INDEX.shape, 3), np.uint8)).save(root / "JPEGImages/x0.png")
    colours = {"other": (BLACK, GREEN, RED), "strange": ((9, 9, 9), (8, 8, 8), (7, 7, 7))}
    palette(root / "SegmentationClass/x0.png", colours=colours.get(stored, (BLACK, RED, GREEN)))
    if stored == "rgb":
        Image.open(root / "SegmentationClass/x0.png").convert("RGB").save(root / "SegmentationClass/x0.png")
    if stored == "index":
        Image.fromarray(INDEX).save(root / "SegmentationClass/x0.png")
    for name, text in files.items():
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("source", list(ORDERS))
def test_two_files_with_different_orders_of_the_classes_are_an_error_beside_bare_indices(tmp_path, source):
    files = {"labelmap.txt": LABELMAP, source: ORDERS[source]}
    for stored in ("index", "strange"):
        root = exported(tmp_path / stored, stored, **files)
        with pytest.raises(DataError, match=rf"{source} and .*labelmap\.txt .*'red' is class 2 in {source} and 1 in"):
            read_dataset(root)
    if source == "dataset.yaml":
        (root / source).write_text(f"{ORDERS[source]}\nencoding: index")
        np.testing.assert_array_equal(named(read_dataset(root)), np.array(["ground", "green", "red"])[INDEX])
    else:  # the caller decides
        result = read_dataset(root, classes=["ground", "green", "red"], encoding="index")
        np.testing.assert_array_equal(named(result), np.array(["ground", "green", "red"])[INDEX])


@pytest.mark.parametrize("source", list(ORDERS))
@pytest.mark.parametrize("stored", ["palette", "rgb", "other"])
def test_colours_decide_between_two_files_with_different_orders(tmp_path, source, stored):
    data = read_dataset(exported(tmp_path / "a", stored, **{"labelmap.txt": LABELMAP, source: ORDERS[source]}))
    assert data.classes == ["ground", "green", "red"]
    truth = np.array(["ground", "green", "red"])[INDEX] if stored == "other" else TRUTH
    np.testing.assert_array_equal(named(data), truth)


def test_files_that_agree_on_the_order_of_the_classes_are_accepted(tmp_path):
    for number, (text, names) in enumerate(
        [("ground\nred\ngreen\n", LABELMAP), ("__ignore__\n_background_\nred\n", "background:0,0,0::\nred:1,1,1::\n")]
    ):
        index = INDEX if number == 0 else np.minimum(INDEX, 1)
        root = exported(tmp_path / str(number), "index", **{"class_names.txt": text, "labelmap.txt": names})
        Image.fromarray(index).save(root / "SegmentationClass/x0.png")
        data = read_dataset(root)
        np.testing.assert_array_equal(named(data), np.array(data.classes)[index])
    (root / "labelmap.txt").write_text("__ignore__:9,9,9::\nbackground:0,0,0::\nred:1,1,1::\n")  # 0 is void here
    with pytest.raises(DataError, match=r"'background' is class 0 in class_names\.txt and 1 in labelmap\.txt"):
        read_dataset(root)


def test_a_declared_class_that_is_transparent_in_all_masks_is_told(tmp_path):
    root = folder(tmp_path, 3, yaml=MAPPING)
    shades = np.array([(*BLACK, 0), (*RED, 255), (*GREEN, 255)], np.uint8)

    def told():
        return [note for note in read_dataset(root).notes if note.startswith("warning: ")]

    for path in (root / "masks").iterdir():
        Image.fromarray(shades[INDEX]).save(path)
    assert len(told()) == 1 and "no opaque pixel of ground, but 12 transparent ones" in told()[0]
    shades[1, 3] = 0
    Image.fromarray(shades[INDEX]).save(root / "masks/x0.png")
    assert "no opaque pixel of ground, but 14 transparent ones" in told()[0]
    Image.fromarray(shades[INDEX] | np.array([0, 0, 0, 255], np.uint8)).save(root / "masks/x1.png")  # void elsewhere
    assert not told()


@pytest.mark.parametrize("order", [("red", "green"), ("green", "red")])
def test_declared_colours_that_the_palette_lacks_are_told(tmp_path, order):
    colours = {"red": "[255, 0, 0]", "green": "[0, 255, 0]"}
    yaml = "colours: {ground: [0, 0, 0], " + ", ".join(f"{name}: {colours[name]}" for name in order) + "}"
    folder(tmp_path, 2, yaml=yaml)
    told = [note for note in read_dataset(tmp_path).notes if note.startswith("warning: ")]
    assert len(told) == 1 and f"index 1, read as {order[0]!r}, has the colour {RED}" in told[0]
    folder(tmp_path, 2, yaml=f"{yaml}\nencoding: index")
    assert not any(note.startswith("warning: ") for note in read_dataset(tmp_path).notes)


def test_the_order_of_classes_known_by_colour_alone_is_asked_for(tmp_path):
    first = folder(tmp_path / "a")
    for path in (first / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)
    trained = read_dataset(first)
    assert trained.classes[0].startswith("colour_")
    second = folder(tmp_path / "b")
    np.testing.assert_array_equal(named(read_dataset(second, fallback=trained.label_map)), named(trained))
    for path in (second / "masks").iterdir():
        Image.fromarray(INDEX).save(path)
    with pytest.raises(DataError, match=r"x0\.png: contains class indices.*only by colour.*classes: \['colour_0_0_0'"):
        read_dataset(second, fallback=trained.label_map)
    (second / "dataset.yaml").write_text(f"classes: {trained.classes}")
    assert read_dataset(second, fallback=trained.label_map).classes == trained.classes
