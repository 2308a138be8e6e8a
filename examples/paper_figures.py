"""Figures of the FPL paper for any run: fuzzy sets, K during training, gradient scores.

python examples/paper_figures.py
fuzzyseg analyse runs/first --images 4
"""

from __future__ import annotations

from pathlib import Path

import fuzzyseg
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.experiment import analyse

if __name__ == "__main__":
    write_demo("photos", train=12, val=4, size=(64, 64))
    run = fuzzyseg.train(
        {
            "data": {"root": "photos", "labelled": "4"},
            "network": {"arch": "Unet", "encoder": "resnet18", "weights": "none"},
            "loss": {"name": "fuzzy"},
            # k_maps: number of validation images whose map of K is stored at each evaluation
            "train": {"steps": 4, "batch": 2, "crop": 64, "workers": 0, "device": "cpu", "eval_every": 2, "k_maps": 2},
            "out": "runs/figures",
        }
    ).run
    analyse(run, out=run / "analysis", images=2)
    for figure in sorted(Path(run / "analysis").glob("*.png")):
        print(figure)
