"""The supervised baseline: the network learns from the labelled images alone.

The loss on labelled pixels (cross entropy, OHEM, class weights, label smoothing, Dice) is a setting of the run, shared
by all methods. Not implemented: the auxiliary head on the third encoder stage that the AEL and U2PL baselines add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import PIXEL_LOSSES
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss

_REASON = (
    "does not apply: the supervised baseline trains on no pseudo labels; choose another method, or leave the loss out"
)


class Supervised(Method):
    """Labelled images only."""

    paper_loss = None
    paper = "the supervised baseline"
    fuzzy = "does not apply"
    cost = "one network, 1 forward"
    refuses: ClassVar[dict[str, str]] = dict.fromkeys(PIXEL_LOSSES, _REASON)

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: MethodConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.student = network()
        self.streams = {"labelled": Stream(Weak(), "labelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Cross entropy (or what the run chose) on the labelled batch."""
        labelled = batch["labelled"]
        assert labelled.mask is not None
        logits = self.student(labelled.image)  # (B,C,h,w)
        return Step({"supervised": self.supervised_loss(logits, labelled.mask)})
