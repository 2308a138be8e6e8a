import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fuzzyseg.data
from fuzzyseg.data import DataError, Reader, read_dataset
from fuzzyseg.data.datasets.synthetic import CLASSES, GROUPS, draw_sample, write_demo

CODE = """
import sys
from fuzzyseg.data.datasets.synthetic import write_demo
write_demo(sys.argv[1], seed=3, train=3, val=2, size=(40, 56))
"""


def digest(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.*"))
        if path.is_file()
    }


def test_demo_is_a_folder_data_set_with_names_and_colours(tmp_path):
    write_demo(tmp_path / "demo", train=4, val=2)
    data = read_dataset(tmp_path / "demo")
    assert (data.layout, len(data.train), len(data.val)) == ("folder", 4, 2)
    assert data.classes == list(CLASSES)
    assert len(data.colours) == len(CLASSES) == 10
    image, mask = Reader(3, 10, 255).read(data.train[0], True)
    assert image.shape == (3, 96, 128)
    assert mask.max() < 10
    with pytest.raises(DataError, match="not an empty folder"):
        write_demo(tmp_path / "demo")


def test_demo_follows_from_the_seed_in_every_process(tmp_path):
    source = str(Path(fuzzyseg.data.__file__).parents[3])
    subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "other")],
        check=True,
        env={"PYTHONPATH": source, "PYTHONHASHSEED": "5"},
    )
    write_demo(tmp_path / "here", seed=3, train=3, val=2, size=(40, 56))
    assert digest(tmp_path / "here") == digest(tmp_path / "other")
    write_demo(tmp_path / "seed", seed=4, train=3, val=2, size=(40, 56))
    assert not set(digest(tmp_path / "seed").items()) & {
        pair for pair in digest(tmp_path / "here").items() if "images" in pair[0]
    }


def test_more_pictures_leave_the_first_ones_alone(tmp_path):
    write_demo(tmp_path / "few", train=2, val=1, size=(40, 56))
    write_demo(tmp_path / "many", train=4, val=3, size=(40, 56))
    assert set(digest(tmp_path / "few").items()) <= set(digest(tmp_path / "many").items())
    few = digest(tmp_path / "few")
    assert few["images/train/demo_0000.png"] != few["images/val/demo_0000.png"]


def test_all_classes_occur_and_siblings_are_nearer_than_strangers():
    samples = [draw_sample(np.random.default_rng(seed)) for seed in range(60)]
    image = np.concatenate([image.reshape(-1, 3) for image, _ in samples]).astype(float)
    mask = np.concatenate([mask.ravel() for _, mask in samples])
    share = np.bincount(mask, minlength=10) / mask.size
    assert share.min() > 0.01
    mean = np.array([image[mask == c].mean(0) for c in range(10)])
    spread = np.array([image[mask == c].std(0).mean() for c in range(1, 10)]).mean()
    assert all(len(names) >= 3 for _, names in GROUPS)  # two alone never give K > 1
    for group in range(3):
        own = mean[1 + 3 * group : 4 + 3 * group]
        others = np.delete(mean, [0, *range(1 + 3 * group, 4 + 3 * group)], axis=0)
        within = np.linalg.norm(own[:, None] - own[None], axis=2).max()
        between = np.linalg.norm(own[:, None] - others[None], axis=2).min()
        assert within < between
        assert within / 3**0.5 < 1.5 * spread  # so that colour alone does not tell siblings apart
