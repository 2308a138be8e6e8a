"""Prediction by workers of Ray Data: the results of `predict_files`, and only what is missing is predicted again."""

import os
import signal
from pathlib import Path

import pytest

from fuzzyseg.data import DataError
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


@pytest.fixture(scope="module")
def started():
    """A small Ray on this machine, whose workers find the package and the tests."""
    package, tests = Path(predict_files.__code__.co_filename).parents[2], Path(__file__).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tests}{os.pathsep}{package}")
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_image_that_cannot_be_read_does_not_affect_those_of_its_block(tmp_path, started):
    for number in range(30):  # 20 blocks, the first of which has two rows
        write(tmp_path / "in" / f"{number:02}.png", noise(6, 7, number))
    (tmp_path / "in" / "00.png").write_bytes(b"nonsense")
    written, failures = predict_files(
        predictor(), tmp_path / "in", tmp_path / "out", write=["mask"], spread=ray_workers(1)
    )
    assert len(failures) == 1 and "00.png" in str(failures[0])
    assert len(written) == 29 + 1
    assert len((tmp_path / "out" / "class_shares.csv").read_text().splitlines()) == 29 + 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_cannot_be_written_is_reported_as_by_one_process(tmp_path, started):
    write(tmp_path / "in" / "a.png", noise(6, 7))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "masks").touch()  # a file in place of the folder
    messages = []
    for options in ({}, {"spread": ray_workers(1)}):
        with pytest.raises(
            DataError, match=r"masks: cannot be written \(File exists\); the results of 0 of 1"
        ) as error:
            predict_files(predictor(), tmp_path / "in", tmp_path / "out", write=["mask"], **options)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_image_that_kills_its_worker_is_not_repeated_for_ever(tmp_path, started):
    write(tmp_path / "in" / "a.png", noise(6, 7))
    model = predictor()
    model.network.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ValueError, match="--ray: a worker died repeatedly"):
        predict_files(model, tmp_path / "in", tmp_path / "out", spread=ray_workers(1))


def test_a_cluster_that_cannot_be_reached_is_no_fault_of_the_results(tmp_path, monkeypatch):
    def unreachable():
        raise ConnectionError("no answer")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", unreachable)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    write(tmp_path / "in" / "a.png", noise(6, 7))
    with pytest.raises(ValueError, match=r"--ray: no answer; RAY_ADDRESS is 10\.0\.0\.1:6379"):
        predict_files(predictor(), tmp_path / "in", tmp_path / "out", spread=ray_workers(1))
