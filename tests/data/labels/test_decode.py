import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.labels.decode import UNMAPPED, decode_array, remap_classes, stored_labels, training_labels
from fuzzyseg.data.sample import Encoding


def literal(mask, values, ignore):
    """The rule of `Encoding`, a pixel at a time."""
    result = np.zeros(mask.shape, int)
    for place, value in np.ndenumerate(mask):
        ignored = (ignore,) if values.ignore is None else values.ignore
        index = int(value)
        if index in (*ignored, 255) or (values.reduce_zero and index == 0):
            result[place] = 255
            continue
        if values.reduce_zero:
            index -= 1
        result[place] = index if values.table is None else dict(values.table)[index]
    return result


@pytest.mark.parametrize(
    "values",
    [
        Encoding(),
        Encoding(reduce_zero=True),
        Encoding(ignore=(3,)),
        Encoding(table=tuple((i, (7 * i) % 5) for i in range(12))),
        Encoding(table=tuple((i, 255 if i % 3 else i) for i in range(12)), reduce_zero=True, ignore=(9,)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("ignore", [255, 4])
def test_values_become_class_indices_as_the_rule_says(tmp_path, values, dtype, ignore):
    mask = np.random.default_rng(0).choice([*range(11), 255], (9, 7)).astype(dtype)
    result = decode_array(mask, values, ignore, tmp_path).labels
    np.testing.assert_array_equal(result, literal(mask, values, ignore))


@pytest.mark.parametrize(
    "first", [Encoding(), Encoding(reduce_zero=True), Encoding(table=((0, 2), (1, 255), (2, 0), (3, 1)))]
)
def test_renaming_is_values_and_then_the_order(tmp_path, first):
    mask = np.array([[0, 1, 2, 3, 255, 9]], np.uint8)
    order = [2, 0, 1, 3]
    once = literal(mask, first, 9)
    expected = np.array([[255 if index == 255 else order[index] for index in once[0]]])
    second = remap_classes(first, 9, order, "words")
    np.testing.assert_array_equal(decode_array(mask, second, 255, tmp_path).labels, expected)


def test_a_value_without_meaning_is_an_error_with_count_and_file(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(np.array([[0, 5, 5], [7, 1, 255]], np.uint8)).save(path)
    item = Item(tmp_path / "i.png", path, "i", Encoding(table=((0, 0), (1, 1)), text="0 and 1"))
    with pytest.raises(DataError, match=r"m\.png: found the values 5, 7 in 3 pixels; expected 0 and 1"):
        training_labels(item, classes=2, ignore_index=255)
    assert decode_array(np.array([[0, 70000, -1]]), Encoding(), 255, path).labels.tolist() == [[0, UNMAPPED, UNMAPPED]]
    assert decode_array(np.array([[0, 70000, -1]]), Encoding(ignore=(-1, 70000)), 255, path).labels.tolist() == [
        [0, 255, 255]
    ]
    # An index beyond the classes is told like that of any other mask.
    with pytest.raises(DataError, match=r"found the values 5, 7"):
        training_labels(Item(item.image, path, "i", Encoding()), classes=2, ignore_index=255)


def test_the_reader_and_the_list_of_values_go_by_the_item(tmp_path):
    image, mask = tmp_path / "i.png", tmp_path / "m.png"
    Image.fromarray(np.zeros((1, 4, 3), np.uint8)).save(image)
    Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).save(mask)
    item = Item(image, mask, "i", Encoding(reduce_zero=True))
    assert Reader(3, 3, 255, cache_bytes=1000).read(item, True)[1].tolist() == [[255, 0, 1, 2]]
    assert stored_labels(item).tolist() == [[255, 0, 1, 2]]
    assert training_labels(item, classes=3, ignore_index=2).tolist() == [[255, 0, 255, 2]]
