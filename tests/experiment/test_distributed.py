"""Several processes with gloo, on one machine or on two, equal one process on the same global batch."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid

import pytest
import torch

from support import torchrun
from support.tiny_data import settings, write_folder

pytestmark = pytest.mark.slow

LOSSES = {
    "calibrated": {"name": "fuzzy", "threshold": "calibrated", "rule": "continuous", "calibrated": {"every": 2}},
    "conformal": {"name": "fuzzy", "threshold": "conformal:0.8", "calibrated": {"every": 2, "hold_back": 0.4}},
}
NORMS = {"group": "group", "frozen": "batch"}
TRAIN = {"steps": 5, "log_every": 1, "evaluate": False, "crop": [24, 32]}
LONGER = TRAIN | {"steps": 6, "save_every": 2}


def compare(one, several):
    """Weights and losses are equal within 1e-5."""
    (state, rows), (other, other_rows) = one, several
    for name, value in state["modules"]["method"].items():
        torch.testing.assert_close(other["modules"]["method"][name], value, rtol=0, atol=1e-5, msg=name)
    for a, b in zip(rows, other_rows, strict=True):
        for name in a["losses"]:
            assert b["losses"][name] == pytest.approx(a["losses"][name], abs=1e-5), (a["step"], name)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Function that returns the configuration of a case for an output folder, and the result of one process."""
    folder = tmp_path_factory.mktemp("one")
    root, known = write_folder(folder / "data"), {}

    def result(out, loss="fuzzy", cutmix=True, norm="group"):
        def config(out):
            # Scales below 1 leave much padding, so the processes have unequal numbers of valid pixels.
            return settings(
                root, out, loss=LOSSES.get(loss, {"name": loss}), method={"name": "cps", "cutmix": cutmix},
                train=TRAIN | {"freeze_batch_norm": norm == "frozen"}, augment={"scale": [0.4, 1.2]},
            )  # fmt: skip

        case = (loss, cutmix, norm)
        if case not in known:
            known[case] = torchrun.launch(config(folder / str(len(known))), 1, NORMS[norm])
        return config(out), known[case]

    return result


@pytest.mark.parametrize(
    ("loss", "cutmix", "norm", "processes"),
    [
        ("fuzzy", True, "group", 2),
        ("fuzzy", True, "group", 4),
        ("hard", False, "group", 2),
        ("fuzzy", True, "frozen", 2),
        ("calibrated", True, "group", 2),
        ("conformal", True, "group", 2),
    ],
)
def test_several_processes_equal_one(tmp_path, one, loss, cutmix, norm, processes):
    config, expected = one(tmp_path / "run", loss, cutmix, norm)
    compare(expected, torchrun.launch(config, processes, NORMS[norm]))


@pytest.fixture
def nodes():
    """Two network namespaces, connected by a veth pair: their names, and the address of the first."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2 (ip netns)")
    tag = uuid.uuid4().hex[:8]
    names = [f"node{number}-{tag}" for number in range(2)]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", "veth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "veth0", "up")
        yield names, "10.99.0.1"
    finally:
        for name in names:  # takes the interfaces along
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_machines_equal_one_process(tmp_path, one, nodes):
    names, address = nodes
    config, expected = one(tmp_path / "run")
    options = ["--nnodes=2", "--nproc-per-node=1", f"--master-addr={address}", "--master-port=29500"]
    environment = torchrun.environment() | {"GLOO_SOCKET_IFNAME": "veth0"}
    running = []
    try:
        for rank, name in enumerate(names):
            inside = ["ip", "netns", "exec", name, *torchrun.command(config, "group", *options, f"--node-rank={rank}")]
            with (tmp_path / f"{name}.txt").open("w") as log:
                running.append(subprocess.Popen(inside, env=environment, stdout=log, stderr=log))
        codes = [process.wait(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [0, 0], "\n".join((tmp_path / f"{name}.txt").read_text()[-2000:] for name in names)
    compare(expected, torchrun.left_by(config))


def test_a_killed_process_ends_the_job_in_a_minute(tmp_path):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", train=LONGER)
    start = torchrun.command(config, "group", *torchrun.on_this_machine(2), die="1:5")
    done = subprocess.run(start, capture_output=True, text=True, env=torchrun.environment())
    last_line = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime
    assert done.returncode != 0 and time.time() - last_line < 60, done.stderr[-2000:]
    assert torchrun.left_by(config)[0]["step"] == 4


@pytest.mark.timeout(1200)
def test_a_restart_after_a_killed_process_repeats_the_run(tmp_path):
    root = write_folder(tmp_path / "data")
    straight, killed = (settings(root, tmp_path / out, train=LONGER) for out in ("straight", "killed"))
    start = torchrun.command(killed, "group", *torchrun.on_this_machine(2, "--max-restarts=1"), die="1:5")
    done = subprocess.run(start, capture_output=True, text=True, env=torchrun.environment())
    assert done.returncode == 0, done.stderr[-2000:]
    sessions = json.loads((tmp_path / "killed" / "environment.json").read_text())
    assert len(sessions["earlier"]) == 1  # it died, and was resumed
    (state, rows), (resumed, resumed_rows) = torchrun.launch(straight, 2), torchrun.left_by(killed)
    assert [row["step"] for row in resumed_rows] == [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["losses"] for row in resumed_rows] == [row["losses"] for row in rows]
    for name, value in state["modules"]["method"].items():
        assert torch.equal(resumed["modules"]["method"][name], value), name


def numbers(value, path=""):
    """The plain values in nested containers by path."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, part in pairs for key, leaf in numbers(part, f"{path}/{name}").items()}
    return {path: value}


def test_two_processes_measure_each_image_once(tmp_path):
    root, found = write_folder(tmp_path / "data"), []
    loss = {"name": "fuzzy", "threshold": "conformal:0.8", "calibrated": {"every": 1, "hold_back": 0.5}}
    train = TRAIN | {"steps": 2, "evaluate": True, "eval_every": 0, "k_maps": 2}
    for processes in (1, 2):  # 3 validation images, 3 held back, 3 labelled: uneven shares
        out = tmp_path / str(processes)
        config = settings(root, out, loss=loss, train=train, optim={"lr": 1e-12}, evaluate={"gallery": 2})
        state, rows = torchrun.launch(config, processes)
        evaluation = json.loads((out / "evaluation" / "evaluation.json").read_text())
        buffers = {name: value for name, value in state["modules"]["method"].items() if "pixel_loss" in name}
        maps = {path.name: path.read_bytes() for path in (out / "maps").rglob("*.png")}
        found.append((numbers([rows[-1]["evaluation"], evaluation]), buffers, maps))
    (one, fitted, maps), (two, fitted_by_two, maps_of_two) = found
    assert any("temperature" in name for name in fitted) and len(maps) == 2
    assert one.keys() == two.keys() and maps == maps_of_two
    for key, value in one.items():
        expected = pytest.approx(value, rel=0, abs=1e-6) if isinstance(value, float) else value
        assert two[key] == expected, key
    for name, value in fitted.items():
        torch.testing.assert_close(fitted_by_two[name], value, rtol=0, atol=1e-6, msg=name)
