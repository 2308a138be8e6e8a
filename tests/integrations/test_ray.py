"""Prediction by workers of Ray Data: the results of `predict_files`, and only what is missing is predicted again."""

import os
from pathlib import Path

import pytest

from fuzzyseg.inference import predict_files
from fuzzyseg.integrations.ray import ray_workers
from support.small_images import noise, predictor, write

ray = pytest.importorskip("ray", reason="needs the extra ray: pip install 'fuzzyseg[ray]'")

KINDS = ["overlay", "k", "labelstudio"]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "predictions.jsonl"  # with times of files
    }


@pytest.fixture
def started(monkeypatch):
    """A small Ray on this machine, whose workers find the package and the tests."""
    package, tests = Path(predict_files.__code__.co_filename).parents[2], Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests}{os.pathsep}{package}")
    ray.init(address="local", num_cpus=3, include_dashboard=False, object_store_memory=2**27)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_results_are_those_of_one_process(tmp_path, monkeypatch, caplog, started):
    model, spread = predictor(), ray_workers(2)
    for seed in range(7):
        write(tmp_path / "in" / f"{seed}.png", noise(8, 9 + seed, seed))
    (tmp_path / "in" / "broken.png").write_bytes((tmp_path / "in" / "3.png").read_bytes()[:-40])
    written, failures = predict_files(model, tmp_path / "in", tmp_path / "one", write=KINDS)
    monkeypatch.chdir(tmp_path)
    seen = []
    by_ray = predict_files(
        model, Path("in"), Path("out"), write=KINDS, spread=spread, progress=lambda *numbers: seen.append(numbers)
    )
    assert [path.relative_to(tmp_path / "one") for path in written] == [path.relative_to("out") for path in by_ray[0]]
    assert contents(tmp_path / "one") == contents(tmp_path / "out") and len(written) > 7
    assert len(failures) == len(by_ray[1]) == 1 and "broken.png" in str(by_ray[1][0])
    assert seen == [(number, 8) for number in range(1, 9)]

    gone = tmp_path / "out" / "masks" / "2.png"
    gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "masks").iterdir()}
    predict_files(model, Path("in"), Path("out"), write=KINDS, spread=ray_workers(1))
    assert gone.is_file() and all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert "6 of 8 images" in caplog.text
