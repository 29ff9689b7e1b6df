"""Renders coarse pairs sharp from the patches of the training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from synthaug.errors import InputError
from synthaug.rendering.atlas import MIN_SIDE_PX
from synthaug.rendering.strays import StrayRemover
from synthaug.rendering.synthesis import Synthesis, octave_of, to_octave, to_picture, to_size
from synthaug.sample import IGNORE_ID, ClassMap, Sample

COARSE_PX = 112
"""Longer side at which a sample is believed; everything finer is made anew."""
_BATCH_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 23}


class PatchRenderer:
    """Makes samples anew from the patches of the training pairs; nothing is trained.

    A sample is reduced to 57-112 pixels on its longer side, image and mask together. Each of its
    5 x 5 patches is looked up in the training pairs at that size (the classes are channels beside
    the colours, so that no object appears outside its mask), and the field of places found is
    carried over to finer octaves, where overlapping patches vote for colours and classes alike.
    Related: PatchMatch (Barnes et al. 2009) for the fields; SinGAN (Shaham et al. 2019,
    arXiv:1905.01164) for octaves from a coarse picture; GPNN (Granot et al. 2022,
    arXiv:2103.15545) for nearest patches in a GAN's stead and the score that asks for
    completeness; GPDM (Elnekave and Weiss 2022, arXiv:2203.11862), which matches the distribution
    of patches instead.

    A sample's result depends on it, the pairs and the seed alone: not on its batch, the number of
    threads or the device.

    Args:
        pairs: training pairs; sizes may differ.
        classes: classes of the masks; None takes those found in the pairs, none if all is ignored.
        size: height and width of the rendered samples; None takes the first pair's. Patches keep
            the size that they have in the pairs.
        flip: mirror images are plausible and may be copied from.
        seed: seeds the random search.
        device: where to compute.

    Raises:
        InputError: no pair, or a side under 6 px.
    """

    def __init__(
        self,
        pairs: Sequence[Sample],
        classes: ClassMap | None = None,
        *,
        size: tuple[int, int] | None = None,
        flip: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if not pairs:
            raise InputError("patches are copied from training pairs: give at least one")
        self.size = size or pairs[0].size
        smallest = min(min(size) for size in [self.size, *(pair.size for pair in pairs)])
        if smallest < MIN_SIDE_PX:
            raise InputError(
                f"a side of {smallest} px is too small to copy patches: take {MIN_SIDE_PX} or more"
            )
        labelled = any((pair.mask != IGNORE_ID).any() for pair in pairs)
        if classes is None and labelled:
            classes = ClassMap.from_masks([pair.mask for pair in pairs])
        self.classes = classes if classes is not None and classes.ids else None
        self.octave = octave_of(self.size, COARSE_PX)
        largest = max(min(pair.size) for pair in pairs)
        while self.octave and largest >> self.octave < MIN_SIDE_PX:  # no whole patch is left
            self.octave -= 1
        self._strays = None if self.classes is None else StrayRemover(pairs, self.classes)
        self._synthesis = Synthesis(
            pairs,
            self.classes,
            self.size,
            self.octave + 1,
            flip=flip,
            seed=seed,
            device=torch.device(device),
        )

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        """Render samples.

        Args:
            samples: coarse pairs of any size; image and mask of a sample agree in size.

        Returns:
            Samples of `size` with the same ids; masks hold the pairs' class ids and no 255, unless
            there are no classes. Regions too small to be an object are gone from image and mask
            (see `StrayRemover`), those of the sample as well as those that rendering left.
        """
        per_batch = _BATCH_PIXELS["cpu" if self._synthesis.device.type == "cpu" else "cuda"]
        step = max(1, per_batch // (self.size[0] * self.size[1]))
        parts = [samples[i : i + step] for i in range(0, len(samples), step)]
        return [sample for part in parts for sample in self._render(part)]

    @torch.inference_mode()
    def _render(self, samples: Sequence[Sample]) -> list[Sample]:
        samples = self._without_strays(samples)
        pictures = [to_size(to_picture([sample], self.classes), self.size) for sample in samples]
        whole = torch.cat(pictures).to(self._synthesis.device)
        coarse = to_octave(whole, self.octave)
        images, channels = self._synthesis.to_arrays(self._synthesis.finish(coarse, self.octave))
        _, own = self._synthesis.to_arrays(whole)
        channels = np.where(channels < 0, own, channels)
        rendered = [
            replace(sample, image=image, mask=self._ids(channel))
            for sample, image, channel in zip(samples, images, channels, strict=True)
        ]
        return self._without_strays(rendered)

    def _without_strays(self, samples: Sequence[Sample]) -> list[Sample]:
        return list(samples) if self._strays is None else [self._strays(s) for s in samples]

    def _ids(self, channels: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self.classes is None:
            return np.full(channels.shape, IGNORE_ID, np.uint8)
        return self.classes.decode(np.maximum(channels, 0))
