"""The loader: the same samples however they are read, split or resumed; masks that nobody reads; errors with names."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuzzyseg.data.loading.loader import Loader
from fuzzyseg.data.loading.sampler import PUBLISH_DELAY, draw_seed
from fuzzyseg.data.sample import DataError, Item
from fuzzyseg.data.transforms.geometry import Geometry
from fuzzyseg.data.views import Batch, CropPair, Stream, Weak, WeakStrong

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

STREAMS = {
    "labelled": Stream(Weak(), "labelled"),
    "unlabelled": Stream(WeakStrong(strong=2), "unlabelled"),
    "partner": Stream(CropPair(), "unlabelled", partner="unlabelled"),
}
LABELLED = [Item(Path(f"l{k}.png"), Path(f"m{k}.png"), f"l{k}") for k in range(5)]
UNLABELLED = [Item(Path(f"u{k}.png"), Path(f"secret{k}.png"), f"u{k}") for k in range(7)]
SOURCES = {"labelled": LABELLED, "unlabelled": UNLABELLED, "all": LABELLED + UNLABELLED}


@dataclass
class FakeReader:
    """Noise that depends on the file's name. `broken` raises DataError, `deadly` ends the process that reads it."""

    broken: str = ""
    deadly: str = ""
    seconds: float = 0.0

    def read(self, item: Item, with_mask: bool) -> tuple[Tensor, Tensor | None]:
        if item.name == self.broken:
            raise DataError(f"{item.image}: is broken")
        if item.name == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        assert item.name.startswith("l") or not with_mask, "a mask of an unlabelled image was read"
        generator = torch.Generator().manual_seed(sum(item.name.encode()) * 1000 + int(item.name[1:]))
        image = torch.randint(0, 256, (3, 24, 28), generator=generator).to(torch.uint8)
        mask = torch.randint(0, 4, (24, 28), generator=generator).to(torch.uint8)
        return image, mask if with_mask else None


def loader(**changed):
    settings = {
        "streams": STREAMS,
        "sources": SOURCES,
        "reader": FakeReader(),
        "geometry": Geometry(crop=(16, 12), scale=(0.5, 1.5), flip=0.5),
        "jitter": 0.3,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.3],
        "batch": 4,
        "accumulate": 1,
        "seed": 0,
        "workers": 0,
    } | changed
    return Loader(settings.pop("streams"), settings.pop("sources"), settings.pop("reader"), **settings)


def assert_same(one, other):
    """Two batches are equal bit for bit."""
    for field in fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, tuple):
            assert len(a) == len(b)
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), field.name
        elif isinstance(a, Tensor):
            assert torch.equal(a, b), field.name
            assert a.dtype == b.dtype
        else:
            assert a == b, field.name


def joined(batches):
    """Batches of one stream as one."""
    parts = {}
    batches = [batch.to(torch.device("cpu")) for batch in batches]
    for field in fields(Batch):
        values = [getattr(batch, field.name) for batch in batches]
        if isinstance(values[0], tuple):
            parts[field.name] = tuple(torch.cat(views) for views in zip(*values, strict=True))
        elif isinstance(values[0], Tensor):
            parts[field.name] = torch.cat(values)
        elif isinstance(values[0], list):
            parts[field.name] = [name for value in values for name in value]
        else:
            parts[field.name] = None
    return Batch(**parts)


def steps(loader, start, stop):
    """For each step: stream -> the micro-batches as one batch."""
    return [{name: joined([m[name] for m in step]) for name in step[0]} for step in loader.batches(start, stop)]


def assert_same_steps(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])


def no_child_is_left():
    until = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    return not multiprocessing.active_children()


def test_a_batch_is_what_the_contract_says():
    (as_read,) = next(loader().batches(0, 1))
    assert list(as_read) == list(STREAMS)
    assert all(batch.image.dtype == torch.uint8 for batch in as_read.values())
    cpu = torch.device("cpu")
    micro_batch = {name: batch.to(cpu, channels_last=name == "partner") for name, batch in as_read.items()}
    labelled, unlabelled, partner = (micro_batch[name] for name in STREAMS)
    for name, batch in micro_batch.items():
        items = SOURCES[STREAMS[name].source]
        assert batch.image.is_contiguous(memory_format=torch.channels_last) == (name == "partner")
        assert batch.statistics is None
        assert batch.image.shape == (4, 3, 16, 12)
        assert batch.image.dtype == torch.float32
        assert batch.valid.shape == (4, 16, 12)
        assert batch.valid.dtype == torch.bool
        assert batch.name == [items[index].name for index in batch.index.tolist()]
        assert batch.seed.tolist() == [draw_seed(0, name, number) for number in range(4)]
        assert batch.seed.dtype == torch.int64
        assert batch.drawn_for.tolist() == [-1] * 4
    assert labelled.mask.dtype == torch.int64
    assert set(labelled.mask[labelled.valid].tolist()) == {0, 1, 2, 3}
    assert (labelled.mask[~labelled.valid] == 255).all()
    assert unlabelled.mask is None
    assert partner.mask is None
    assert [view.shape for view in unlabelled.strong] == [(4, 3, 16, 12)] * 2
    assert partner.pair[0].shape == (4, 3, 16, 12)
    assert partner.pair[1].shape == (4, 16, 12)
    assert partner.boxes.shape == (4, 2, 4)
    assert partner.flips.shape == (4, 2)
    assert labelled.pair is None
    assert labelled.strong == ()


def test_masks_of_unlabelled_images_are_never_asked_for():
    everything = {"all": Stream(Weak(), "all"), "unlabelled": Stream(Weak(), "unlabelled")}
    batches = steps(loader(streams=everything), 0, 10)  # the fake reader raises
    assert all(batch.mask is None for step in batches for batch in step.values())
    assert {name for step in batches for name in step["all"].name} == {item.name for item in SOURCES["all"]}


def test_partners_are_never_the_same_image():
    for step in steps(loader(batch=6), 0, 20):
        assert all(a != b for a, b in zip(step["unlabelled"].name, step["partner"].name, strict=True))


@pytest.mark.parametrize("later", [False, True], ids=["at_once", "colours_later"])
@pytest.mark.parametrize("workers", [1, 3])
def test_samples_do_not_depend_on_the_number_of_workers(workers, later):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # sums over an image may differ with the number of threads
    try:
        alone = steps(loader(colours_later=later), 0, 6)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert_same_steps(alone, steps(loader(workers=workers, colours_later=later), 0, 6))


@pytest.mark.parametrize("later", [False, True], ids=["at_once", "colours_later"])
@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_a_step_is_the_same_however_it_is_split(world, accumulate, later):
    whole = steps(loader(colours_later=later), 0, 5)
    ranks = [
        list(loader(world=world, rank=rank, accumulate=accumulate, workers=rank % 2, colours_later=later).batches(0, 5))
        for rank in range(world)
    ]
    for number, expected in enumerate(whole):
        parts = [micro_batch for rank in ranks for micro_batch in rank[number]]
        assert len(parts) == world * accumulate
        for name in STREAMS:
            assert all(len(part[name].name) == 4 // (world * accumulate) for part in parts)
            assert_same(expected[name], joined([part[name] for part in parts]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_anywhere(workers):
    straight = steps(loader(), 0, 9)
    for start in (1, 4, 8):
        assert_same_steps(straight[start:], steps(loader(workers=workers), start, 9))


def weights_of(step):
    weights = torch.zeros(3, 7)
    weights[torch.arange(3), (torch.arange(3) + step) % 7] = 1
    return weights


def train(loader, start, stop):
    """As the trainer does: takes a step, then publishes weights."""
    drawn = []
    for step, (micro_batch,) in zip(range(start, stop), loader.batches(start, stop), strict=True):
        drawn.append(micro_batch)
        loader.sampler.publish("unlabelled", step, weights_of(step))
    return drawn


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_published_weights_steer_after_sixteen_steps_and_survive_a_resume(workers):
    one = {"streams": {"unlabelled": STREAMS["unlabelled"]}}
    straight = train(loader(workers=workers, **one), 0, 40)
    for step, micro_batch in enumerate(straight):
        batch = micro_batch["unlabelled"]
        if step < PUBLISH_DELAY:
            assert batch.drawn_for.tolist() == [-1] * 4
        else:
            assert batch.index.tolist() == ((batch.drawn_for + step - PUBLISH_DELAY) % 7).tolist()
    assert {c for micro_batch in straight for c in micro_batch["unlabelled"].drawn_for.tolist()} == {-1, 0, 1, 2}
    first = loader(**one)
    assert_same_steps(straight[:25], train(first, 0, 25))
    second = loader(workers=2, **one)
    second.sampler.load_state_dict(first.sampler.state_dict())
    assert_same_steps(straight[25:], train(second, 25, 40))


def test_one_small_task_a_step_is_not_read_further_ahead_than_the_delay():
    one = {"unlabelled": Stream(Weak(), "unlabelled")}
    many = loader(streams=one, batch=1, workers=20)  # the loader itself asserts that no draw comes too early
    drawn = train(many, 0, 40)
    assert_same_steps(drawn, train(loader(streams=one, batch=1), 0, 40))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_named(workers):
    with pytest.raises(DataError) as caught:
        steps(loader(reader=FakeReader(broken="u3"), workers=workers), 0, 5)
    assert str(caught.value) == "u3.png: is broken"
    assert no_child_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_names_the_file_it_was_at(workers):
    script = Path(__file__).with_name("dying_reader.py")
    paths = os.pathsep.join([str(Path(__file__).parents[3] / "src"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, str(script), str(workers)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("DataError: a data worker died"), process.stderr
    named = process.stdout.partition("while reading ")[2].partition(";")[0].split(", ")
    assert "u3.png" in named
    assert len(named) <= workers


def test_closing_the_iterator_ends_its_processes():
    batches = loader(workers=2, reader=FakeReader(seconds=0.01)).batches(0, 1000)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert no_child_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])  # of a terminal, of torchrun
def test_signals_of_a_group_do_not_end_the_processes_that_read(number):
    batches = loader(workers=2).batches(0, 60)
    first = next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)
    rest = list(batches)
    assert len(rest) == 59
    assert_same(first[0]["partner"], next(loader().batches(0, 1))[0]["partner"])
    assert no_child_is_left()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(workers):
    state = torch.get_rng_state()
    steps(loader(workers=workers), 0, 3)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("batch", "world", "accumulate"), [(4, 3, 1), (4, 1, 3), (4, 2, 4), (0, 1, 1)])
def test_a_batch_that_cannot_be_split_is_refused(batch, world, accumulate):
    with pytest.raises(ValueError, match=rf"found {batch} images .* multiple of .*= {world * accumulate}: change"):
        loader(batch=batch, world=world, accumulate=accumulate)


def test_one_unlabelled_image_cannot_be_paired():
    with pytest.raises(DataError, match="give more unlabelled images"):
        loader(sources=SOURCES | {"unlabelled": UNLABELLED[:1]})


def test_state_of_another_method_is_refused():
    with pytest.raises(ValueError, match="found stream 'other'"):
        loader().sampler.load_state_dict({"other": {0: torch.ones(1, 7)}})
