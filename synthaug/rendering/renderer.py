"""Renders coarse pairs sharp from the patches of the training pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.rendering.atlas import RADIUS, Atlas, halve
from synthaug.rendering.matching import random_jumps, refine, search, upsample, vote
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import torch_stream

CLASS_WEIGHT = 128.0
SOFT = {"zooms": (1.0,), "octaves": 3, "step": 4, "rounds": (3, 2, 2), "coarse_rounds": 2}


class PatchRenderer:
    """Prototype."""

    def __init__(
        self,
        pairs: Sequence[Sample],
        classes: ClassMap,
        *,
        flip: bool = True,
        seed: int = 0,
        zooms=(1.0,),
        octaves=3,
        step=4,
        rounds=2,
        em=2,
        keep=0.5,
        reaches=(16, 4, 1),
    ) -> None:
        self.classes = classes
        self.size = pairs[0].size
        self.n_octaves = octaves
        self.step, self.rounds, self.em, self.keep, self.reaches = step, rounds, em, keep, reaches
        self.seed = seed
        pictures = []
        for pair in pairs:
            base = self._picture([pair])
            for zoom in zooms:
                size = [round(side * zoom) for side in pair.size]
                p = base
                if zoom != 1:
                    p = F.interpolate(base, size, mode="bicubic", antialias=True).clamp(0, 255).round()
                pictures.append(p[0])
                if flip:
                    pictures.append(p[0].flip(-1))
        self.atlas = Atlas(pictures, octaves)
        sizes = [self.size]
        for _ in range(octaves - 1):
            sizes.append(tuple(-(-s // 2) for s in sizes[-1]))
        self.sizes = sizes
        stream = torch_stream(seed, "rendering")
        self.jumps = [
            random_jumps((h - 2 * RADIUS, w - 2 * RADIUS), octave.shape[1], reaches, stream)
            for (h, w), octave in zip(sizes, self.atlas.octaves)
        ]

    def _picture(self, samples: Sequence[Sample]) -> Tensor:
        images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float()
        index = torch.from_numpy(np.stack([self.classes.encode(s.mask) for s in samples]))
        one_hot = F.one_hot(index.clamp_min(0), len(self.classes)) * (index >= 0)[..., None]
        return torch.cat([images, CLASS_WEIGHT * one_hot.permute(0, 3, 1, 2)], 1)

    @torch.inference_mode()
    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        coarse = self._picture(samples)
        for _ in range(self.n_octaves - 1):
            coarse = halve(coarse)
        picture = coarse
        field = None
        for level in reversed(range(self.n_octaves)):
            octave = self.atlas.octaves[level]
            h, w = self.sizes[level]
            if field is None:
                queries = octave.describe(picture)
                field = search(queries, octave, self.step)
                field = refine(field, queries, octave, self.jumps[level], 3)
                for _ in range(self.em):
                    picture = vote(field, octave)
                    picture = (self.keep * coarse + (1 - self.keep) * picture).round()
                    queries = octave.describe(picture)
                    field = refine(field, queries, octave, self.jumps[level], 2)
            else:
                field = upsample(
                    field, self.atlas.octaves[level + 1], octave, (h - 2 * RADIUS, w - 2 * RADIUS)
                )
                picture = vote(field, octave)
                queries = octave.describe(picture)
                field = refine(field, queries, octave, self.jumps[level], self.rounds)
        picture = vote(field, octave)
        images = picture[:, :3].clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        index = picture[:, 3:].argmax(1).cpu().numpy()
        return [
            Sample(np.ascontiguousarray(i), self.classes.decode(m), s.id, s.grey)
            for i, m, s in zip(images, index, samples)
        ]
