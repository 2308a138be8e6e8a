"""Stored predictions: what is read back, and damaged files."""

from __future__ import annotations

import os

import pytest
import torch

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.scores import read_scores, scores_file, with_scores, write_scores


def test_probabilities_are_read_back_to_a_thirty_second_of_their_logarithm(tmp_path):
    logits = 4 * torch.randn(7, 5, 6, generator=torch.Generator().manual_seed(0)) + 30
    path = tmp_path / "train" / "a.npz"
    write_scores(path, logits)
    result = read_scores(Item(tmp_path / "a.png", None, "a", scores=path))
    assert result.shape == (7, 5, 6)
    assert result.dtype == torch.float32
    expected = logits.log_softmax(0)
    seen = expected > -15.9
    assert seen.float().mean() > 0.9
    assert (result - expected)[seen].abs().max() <= 1 / 32 + 1e-5
    assert (result[~seen] <= -15.9).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        read_scores(Item(tmp_path / "a.png", None, "a", scores=path))


def test_an_archive_of_something_else_is_named(tmp_path):
    import numpy as np

    path = tmp_path / "a.npz"
    np.savez(path, labels=np.zeros(3))
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        read_scores(Item(tmp_path / "a.png", None, "a", scores=path))


def test_a_changed_image_has_another_file(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    item = Item(image, None, "train/a")
    first = scores_file(tmp_path, item)
    assert first.parent == tmp_path / "train" and scores_file(tmp_path, item) == first
    os.utime(image, ns=(0, 0))
    assert scores_file(tmp_path, item) != first


def test_predictions_of_earlier_versions_are_found_by_name(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    with pytest.raises(DataError, match="1 of 1"):
        with_scores([Item(image, None, "a")], str(tmp_path))
    (tmp_path / "a.npz").write_bytes(b"")
    (item,) = with_scores([Item(image, None, "a")], str(tmp_path))
    assert item.scores == tmp_path / "a.npz"
