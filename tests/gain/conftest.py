"""Small worlds to compare on: greenish ground, a brownish object, pixel noise over all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from synthaug.bank import write_bank
from synthaug.formats.splits import Unit
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream
from synthaug.segmenters.contract import Stream

SIZE = (48, 64)
CLASSES = ClassMap((0, 1))


def _scene(number: int, *, masks: str = "true", picture: str = "scene") -> Sample:
    """A scene; its mask may be ``inverted`` or a ``random`` box, its picture plain ``noise``."""
    rng = numpy_stream(number, "scene")
    mask = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(4, 20), rng.integers(4, 30)
    mask[top : top + 20, left : left + 24] = 1
    image = np.where(mask[..., None] == 1, (150, 110, 80), (80, 125, 90))
    if picture == "noise":
        image = rng.integers(0, 256, (*SIZE, 3))
    image = np.clip(image + rng.normal(0, 20, (*SIZE, 3)), 0, 255).astype(np.uint8)
    if masks == "inverted":
        mask = 1 - mask
    if masks == "random":
        mask = np.roll(mask, rng.integers(10, 40, 2), (0, 1))
    return Sample(image, mask, f"{number:05d}")


def _unit(name: str = "toy", kind: str = "video", tests: int = 4, start: int = 0) -> Unit:
    scenes: Sequence[Sample] = [_scene(start + i) for i in range(tests + 1)]
    return Unit(name, [scenes[0]], scenes[1:], CLASSES, kind)  # type: ignore[arg-type]


@pytest.fixture
def make_unit() -> Callable[..., Unit]:
    """Return a function that makes a unit: one scene to learn from, others to test on."""
    return _unit


@pytest.fixture
def make_bank(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a bank of ten scenes."""

    def make(name: str = "bank", *, start: int = 500, **options: str) -> Path:
        samples = [(_scene(start + i, **options), {"latent_seed": i}) for i in range(10)]
        path = tmp_path / name
        write_bank(path, samples, [_scene(0)], CLASSES, {"start": start})
        return path

    return make


class RednessLearner:
    """Calls object what is redder than the mean of what it was shown, weighted; instant."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.threshold = 0.0

    def learn(
        self,
        stream: Stream,
        classes: ClassMap,
        *,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        means = []
        for step in range(stream.steps):
            batch = stream.batch(step)
            weights = [item.weight for item in batch]
            means.append(np.average([i.image[..., 0].mean() for i in batch], weights=weights))
            if progress is not None:
                progress(step + 1, stream.steps)
        self.threshold = float(np.mean(means)) + (seed + self.seed) % 100 / 25
        return means

    def segment(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [(image[..., 0] > self.threshold).astype(np.int64) for image in images]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the networks by `RednessLearner`; return the list of the seeds of those built."""
    built: list[int] = []

    def build(name: str, num_classes: int, *, seed: int = 0, **_: object) -> RednessLearner:
        built.append(seed)
        return RednessLearner(seed)

    monkeypatch.setattr("synthaug.gain.runs.build_learner", build)
    return built
