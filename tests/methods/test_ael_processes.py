"""AEL in two processes: banks, draws and weights equal those of one process."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Progress
from fuzzyseg.methods.ael import AEL
from support.processes import run_in_processes
from support.tiny_network import TinyNetwork, make_batch


def learn_part(rank):
    return learn(slice(2 * rank, 2 * rank + 2), parallel=True)


def learn(part, *, parallel):
    """Three steps on the given samples of a batch of four; parallel: with DDP."""
    torch.manual_seed(0)
    pixel = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, 0.6)
    facts = Facts(5, images={"unlabelled": 9})
    method = AEL(lambda: TinyNetwork(norm="group"), SupervisedLoss("ce"), pixel, AEL.Config(mix_area=0), facts)
    runner = method
    if parallel:
        runner = DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=True)
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        batch = {}
        for number, (name, stream) in enumerate(method.streams.items()):
            whole = make_batch(4, masks=stream.source == "labelled", seed=10 * step + number)
            whole.index = (whole.index + 4 * number + step) % 9
            whole.drawn_for = torch.tensor([-1, 0, 1, 2])
            batch[name] = rows(whole, part)
        torch.stack(list(runner(batch, Progress(step, 3)).losses.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(Progress(step, 3))
    return method.state_dict() | {"draw": method.draw_weights("partner")}


def rows(batch, part):
    """Some samples of a batch without strong views."""
    mask = None if batch.mask is None else batch.mask[part]
    return type(batch)(
        batch.image[part], batch.valid[part], mask, batch.index[part], batch.name[part], batch.seed[part],
        batch.drawn_for[part],
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    seen = run_in_processes(learn_part, tmp_path)
    one = learn(slice(0, 4), parallel=False)
    assert one["shown"].any()
    assert not one["shown"].all()
    for result in seen:
        for name, value in one.items():
            torch.testing.assert_close(result[name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
