"""Student and teacher for analysis."""

import pytest
import torch

from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import METHODS, Facts, Method
from support.tiny_network import TinyNetwork


@pytest.mark.parametrize("name", METHODS)
def test_both_are_networks_of_the_method_and_give_logits(name):
    chosen = METHODS[name]
    own = chosen.paper_loss
    pixel = None if own is None else PixelLossModule(PIXEL_LOSSES[own[0]], own[1])
    method = chosen(TinyNetwork, SupervisedLoss("ce"), pixel, chosen.Config(), Facts(5)).eval()
    student, teacher = method.pair()
    parts = set(method.modules())
    for network in (student, teacher):
        assert network in parts
        assert network(torch.randn(1, 3, 12, 14)).shape[:2] == (1, 5)
    assert any(p.requires_grad for p in student.parameters())
    assert (student is teacher) == (chosen.learners == 1 and getattr(method, "teacher", None) is None)


def test_a_teacher_that_follows_is_the_teacher():
    class Following(Method):
        def __init__(self, teacher):
            super().__init__(TinyNetwork, SupervisedLoss("ce"), None, Method.Config(), Facts(5))
            self.student, self.teacher = TinyNetwork(), teacher

        def predictor(self):
            return self.student if self.teacher is None else self.teacher

    teacher = TinyNetwork()
    method = Following(teacher)
    assert method.pair() == (method.student, teacher)
    alone = Following(None)
    assert alone.pair() == (alone.student, alone.student)
