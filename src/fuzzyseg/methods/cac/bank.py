"""Memory bank of CAC's negatives."""

from typing import Any

import torch
from torch import Tensor, nn

from fuzzyseg.ops import distributed


class StepBank(nn.Module):
    """Memory bank of the last `steps` steps, newest last; it starts empty and is identical on every process.

    The buffers are features (R,D) fp32, classes (R,) int64, or (R,C) bool for class sets, and valid (R,) bool. Rows are
    gathered from all processes in rank order, without gradient. Every push must have the same number of rows. The
    number of rows is read from the buffers' shape, which does not synchronise with an accelerator.
    """

    features: Tensor
    classes: Tensor
    valid: Tensor

    def __init__(self, steps: int, width: int, classes: int | None = None) -> None:
        """width: D. classes: C if the bank stores class sets, None if it stores class indices."""
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps: found {steps}, expected at least 1")
        self.steps = steps
        self.register_buffer("features", torch.zeros(0, width))
        empty = torch.zeros(0, dtype=torch.long) if classes is None else torch.zeros(0, classes, dtype=torch.bool)
        self.register_buffer("classes", empty)
        self.register_buffer("valid", torch.zeros(0, dtype=torch.bool))

    @torch.no_grad()
    def push(self, features: Tensor, classes: Tensor, valid: Tensor) -> None:
        """Append the rows of one step, in the buffers' format, and drop rows older than `steps` steps."""
        features = distributed.gather(features.to(self.features.dtype))
        keep = self.steps * len(features)
        self.features = torch.cat([self.features, features])[-keep:] if keep else self.features
        self.classes = torch.cat([self.classes, distributed.gather(classes)])[-keep:] if keep else self.classes
        self.valid = torch.cat([self.valid, distributed.gather(valid)])[-keep:] if keep else self.valid

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Resize the buffers to the number of rows of the saved state."""
        for name, buffer in self.named_buffers():
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape[1:] == buffer.shape[1:]:
                setattr(self, name, buffer.new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)
