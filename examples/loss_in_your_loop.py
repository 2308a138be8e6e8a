"""The loss in a custom training loop. Only torch is required.

python examples/loss_in_your_loop.py
"""

from __future__ import annotations

import torch
from torch import nn

from fuzzyseg import fuzzy_positive_loss

torch.manual_seed(0)
student, teacher = (nn.Conv2d(3, 5, 3, stride=2, padding=1) for _ in range(2))
optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
image = torch.rand(2, 3, 32, 32)

for step in range(3):
    with torch.no_grad():
        target = teacher(image)  # (B,C,h,w) logits
    loss, stats = fuzzy_positive_loss(
        student(image + 0.1 * torch.randn_like(image)), target, threshold=0.9, size=(32, 32), return_stats=True
    )
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: loss {loss.item():.4f}, fraction of pixels by K {stats['k_histogram'].tolist()}")
