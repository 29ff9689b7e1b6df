from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synthaug.errors import InputError
from synthaug.sample import ClassMap
from synthaug.segmenters import SEGMENTERS, build_learner
from synthaug.segmenters.contract import Item
from synthaug.segmenters.factory import build_network

CLASSES = ClassMap((0, 1))
SOURCE = """
import torch
from torch import nn

def linear(num_classes):
    return nn.Conv2d(3, num_classes, 1)

def elsewhere(num_classes):
    return linear(num_classes).to("meta")

def small(num_classes):
    return nn.Conv2d(3, num_classes, 1, stride=2)

def strided(num_classes):
    down, up = nn.Conv2d(3, 8, 16, stride=16), nn.ConvTranspose2d(8, num_classes, 16, stride=16)
    class Net(nn.Sequential):
        def forward(self, x):
            if x.shape[2] % 16 or x.shape[3] % 16:
                raise RuntimeError("sides must be multiples of 16")
            return super().forward(x)
    return Net(down, up)

def forgetful(num_classes):
    return torch.load("no_such_weights.pt")

def broken(num_classes):
    return nn.Conv2d(5, num_classes, 1)

def wrapped(num_classes):
    class Net(nn.Conv2d):
        def forward(self, x):
            return {"out": super().forward(x)}
    return Net(3, num_classes, 1)

def lazy(num_classes):
    return nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4), nn.LazyConv2d(num_classes, 1))

def positioned(num_classes):
    class Net(nn.Conv2d):
        grid = None
        def forward(self, x):
            if self.grid is None:
                self.grid = torch.linspace(-1, 1, x.shape[3]).expand(1, 1, *x.shape[2:])
            return super().forward(x) * self.grid
    return Net(3, num_classes, 1)

def moody(num_classes):
    class Net(nn.Conv2d):
        error = RuntimeError("not in\\nthis mode")
        def forward(self, x):
            if self.training:
                raise self.error
            return super().forward(x)
    return Net(3, num_classes, 1)

def hungry(num_classes):
    net = moody(num_classes)
    net.error = torch.OutOfMemoryError("no memory")
    return net

def cut(num_classes):
    class Net(nn.Conv2d):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)
    return Net(3, num_classes, 1)

def frozen(num_classes):
    return linear(num_classes).requires_grad_(False)

def number(num_classes):
    return num_classes

def nothing():
    return None

value = 3
"""


class Halves:
    """Left half dark = 0, right half bright = 1."""

    steps = 60

    def batch(self, step: int) -> list[Item]:
        return [halves(step), halves(step + 1000)]


def halves(seed: int) -> Item:
    image = np.random.default_rng(seed).integers(0, 100, (32, 48, 3)).astype(np.uint8)
    image[:, 24:] += 150
    mask = np.zeros((32, 48), np.uint8)
    mask[:, 24:] = 1
    return Item(image, mask)


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_nets.py").write_text(SOURCE)
    (tmp_path / "users_typo.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)


def test_pictures_are_padded_for_a_network_that_needs_multiples_of_its_stride() -> None:
    learner = build_learner("users_nets:strided", 2, size=(40, 50))
    learner.learn(Halves(), CLASSES, seed=0)
    assert learner.segment([halves(0).image])[0].shape == (32, 48)
    with pytest.raises(InputError, match=r"users_nets:broken fails on images \(1, 3, 40, 50\)"):
        build_learner("users_nets:broken", 2, size=(40, 50))


def test_a_network_is_tried_where_it_lies() -> None:
    assert build_network("users_nets:elsewhere", 2, size=(32, 48)).multiple == 1


def test_users_network_learns() -> None:
    def run(seed: int) -> tuple[list[float], NDArray[np.int64]]:
        learner = build_learner("users_nets:linear", 2, seed=seed, lr=0.2)
        losses = learner.learn(Halves(), CLASSES, seed=seed)
        return losses, learner.segment([halves(99).image])[0]

    losses, found = run(1)
    assert (found == halves(99).mask).mean() > 0.95
    assert run(1)[0] == losses
    assert run(2)[0] != losses


def test_a_network_that_keeps_a_tensor_of_its_trial_learns() -> None:
    learner = build_learner("users_nets:positioned", 2, size=(32, 48))
    assert np.isfinite(learner.learn(Halves(), CLASSES, seed=0)).all()


def test_lazy_weights_follow_the_seed_and_batch_norms_have_seen_nothing() -> None:
    learners = [build_learner("users_nets:lazy", 2, seed=seed, size=(32, 48)) for seed in (1, 1, 2)]
    states = [learner.network.state_dict() for learner in learners]  # type: ignore[attr-defined]
    assert torch.equal(states[0]["network.0.weight"], states[1]["network.0.weight"])
    assert not torch.equal(states[0]["network.0.weight"], states[2]["network.0.weight"])
    assert states[0]["network.1.num_batches_tracked"] == 0
    assert torch.equal(states[0]["network.1.running_mean"], torch.zeros(4))
    assert np.isfinite(learners[0].learn(Halves(), CLASSES, seed=0)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_none:linear", "cannot import 'users_none'"),
        ("users_typo:linear", "cannot import 'users_typo'"),
        (":linear", "cannot import ''"),
        ("..users_typo:linear", "cannot import '..users_typo'"),
        ("users_nets:missing", "no function 'missing'"),
        ("users_nets:value", "no function 'value'"),
        ("users_nets:nothing", "failed"),
        ("users_nets:forgetful", "failed: FileNotFoundError: .*no_such_weights"),
        ("users_nets:number", "returned a int"),
        ("linear", "unknown segmenter 'linear'"),
    ],
)
def test_unusable_factories_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_learner(name, 2)


def test_wrong_logits_are_refused_at_once_or_in_the_first_step() -> None:
    with pytest.raises(InputError, match=r"logits \(1, 2, 16, 24\)"):
        build_learner("users_nets:small", 2, size=(32, 48))
    with pytest.raises(InputError, match=r"\(2, 2, 32, 48\)"):
        build_learner("users_nets:small", 2).learn(Halves(), CLASSES, seed=0)
    with pytest.raises(InputError, match="returns a dict"):
        build_learner("users_nets:wrapped", 2).learn(Halves(), CLASSES, seed=0)
    with pytest.raises(InputError, match="no trainable weights"):
        build_learner("users_nets:frozen", 2).learn(Halves(), CLASSES, seed=0)


def test_a_network_that_cannot_be_trained_is_one_line() -> None:
    def learn(name: str) -> None:
        build_learner(f"users_nets:{name}", 2, size=(32, 48)).learn(Halves(), CLASSES, seed=0)

    with pytest.raises(InputError, match=r"moody fails in training mode .*: not in this mode: men"):
        learn("moody")
    with pytest.raises(InputError, match=r"logits of users_nets:cut have no gradient in training"):
        learn("cut")
    with pytest.raises(torch.OutOfMemoryError):  # which the command line has a line for
        learn("hungry")


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_name_builds_a_learner(name: str) -> None:
    learner = build_learner(name, 2, size=(64, 64))
    stream = Halves()
    stream.steps = 1
    losses = learner.learn(stream, CLASSES, seed=0)
    assert np.isfinite(losses).all()
    found = learner.segment([halves(0).image])[0]
    assert found.shape == (32, 48)
    assert found.dtype == np.int64


def test_parent_is_for_osvos_only() -> None:
    with pytest.raises(InputError, match="for osvos"):
        build_learner("unet", 2, parent="parent.safetensors")


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (
        build_learner("fpn", 2, seed=seed).network.net.segmentation_head[0].weight  # type: ignore[attr-defined]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
