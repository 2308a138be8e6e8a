import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import Item
from fuzzyseg.data.labels.class_counts import class_presence, median_frequency_weights, pixel_counts


def put(folder, name, mask):
    path = folder / f"{name}.png"
    Image.fromarray(np.array(mask, np.uint8)).save(path)
    return Item(path, path, name)


def test_pixels_are_counted_by_class_and_void_comes_last(tmp_path):
    items = [put(tmp_path, "a", [[0, 0, 2], [2, 2, 255]]), put(tmp_path, "b", [[9, 1]])]
    assert pixel_counts(items, classes=3, ignore_index=9).tolist() == [[2, 0, 3, 1], [0, 1, 0, 1]]
    assert class_presence(items, classes=3, ignore_index=9).tolist() == [[True, False, True], [False, True, False]]


def test_weights_are_median_frequencies():
    # class 0: 60 of 100 pixels; class 1: 30 of 100; class 2: 10 of 40, as it is only in the first image; class 3: none
    counts = np.array([[10, 20, 10, 0, 7], [50, 10, 0, 0, 0]])
    assert median_frequency_weights(counts) == pytest.approx([0.3 / 0.6, 1, 0.3 / 0.25, 1])


def test_masks_of_void_weigh_nothing():
    assert median_frequency_weights(np.array([[0, 0, 5]])) == [1, 1]
