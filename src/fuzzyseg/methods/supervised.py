"""The supervised baseline: training on labelled images only.

The loss on labelled pixels (cross entropy, OHEM, class weights, label smoothing, Dice) is a run setting shared by all
methods. Not implemented: the auxiliary head on the third encoder stage that AEL's and U2PL's baselines have.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import PIXEL_LOSSES
from fuzzyseg.methods.base import Method, Network, Progress, Step

_REASON = "does not apply: the supervised baseline has no pseudo labels; choose another method or omit --loss"


class Supervised(Method):
    """Training on labelled images only."""

    paper = "the supervised baseline"
    fuzzy = "does not apply"
    cost = "one network, 1 forward"
    refuses: ClassVar[dict[str, str]] = dict.fromkeys(PIXEL_LOSSES, _REASON)

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        self.streams = {"labelled": Stream(Weak(), "labelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss of the labelled batch."""
        labelled = batch["labelled"]
        logits = self.student(labelled.image)  # (B,C,h,w)
        return Step({"supervised": self.supervised_loss(logits, labelled.mask)})
