"""Run by test_ael_processes.py as `ael_process.py RANK FOLDER`: one of two processes; each writes what it learnt."""

import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import AEL, Facts, Progress
from support.tiny_network import TinyNetwork, make_batch


def learn(part, rows, *, parallel):
    """Three steps on the given samples of four; parallel: in DDP, as one of two processes."""
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(learn(slice(2 * rank, 2 * rank + 2), rows, parallel=True), folder / f"seen-{rank}.pt")
    dist.destroy_process_group()
