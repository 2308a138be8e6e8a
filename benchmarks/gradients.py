"""Gradient norm of each term of a method with respect to the first network, on batches of training data.

    python benchmarks/gradients.py recipes/camvid_sweep.yaml network.weights=mobilenet_v2_imagenet.safetensors \\
        --data CAMVID --labelled 23 --init start0/model,start1/model --methods pc2seg,vat --loss paper,hard,fuzzy

A pixel loss that replaces a term of a method should have gradients of about the same size. Prints the means of loss and
norm over the batches, in the middle of the ramps; weights do not change and no score is computed.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from fuzzyseg.config import ConfigError, merge, override, parse_override, read_yaml, validate
from fuzzyseg.experiment.build import build_method, resolve
from fuzzyseg.experiment.prepare_data import build_loader, gather_material
from fuzzyseg.methods import METHODS, Progress


def norms(values: dict[str, Any], batches: int, threshold: float) -> dict[str, tuple[float, float]]:
    """Term -> mean loss and mean gradient norm over the batches."""
    config = validate(override(values, ["loss", "threshold"], threshold))
    setup = resolve(config)
    material = gather_material(config.data, setup, config.seed)
    torch.manual_seed(config.seed)
    method = build_method(setup, material.facts)
    sections = config.data, config.augment, config.train
    loader = build_loader(*sections, material, method, torch.device("cpu"), config.seed)
    learner = next(part for part in method.children() if any(True for _ in part.parameters()))
    learnt = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    found = defaultdict(list)
    for number, (batch,) in enumerate(loader.batches(0, batches)):
        torch.manual_seed(number)
        moved = {name: samples.to(torch.device("cpu")) for name, samples in batch.items()}
        step = method(moved, Progress(config.train.steps // 2, config.train.steps))
        for name, loss in step.losses.items():
            if loss.requires_grad:
                gradients = torch.autograd.grad(loss, learnt, retain_graph=True, allow_unused=True)
                squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
                found[name].append((loss.item(), torch.stack(squares).sum().sqrt().item() if squares else 0.0))
    return {name: (mean(a for a, _ in each), mean(b for _, b in each)) for name, each in found.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--labelled", required=True)
    parser.add_argument("--init", required=True, help="weights to begin from, as many as a method trains networks")
    parser.add_argument("--methods", required=True)
    parser.add_argument("--loss", default="paper,hard,fuzzy")
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args()
    base = read_yaml(args.recipe)
    base.pop("start", None)
    for setting in args.settings:
        base = override(base, *parse_override(setting))
    base = merge(base, {"data": {"root": args.data, "labelled": args.labelled, "split_seed": 0}, "out": "unused"})
    print("| method | loss | term | loss | gradient |\n| --- | --- | --- | --- | --- |")
    for name in args.methods.split(","):
        init = args.init.split(",")[: METHODS[name].learners]
        for loss in args.loss.split(","):
            values = merge(base, {"method": {"name": name}, "loss": {"name": loss}, "init": init})
            try:
                found = norms(values, args.batches, args.threshold)
            except ConfigError as error:
                print(f"{name} with {loss}: {error}")
                continue
            for term, (value, norm) in found.items():
                print(f"| {name} | {loss} | {term} | {value:.3f} | {norm:.2f} |", flush=True)


if __name__ == "__main__":
    main()
