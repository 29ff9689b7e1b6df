"""The patch generator: pairs out of noise and patches, the baseline that every GAN must beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug import files
from synthaug.generator_folder import GeneratorFolder, read_verified
from synthaug.rendering.renderer import COARSE_PX
from synthaug.rendering.strays import StrayRemover
from synthaug.rendering.synthesis import Synthesis, octave_of, to_octave, to_picture
from synthaug.sample import IGNORE_ID, Sample
from synthaug.seeding import latent_seed, torch_stream

NAME = "patch"
SETTINGS = "patches.json"
LAYOUT_PX = 32
ROUNDS = 4
NOISE = 0.5
ZOOM = 1.3


class PatchGenerator(GeneratorFolder):
    """A folder of training pairs, opened for making samples of their patches.

    Unconditional generation after GPNN (Granot et al. 2022, arXiv:2103.15545), with the mask as
    further channels: a picture of at most 32 pixels a side plus noise is made anew of patches, four
    times per octave, up to the size where `PatchRenderer` begins; from there on it is rendered.

    Args:
        path: folder that ``fit`` wrote with the preset ``patch``.
        device: where to compute.

    Raises:
        InputError: the folder is no such folder, or a file of it is missing or damaged.
    """

    _GANS = (NAME,)
    _NEEDS = ("gan.flip", "seed")
    _OTHER = "{path} holds no patch generator: its manifest.json is of another kind"

    def __init__(self, path: str | Path, *, device: str | torch.device = "cpu") -> None:
        super().__init__(path)
        read_verified(self.path / SETTINGS, self.hash)
        classes = self.classes if self.classes.ids else None
        self._flip: bool = self.manifest["gan"]["flip"]
        self._start = octave_of(self.size, LAYOUT_PX)
        self._render_from = min(self._start, octave_of(self.size, COARSE_PX))
        self._synthesis = Synthesis(
            self.pairs,
            classes,
            self.size,
            self._start + 1,
            flip=self._flip,
            seed=self.manifest["seed"],
            device=torch.device(device),
        )
        self._strays = StrayRemover(self.pairs, self.classes)
        pictures = torch.cat([to_picture([pair], classes) for pair in self.pairs])
        self._layouts = to_octave(pictures, self._start)  # (P, 3 + N, h, w)

    @torch.inference_mode()
    def sample(self, seed: int) -> Sample:
        """Draw the sample of a seed; the same seed gives the same bits.

        Args:
            seed: seeds every draw.

        Returns:
            A pair at the training pairs' size, (H, W); ids as in the training masks.

        Raises:
            InputError: the seed is no whole number in [0, 2**64).
        """
        picture = self._layout(torch_stream(latent_seed(seed), NAME)).to(self._synthesis.device)
        for octave in range(self._start, self._render_from, -1):
            picture = self._synthesis.resample(picture, octave, ROUNDS)
        picture = self._synthesis.finish(picture, self._render_from)
        images, channels = self._synthesis.to_arrays(picture)
        if not self.classes.ids:
            mask = np.full(self.size, IGNORE_ID, np.uint8)
            return Sample(images[0], mask, f"z{seed}", self.grey)
        mask = self.classes.decode(np.maximum(channels[0], 0))
        return self._strays(Sample(images[0], mask, f"z{seed}", self.grey))

    def _layout(self, stream: torch.Generator) -> Tensor:
        """Draw a coarse picture: one of a pair, cropped, perhaps mirrored, plus noise."""
        whole = self._layouts[int(torch.randint(len(self._layouts), (1,), generator=stream))]
        share, x, y, mirror = torch.rand(4, generator=stream).tolist()
        share = 1 / (1 + (ZOOM - 1) * share)
        sign = -1.0 if self._flip and mirror < 0.5 else 1.0
        rows = [[share * sign, 0, (1 - share) * (2 * x - 1)], [0, share, (1 - share) * (2 * y - 1)]]
        grid = F.affine_grid(torch.tensor([rows]), [1, 1, *whole.shape[1:]], align_corners=False)
        crop = F.grid_sample(whole[None], grid, padding_mode="border", align_corners=False)
        noise = torch.randn(crop.shape, generator=stream)
        return (crop + NOISE * whole.std((1, 2))[:, None, None] * noise).clamp(0, 255).round()


def write_settings(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Write what samples depend on beside the pairs; returns the manifest's entries for it."""
    files.write_json(folder / SETTINGS, settings)
    digest = files.sha256_file(folder / SETTINGS)
    return {"snapshot": SETTINGS, "snapshot_sha256": digest}
