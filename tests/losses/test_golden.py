"""Every array of the golden files, reproduced. `pytest -s tests/losses/test_golden.py` prints the largest errors."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import assign_fuzzy_positives, fuzzy_positive_loss, fuzzy_positive_weight, positive_gradient_score

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
# A cumulative probability nearer to T than this may flip K (golden/README.md).
MARGIN = {torch.float32: 1e-5, torch.float64: 1e-12}
# Largest error allowed: loss and gradient relative to max(1, size), the rest absolute.
LIMIT = {torch.float32: 3e-6, torch.float64: 1e-12}
MODES = ("concave", "linear", "convex", "none")

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files lie outside the repository (../shared)")


class Errors:
    """The largest error seen for each kind of array."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = defaultdict(float)
        self.compared: dict[str, int] = defaultdict(int)

    def add(self, kind: str, found: Tensor, expected: np.ndarray, where: np.ndarray | None = None) -> None:
        wanted = torch.from_numpy(np.asarray(expected))
        assert found.shape == wanted.shape, kind
        scale = wanted.double().abs().clamp(min=1) if kind.startswith(("loss", "mean", "grad")) else 1.0
        error = (found.double() - wanted.double()).abs() / scale
        if where is not None:
            error = error[torch.from_numpy(np.ascontiguousarray(where))]
        assert not error.isnan().any(), kind
        self.compared[kind] += error.numel()
        self.largest[kind] = max(self.largest[kind], float(error.max()) if error.numel() else 0.0)

    def report(self, title: str, limit: float) -> None:
        print(f"\n{title}")
        for kind, error in sorted(self.largest.items()):
            print(f"  {kind:<22}{error:10.2e}  over {self.compared[kind]} values")
        too_large = {kind: error for kind, error in self.largest.items() if not error <= limit}
        assert not too_large
        assert all(self.compared.values())


def cases(file: str) -> Iterator[tuple[str, dict[str, np.ndarray], np.ndarray]]:
    data = np.load(GOLDEN / file)
    for case in data["cases"]:
        prefix = f"{case}/"
        yield str(case), {key[len(prefix) :]: data[key] for key in data.files if key.startswith(prefix)}, data["T"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_paper(dtype: torch.dtype) -> None:
    errors = Errors()
    for case, g, thresholds in cases("fpl_paper.npz"):
        z, t = torch.from_numpy(g["z"]).to(dtype), torch.from_numpy(g["t"]).to(dtype)
        valid, gt = torch.from_numpy(g["valid"]), torch.from_numpy(g["gt"]).long()
        classes = z.shape[1]
        exact = case.startswith("uniform") and classes & (classes - 1) == 0
        for i, threshold in enumerate(thresholds.tolist()):
            sure = np.ones_like(g["valid"]) if exact else g["cum_margin"][i] > MARGIN[dtype]
            members = assign_fuzzy_positives(t, threshold=threshold)
            sure_c = np.broadcast_to(sure[:, None], g["Y"][i].shape)
            errors.add("Y", members, g["Y"][i], sure_c)
            loss, stats = fuzzy_positive_loss(
                z, t, threshold=threshold, weight="none", reduction="none", return_stats=True
            )
            errors.add("K", members.sum(1), g["K"][i], sure)
            if sure.all():
                share = torch.from_numpy(np.bincount(g["K"][i].ravel() - 1, minlength=classes - 1)) / sure.size
                errors.add("K histogram", stats["k_histogram"], share.numpy())
            errors.add("loss", loss, g["loss"][i], sure)
            for mode in MODES:
                if mode != "none":
                    weight = fuzzy_positive_weight(t, members, kind=mode)
                    errors.add(f"weight_{mode}", weight, g[f"weight_{mode}"][i], sure)
                    both = fuzzy_positive_loss(z, t, threshold=threshold, weight=mode, reduction="none")
                    errors.add("loss weighted", both, g["loss"][i] * g[f"weight_{mode}"][i], sure)
                leaf = z.clone().requires_grad_()
                mean = fuzzy_positive_loss(leaf, t, threshold=threshold, weight=mode, valid=valid)
                (grad,) = torch.autograd.grad(mean, leaf)
                errors.add(f"grad_{mode}", grad, g[f"grad_{mode}"][i], sure_c)
                if (sure | ~g["valid"]).all():
                    errors.add(f"mean_{mode}", mean.detach(), g[f"mean_{mode}"][i])
            top = F.one_hot(t.argmax(1), classes).movedim(-1, 1).bool()
            errors.add("R_ce", positive_gradient_score(z, top, gt), g["R_ce"][i])
            errors.add("R_fpl", positive_gradient_score(z, members, gt), g["R_fpl"][i], sure)
            inside = members.gather(1, gt.unsqueeze(1)).squeeze(1)
            kind = torch.where(t.argmax(1) == gt, 1, torch.where(inside, 2, 3))
            errors.add("case", kind, g["case"][i], sure)
    errors.report(f"paper, {dtype}", LIMIT[dtype])


def test_the_printed_eq_15_is_not_what_the_score_is() -> None:
    differs = 0
    for _, g, thresholds in cases("fpl_paper.npz"):
        for i in range(len(thresholds)):
            outside = g["case"][i] == 3
            differs += int((np.abs(g["R_fpl"][i] - g["R_fpl_eq15_as_printed"][i])[outside] > 1e-3).sum())
    assert differs > 100  # so that test_paper tells the two apart


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_official(dtype: torch.dtype) -> None:
    errors = Errors()
    data = np.load(GOLDEN / "fpl_official.npz")
    temp_k = json.loads(str(data["temp_k"]))
    weights = {
        "weight_concave": "concave",
        "weight_linear": "linear",
        "weight_convex_voc": "convex1",
        "weight_convex_ael": "convex",
    }
    for case, ks in temp_k.items():
        z = torch.from_numpy(data[f"{case}/z"]).to(dtype)
        t = torch.from_numpy(data[f"{case}/t"]).to(dtype)
        exact = case.startswith("uniform") and z.shape[1] & (z.shape[1] - 1) == 0
        for k in ks:
            g = {name: data[f"{case}/k{k}/{name}"] for name in [*weights, "loss", "tie", "cum_margin"]}
            for i, threshold in enumerate(data["T"].tolist()):
                sure = g["cum_margin"][i] > MARGIN[torch.float32]
                options = {"threshold": threshold, "k_cap": k, "variant": "official"}
                members = assign_fuzzy_positives(t, **options)
                assert int(members.sum(1).max()) <= k
                loss = fuzzy_positive_loss(z, t, weight="none", reduction="none", **options)
                errors.add("loss", loss, g["loss"][i], sure & ~g["tie"])
                for name, kind in weights.items():
                    # The weight depends on sorted probabilities alone: ties decide nothing, but for K at an exact sum.
                    weight = fuzzy_positive_weight(t, members, kind=kind, variant="official")
                    errors.add(name, weight, g[name][i], sure | exact)
            if k == 3:  # the default cap
                default = assign_fuzzy_positives(t, threshold=threshold, variant="official")
                assert torch.equal(default, members)
    errors.report(f"official, {dtype}", 3e-6)  # the authors' code ran in fp32
