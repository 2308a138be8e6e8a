import torch
from torch.nn import functional as F

from fuzzyseg.losses import PIXEL_LOSSES, SupervisedLoss
from fuzzyseg.methods import METHODS, Facts, MethodConfig, Progress
from fuzzyseg.methods.supervised import Supervised
from fuzzyseg.ops.resize import resize_logits
from support.tiny_network import TinyNetwork, make_batch


def test_loss_is_cross_entropy_on_labelled_pixels():
    method = Supervised(TinyNetwork, SupervisedLoss("ce"), None, MethodConfig(), Facts(5)).eval()
    batch = make_batch(masks=True)
    result = method({"labelled": batch}, Progress(0, 1)).losses
    logits = resize_logits(method.student(batch.image), batch.size)
    torch.testing.assert_close(result["supervised"], F.cross_entropy(logits, batch.mask, ignore_index=255))
    assert list(method.streams) == ["labelled"]


def test_every_pixel_loss_is_refused_with_a_reason():
    assert METHODS["supervised"] is Supervised
    assert Supervised.refuses.keys() == PIXEL_LOSSES.keys()
    assert all("does not apply" in reason for reason in Supervised.refuses.values())
