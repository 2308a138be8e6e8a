"""CAC's contrast against a loop over cells.

Images differ in flips, offset and padding. Padding, at the bottom and on the right, reaches into the overlap of one of
the crops, as if its side were no multiple of a cell and a flip moved its cells.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.losses import assign_fuzzy_positives
from methods.test_cac import NOW, batches, make

SIZE = (16, 24)
OFFSETS = torch.tensor([[4, 4], [-4, 8], [0, -4], [4, 0]])  # of the second crop, y and x
FLIPS = torch.tensor([[False, True], [True, False], [True, True], [False, False]])  # of each crop
KEPT = [[(16, 24), (9, 24)], [(16, 13), (16, 24)], [(8, 24), (16, 24)], [(16, 24), (13, 15)]]  # rows, columns


def padded_batches():
    """Four pairs of crops with padding below and to the right of KEPT, before flipping."""
    batch = batches(4, SIZE)
    crops = batch["unlabelled"]
    pairs = []
    for crop, image in enumerate((crops.image, crops.pair[0])):
        valid = torch.zeros(4, *SIZE, dtype=torch.bool)
        for b, (rows, columns) in enumerate(each[crop] for each in KEPT):
            valid[b, :rows, :columns] = True
            if FLIPS[b, crop]:
                valid[b] = valid[b].flip(-1)
        pairs.append((image * valid.unsqueeze(1), valid))
    (crops.image, crops.valid), crops.pair = pairs
    first = torch.tensor([20, 20, *(20 + side for side in SIZE)]).expand(4, 4)
    crops.boxes, crops.flips = torch.stack([first, first + OFFSETS.repeat(1, 2)], 1), FLIPS
    return batch


def views(method, crops, cell):
    """For each crop and image, unflipped: features (D,h,w), confidence, class, logits, and whether all is valid."""
    rows, columns = SIZE[0] // cell, SIZE[1] // cell
    result = []
    for crop, (image, valid) in enumerate([(crops.image, crops.valid), crops.pair]):
        decoded = method.student.decode(method.student.encode(image))
        pooled = decoded.unflatten(3, (columns, -1)).unflatten(2, (rows, -1)).mean((3, 5))
        features, logits = F.normalize(method.projector(pooled), dim=1), method.student.classify(pooled)
        p = torch.softmax(logits, 1)
        whole = valid.unflatten(2, (columns, cell)).unflatten(1, (rows, cell)).all(4).all(2)
        result.append([])
        for b in range(len(image)):
            parts = [features[b], p[b].amax(0), p[b].argmax(0), logits[b], whole[b]]
            result[crop].append([part.flip(-1) if crops.flips[b, crop] else part for part in parts])
    return result


def literal(method, crops, *, cell, temperature=0.1, gamma=0.0, sets=None):
    """Sum of the losses of both directions, and reasons why cells have none. sets: T of the fuzzy negatives."""
    seen = views(method, crops, cell)
    rows, columns = SIZE[0] // cell, SIZE[1] // cell
    places = [(y, x) for y in range(rows) for x in range(columns)]

    def kind(label, logits):
        """The classes of a cell that negatives must not share: its own, or all positives."""
        if sets is None:
            return {int(label)}
        return set(assign_fuzzy_positives(logits[None], threshold=sets)[0].nonzero().flatten().tolist())

    kinds, pool = [], []
    for features, _, label, logits, whole in (image for view in seen for image in view):
        for y, x in places:
            if whole[y, x]:
                pool.append(features[:, y, x].detach())
                kinds.append(kind(label[y, x], logits[:, y, x]))
    pool = torch.stack(pool)

    total, skipped = 0.0, Counter()
    for ours, theirs in ((0, 1), (1, 0)):
        losses = []
        for b, ((f1, c1, y1, z1, w1), (f2, c2, _, _, w2)) in enumerate(zip(seen[ours], seen[theirs], strict=True)):
            down, right = ((crops.boxes[b, ours] - crops.boxes[b, theirs])[:2] // cell).tolist()
            for y, x in places:
                v, u = y + down, x + right
                if not (0 <= v < rows and 0 <= u < columns and c2[v, u] > gamma and c1[y, x] < c2[v, u]):
                    continue
                if not (w1[y, x] and w2[v, u]):
                    skipped[f"{ours}: {bool(w1[y, x])}, {bool(w2[v, u])}"] += 1
                    continue
                own = kind(y1[y, x], z1[:, y, x])
                differs = torch.tensor([not own & other for other in kinds])
                positive = torch.exp(f1[:, y, x] @ f2[:, v, u].detach() / temperature)
                negative = torch.exp(pool[differs] @ f1[:, y, x] / temperature).sum()
                losses.append(-torch.log(positive / (positive + negative)))
        total = total + torch.stack(losses).mean()
    return total, skipped


@pytest.mark.parametrize("sets", [None, 0.4])
@pytest.mark.parametrize("cell", [2, 4])  # one of the network's cells, and two by two
def test_the_loss_is_the_cards_cell_by_cell_and_so_is_its_gradient(cell, sets):
    fuzzy = {} if sets is None else {"fuzzy_negatives": True, "fuzzy_threshold": sets}
    method, batch = make(confidence=0.25, cell=cell, **fuzzy), padded_batches()
    assert method.pool == cell // 2
    result = method(batch, NOW).losses["contrast"]
    total, skipped = literal(method, batch["unlabelled"], cell=cell, gamma=0.25, sets=sets)
    # padding of either crop excludes cells in both directions
    assert all(skipped[f"{ours}: {one}"] for ours in (0, 1) for one in ("True, False", "False, True"))
    expected = 0.1 * total
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    parameters = [*method.projector.parameters(), *method.student.encoder.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(result, parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    head = [*method.student.head.parameters()]
    assert all(g is None for g in torch.autograd.grad(result, head, allow_unused=True))


@pytest.mark.parametrize("cell", [2, 4])
def test_the_bank_gets_the_cells_of_both_crops_and_none_with_padding_counts(cell):
    method, batch = make(cell=cell), padded_batches()
    method(batch, NOW)
    seen = [image for view in views(method, batch["unlabelled"], cell) for image in view]
    whole = torch.stack([image[4] for image in seen]).flatten()
    assert 0 < int(whole.sum()) < len(whole)
    assert torch.equal(method.bank.valid, whole)
    assert torch.equal(method.bank.classes, torch.stack([image[2] for image in seen]).flatten())
    features = torch.stack([image[0].detach() for image in seen])
    torch.testing.assert_close(method.bank.features, features.movedim(1, -1).flatten(0, 2))
