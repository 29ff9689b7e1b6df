"""Cross-validation over labelled images with sources that know all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from synthaug import seeding
from synthaug.composing.composer import Composer
from synthaug.mixing.arms import PairSource
from synthaug.mixing.source import LATENT_SEEDS, Source, working_size
from synthaug.quality.features import image_tensor
from synthaug.quality.perceptual import PerceptualSpace
from synthaug.sample import Sample, resized

MATCH_SIDE_PX = 96
MAX_STORED = 200
LIVE_SAMPLES = 64
_BATCH = 16


class StoredPairs:
    """A source of pairs in memory.

    Args:
        samples: the pairs, at least one.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = list(samples)
        self.ids = [str(index) for index in range(len(samples))]

    def draw(self, pick: Callable[[int], int]) -> dict[str, Any]:
        """Choose a pair; ``pick(n)`` returns an integer in [0, n)."""
        return {"sample_id": self.ids[pick(len(self.ids))]}

    def fetch(self, choice: dict[str, Any]) -> Sample:
        """Return the pair that was chosen."""
        return self._samples[int(choice["sample_id"])]


class _Composed:
    """A composer as a source, drawn live."""

    def __init__(self, composer: Composer) -> None:
        self.ids: list[str] = []
        self._composer = composer

    def draw(self, pick: Callable[[int], int]) -> dict[str, Any]:
        return {"latent_seed": pick(LATENT_SEEDS)}

    def fetch(self, choice: dict[str, Any]) -> Sample:
        return self._composer.sample(choice["latent_seed"])


class FoldSources:
    """Sources restricted to what comes from some of the training images.

    Sources are made from all labelled images; used as they are, they would show a learner the
    images that it is tested on. A composer is restricted to the parts of the other images. Every
    other sample counts as made from the training image, or its mirror image, that it is
    perceptually nearest to: exact for generators of single images, a guess for those that mix
    images.

    Args:
        sources: by kind; of a bank up to `MAX_STORED` samples are looked at, of a generator
            `LIVE_SAMPLES` are drawn.
        training: all labelled images, of one size (H, W).
        seed: of the latents.
    """

    def __init__(
        self, sources: Mapping[str, PairSource], training: Sequence[Sample], *, seed: int
    ) -> None:
        self._size = training[0].size
        self._space = PerceptualSpace(*working_size(self._size, MATCH_SIDE_PX))
        mirrored = [replace(s, image=np.ascontiguousarray(s.image[:, ::-1])) for s in training]
        self._training = torch.cat([*self._embedded(training), *self._embedded(mirrored)])
        self._of_composer: dict[str, tuple[Composer, list[int]]] = {}
        self._stored: dict[str, tuple[list[Sample], list[int]]] = {}
        for kind, source in sources.items():
            composer = source.composer if isinstance(source, Source) else None
            if composer is not None:
                pairs = [resized(pair, *self._size) for pair in composer.pairs]
                self._of_composer[kind] = composer, self._nearest(pairs)
                continue
            samples = [resized(sample, *self._size) for sample in _look(source, kind, seed)]
            self._stored[kind] = samples, self._nearest(samples)

    def of(self, images: Collection[int]) -> dict[str, PairSource]:
        """Return what comes from some images, by kind; kinds that have nothing are left out."""
        found: dict[str, PairSource] = {}
        for kind, (composer, origins) in self._of_composer.items():
            if pairs := [index for index, origin in enumerate(origins) if origin in images]:
                found[kind] = _Composed(composer.only(pairs))
        for kind, (samples, origins) in self._stored.items():
            kept = [s for s, origin in zip(samples, origins, strict=True) if origin in images]
            if kept:
                found[kind] = StoredPairs(kept)
        return found

    def _nearest(self, samples: Sequence[Sample]) -> list[int]:
        """Index of the training image behind each sample."""
        found: list[int] = []
        for part in self._embedded(samples):
            nearest = torch.cdist(part, self._training).argmin(1) % (len(self._training) // 2)
            found += nearest.tolist()
        return found

    def _embedded(self, samples: Sequence[Sample]) -> Iterator[torch.Tensor]:
        for start in range(0, len(samples), _BATCH):
            images = [sample.image for sample in samples[start : start + _BATCH]]
            yield self._space.embed(image_tensor(images))


def _look(source: PairSource, kind: str, seed: int) -> list[Sample]:
    if source.ids:
        count = min(MAX_STORED, len(source.ids))
        chosen = np.linspace(0, len(source.ids) - 1, count).astype(int)
        return [source.fetch({"sample_id": source.ids[index]}) for index in chosen]
    stream = seeding.python_stream(seed, "auto", "latents", kind)
    return [source.fetch(source.draw(stream.randrange)) for _ in range(LIVE_SAMPLES)]
