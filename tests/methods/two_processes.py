"""Run by test_methods_in_processes.py as `two_processes.py RANK FOLDER`: one of two processes trains every case."""

import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzyseg.methods import Progress
from methods.test_contract import CASES, batches, build, cut, optimisers, still

STEPS = {"gct": 1}
"""Two steps, but for GCT: which pixels teach hangs on thresholds there, and in a second step rounding moves some."""


def train(case, part, *, wrap=lambda method: method):
    """The losses of each step and the method's state, from `part` of each batch of four; dropout and noise are off."""
    name, loss, options = case
    method = still(build(name, loss, options, norm="group"))
    moving, runner = optimisers(method), wrap(method)
    losses = []
    for number in range(STEPS.get(name, 2)):
        progress = Progress(number, 10)
        torch.manual_seed(number)
        whole = batches(method, seed=number, count=4)
        for samples in whole.values():  # the halves have unequal numbers of valid pixels
            samples.valid[0, :5] = False
            if samples.mask is not None:
                samples.mask[0, :5] = 255
        terms = runner({stream: cut(samples, part) for stream, samples in whole.items()}, progress).losses
        torch.stack(list(terms.values())).sum().backward()
        for optimiser in moving:
            optimiser.step()
            optimiser.zero_grad()
        method.after_step(progress)
        losses.append({key: float(value.detach()) for key, value in terms.items()})
    return {"losses": losses, "state": method.state_dict()}


def distributed(method):
    return DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = slice(2 * rank, 2 * rank + 2)
    torch.save([train(case, part, wrap=distributed) for case in CASES], folder / f"seen-{rank}.pt")
    dist.destroy_process_group()
