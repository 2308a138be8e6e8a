"""Run by test_processes.py as `two_processes.py RANK FOLDER`: one of two processes; each writes its results."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toy_training import Lines, ToyMethod, batches, evaluate, optimisers, settings

from fuzzyseg.engine import NonFiniteLoss, fit
from fuzzyseg.engine.checkpoint import load


def train(method, part, sinks=(), on_step=None, accumulate=1, call=None, **options):
    draw = batches(accumulate, on_step=on_step, part=part)
    return fit(method, draw, optimisers(method), settings(**options), sinks=sinks, **(call or {}))


def still_method():
    return ToyMethod(dropout=0.0, noise=0.0, norm=lambda channels: nn.GroupNorm(2, channels))


def equal_to_one_process(part):
    method, sink = still_method(), Lines()
    train(method, part, [sink], steps=5, log_every=1, clip=0.5)
    return {
        "weights": method.state_dict(),
        "lines": [{**line, "time": None} for line in sink.lines],
        "drawn": method.drawn,
    }


def a_loss_breaks_on_the_second(rank, part):
    method = still_method()
    method.break_at = 2 if rank == 1 else None
    try:
        train(method, part, steps=5)
    except NonFiniteLoss as error:
        return str(error)


def a_signal_on_the_second(rank, part, folder):
    def kill(step):
        if rank == 1 and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = train(still_method(), part, on_step=kill, steps=9, call={"checkpoint": folder / "signal.pt"})
    return {"step": outcome.step, "interrupted": outcome.interrupted}


def resumed(part, folder):
    """With batch norm, whose statistics differ between processes, and accumulation."""
    states = []
    for stops in ([None], [4, None]):
        path, scores = folder / f"resumed-{len(stops)}.pt", []
        for number, stop_at in enumerate(stops):
            method = ToyMethod()
            call = {
                "evaluate": lambda predictor, step, scores=scores: (
                    scores.append(evaluate(predictor, step)) or scores[-1]
                ),
                "checkpoint": path,
                "resume": load(path) if number else None,
            }
            options = {"steps": 8, "stop_at": stop_at, "eval_every": 2, "ema": 0.9}
            train(method, part, accumulate=2, call=call, **options)
            dist.barrier()
        states.append({"method": method.state_dict(), "scores": scores})
    return states


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = slice(2 * rank, 2 * rank + 2)
    seen = {
        "equal": equal_to_one_process(part),
        "broken": a_loss_breaks_on_the_second(rank, part),
        "signal": a_signal_on_the_second(rank, part, folder),
        "resumed": resumed(part, folder),
    }
    torch.save(seen, folder / f"seen-{rank}.pt")
    dist.destroy_process_group()
