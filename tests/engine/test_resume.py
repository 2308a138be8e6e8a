"""A resumed training equals an uninterrupted one, bit for bit, wherever it was saved or stopped."""

import json
import os
import signal
from contextlib import closing
from functools import partial

import pytest
import torch
from toy_training import Lines, ToyMethod, batches, differences, evaluate, flat, optimisers, settings

from fuzzyseg.engine import NonFiniteLoss, fit
from fuzzyseg.engine.checkpoint import CheckpointError, load
from fuzzyseg.methods.base import Step
from fuzzyseg.run import MetricsLog

CASES = {
    "sgd, accumulation": {"accumulate": 2, "ema": 0.9},
    "adamw, clipping": {"name": "adamw", "lr": 1e-2, "clip": 0.5, "ema": 0.8, "schedule": "cosine", "warmup": 3},
    "fp16": {"precision": "fp16", "ema": 0.9},
    "bf16, channels last": {"precision": "bf16", "channels_last": True, "freeze_batch_norm": True},
}


def run(
    folder, *, stop_at=None, resume=None, accumulate=1, name="sgd", lr=0.05, sinks=(), on_step=None, score=evaluate,
    **options,
):  # fmt: skip
    method = ToyMethod()
    state = None if resume is None else load(resume)
    keep = 0 if state is None else state["step"] - ("unscored" in state)
    with closing(MetricsLog(folder / "metrics.jsonl", keep_to=keep)) as log:
        outcome = fit(
            method,
            batches(accumulate, on_step=on_step),
            optimisers(method, name, lr),
            settings(**{"stop_at": stop_at, "eval_every": 5, "save_every": 3, **options}),
            evaluate=score,
            keep_best=lambda predictor, result: None,
            stream_state=lambda: {"drawn": torch.arange(3)},
            sinks=[log, *sinks],
            checkpoint=folder / "last.pt",
            config={"seed": 7},
            resume=state,
        )
    return outcome


def lines(folder):
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(set(row.pop("time")) >= {"images_per_second", "eta_seconds", "memory_mib"} for row in rows)
    return rows


@pytest.mark.parametrize("case", CASES)
def test_resuming_gives_the_same_bits(tmp_path, case):
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    straight.mkdir()
    parted.mkdir()
    whole = run(straight, **CASES[case])
    half = run(parted, stop_at=10, **CASES[case])
    assert (half.step, half.finished, half.interrupted) == (10, False, False)
    rest = run(parted, resume=parted / "last.pt", **CASES[case])
    assert (rest.step, rest.finished) == (20, True)
    a, b = load(straight / "last.pt"), load(parted / "last.pt")
    assert differences(a, b) == []
    assert differences({"steps": lines(straight)}, {"steps": lines(parted)}) == []
    assert (whole.last, whole.best) == (rest.last, rest.best)
    assert [line["step"] for line in lines(parted)] == [1, 4, 5, 8, 10, 12, 15, 16, 20]
    # all kinds of state are compared, and they have changed
    kinds = ["running_var", "student", "teacher", "optimisers", "scaler", "streams"]
    assert all(any(kind in path for path in flat(a)) for kind in kinds if kind != "scaler" or case == "fp16")
    assert differences(a["modules"]["method"], load_first(tmp_path, CASES[case])["modules"]["method"])


def load_first(tmp_path, case):
    folder = tmp_path / "first"
    folder.mkdir()
    run(folder, stop_at=1, **case)
    return load(folder / "last.pt")


def test_lines_past_the_checkpoint_are_cut_off_after_a_crash(tmp_path):
    straight, crashed = tmp_path / "straight", tmp_path / "crashed"
    straight.mkdir()
    crashed.mkdir()
    run(straight)

    def crash(step):
        if step == 17:
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        run(crashed, on_step=crash)
    assert load(crashed / "last.pt")["step"] == 15
    assert lines(crashed)[-1]["step"] == 16
    run(crashed, resume=crashed / "last.pt")
    assert differences({"steps": lines(straight)}, {"steps": lines(crashed)}) == []
    assert differences(load(straight / "last.pt"), load(crashed / "last.pt")) == []


@pytest.mark.parametrize("at", [15, 20])  # the last step, too
@pytest.mark.parametrize("logged", [False, True])
def test_a_failed_evaluation_costs_no_step_and_is_made_up_for(tmp_path, at, logged):
    straight, failed = tmp_path / "straight", tmp_path / "failed"
    straight.mkdir()
    failed.mkdir()
    whole = run(straight, keep_checkpoints=2)

    class Full(Lines):
        def write(self, line):
            if line["step"] == at and logged:  # the line is in the log, the second checkpoint is not written
                raise OSError("disk full")

    def fails(predictor, step):
        if step == at and not logged:
            raise OSError("disk full")
        return evaluate(predictor, step)

    with pytest.raises(OSError, match="disk full"):
        run(failed, keep_checkpoints=2, score=fails, sinks=[Full()])
    assert load(failed / "last.pt")["step"] == at
    rest = run(failed, keep_checkpoints=2, resume=failed / "last.pt")
    assert (rest.last, rest.best) == (whole.last, whole.best)
    assert differences({"steps": lines(straight)}, {"steps": lines(failed)}) == []
    for name in ("last.pt", "last-1.pt"):  # the two checkpoints of a step take one place
        assert differences(load(straight / name), load(failed / name)) == []
    assert [load(failed / name)["step"] for name in ("last.pt", "last-1.pt")] == [20, 18]


def test_a_finished_run_trains_no_further_and_knows_its_scores(tmp_path):
    first = run(tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    again = run(tmp_path, resume=tmp_path / "last.pt")
    assert (again.step, again.finished, again.last, again.best) == (20, True, first.last, first.best)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert first.last["step"] == 20


def test_stop_at_changes_no_schedule(tmp_path):
    sink, other = Lines(), Lines()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run(tmp_path / "a", sinks=[sink])
    run(tmp_path / "b", stop_at=8, sinks=[other])
    rates = {line["step"]: line["lr"] for line in sink.lines}
    assert all(line["lr"] == rates[line["step"]] for line in other.lines)
    assert [line["step"] for line in other.lines] == [1, 4, 5, 8]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_the_first_signal_finishes_the_step_and_saves(tmp_path, number, capfd, request):
    if number == signal.SIGHUP:  # ignored, and so not handled, where the tests run under nohup
        request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))
    before = signal.getsignal(number)
    outcome = run(tmp_path, on_step=lambda step: os.kill(os.getpid(), number) if step == 6 else None)
    assert (outcome.step, outcome.finished, outcome.interrupted) == (7, False, True)
    assert load(tmp_path / "last.pt")["step"] == 7
    assert signal.getsignal(number) is before
    assert "a second signal stops at once" in capfd.readouterr().err
    (tmp_path / "straight").mkdir()
    run(tmp_path / "straight")
    assert run(tmp_path, resume=tmp_path / "last.pt").finished
    assert differences(load(tmp_path / "last.pt"), load(tmp_path / "straight" / "last.pt")) == []
    assert differences({"x": lines(tmp_path)}, {"x": lines(tmp_path / "straight")}) == []


def test_a_hangup_is_ignored_under_nohup(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = run(tmp_path, stop_at=8, on_step=lambda step: os.kill(os.getpid(), signal.SIGHUP))
        assert (outcome.step, outcome.interrupted) == (8, False)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def infinite(step):
        if step == 5:
            method.teacher.head.bias.data[0] = torch.inf

    method = ToyMethod()
    method.forward = lambda batch, progress: Step({"x": method.student(batch["labelled"].image).square().mean()})
    call = {"checkpoint": tmp_path / "last.pt", "stream_state": dict}
    with pytest.raises(NonFiniteLoss, match="step 6: the weights are not finite"):
        fit(method, batches(on_step=infinite), optimisers(method), settings(save_every=3), **call)
    assert load(tmp_path / "last.pt")["step"] == 3


def test_a_checkpoint_that_does_not_fit_is_one_sentence(tmp_path):
    run(tmp_path, stop_at=3)
    state = load(tmp_path / "last.pt")
    state["modules"]["method"].popitem()
    method = ToyMethod()
    with pytest.raises(CheckpointError, match="does not fit this method") as caught:
        fit(method, batches(), optimisers(method), settings(), resume=state)
    assert "\n" not in str(caught.value)


def test_the_second_signal_ends_at_once(tmp_path):
    def twice(step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_step=twice)
    assert load(tmp_path / "last.pt")["step"] == 6
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_in_the_last_step_finishes(tmp_path):
    outcome = run(tmp_path, on_step=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 19 else None)
    assert (outcome.step, outcome.finished, outcome.interrupted) == (20, True, False)
    assert outcome.last["step"] == 20
