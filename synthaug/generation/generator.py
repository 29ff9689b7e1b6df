"""A fitted GAN, opened for drawing samples."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from synthaug import devices, gans
from synthaug.config import Accelerator
from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch
from synthaug.generator_folder import GeneratorFolder, read_verified
from synthaug.sample import IGNORE_ID, ClassMap, Sample
from synthaug.seeding import latent_seed


class Generator(GeneratorFolder):
    """A fitted generator, opened for sampling only.

    Args:
        path: folder that ``fit`` wrote.
        accelerator: ``auto`` takes CUDA where it is there.
        truncation: stylegan2: pulls samples towards the picture of the mean style, from 1, not at
            all, to 0, all the way: fewer broken ones, and less variety.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged; or it knows
            no truncation.
    """

    def __init__(
        self, path: str | Path, *, accelerator: Accelerator = "cpu", truncation: float = 1.0
    ) -> None:
        super().__init__(path)
        self._device = pick_device(accelerator)
        self._gan = gans.build_saved(self.manifest["gan"], path)
        if truncation != 1.0 and not self._gan.truncates:
            raise not_truncated(self.path)
        if not 0 <= truncation <= 1:
            raise InputError(f"truncation {truncation} is out of range: take one from 0 to 1")
        self.truncation = truncation
        load_weights(self._gan.generator, self.path / self.manifest["snapshot"], self.hash)
        self._gan.eval().requires_grad_(False)
        self._network = self._gan.generator.to(self._device)
        self._network.to(memory_format=self._gan.memory_format)

    def sample(self, seed: int) -> Sample:
        """Draw the sample of a latent seed; the same seed gives the same bits.

        Args:
            seed: seeds the latent z ~ N(0, I), and noise beside it where a GAN has any.

        Returns:
            A pair at the training pair's size, (H, W); mask ids as in the training mask.
        """
        classes = self.classes if self.classes.ids else None
        sample = self.draw(
            self._gan, self._network, seed, self.size, classes, self.colourless, self.truncation
        )
        return replace(sample, grey=self.grey)

    def interpolate(self, first: int, second: int, n: int) -> list[Sample]:
        """Draw ``n`` samples of evenly spaced latents, from one seed's latent to another's.

        Noise beside the latents is the first seed's all the way.
        """
        one, other = (_latent(self._gan, seed)[0] for seed in (first, second))
        classes = self.classes if self.classes.ids else None
        samples = []
        for share in np.linspace(0, 1, n).tolist():
            stream = _latent(self._gan, first)[1]
            z = torch.lerp(one, other, share)
            pair = _generate(self._gan, self._network, z, stream, self.truncation)
            name = f"z{first}-z{second}-{share:.3f}"
            sample = _finish(pair, name, self.size, classes, self.colourless)
            samples.append(replace(sample, grey=self.grey))
        return samples

    @staticmethod
    def draw(
        gan: GAN,
        network: nn.Module,
        seed: int,
        size: tuple[int, int],
        classes: ClassMap | None,
        grey: bool,
        truncation: float = 1.0,
    ) -> Sample:
        """Draw one sample of any network that generates for ``gan``; see `sample`."""
        pair = _generate(gan, network, *_latent(gan, seed), truncation)
        return _finish(pair, f"z{seed}", size, classes, grey)


def _latent(gan: GAN, seed: int) -> tuple[torch.Tensor, torch.Generator]:
    """Draw a latent (1, latent_dim); also return the stream, which goes on behind it."""
    stream = torch.Generator().manual_seed(latent_seed(seed))
    return gan.latent(1, stream), stream


@torch.inference_mode()
def _generate(
    gan: GAN, network: nn.Module, z: torch.Tensor, stream: torch.Generator, truncation: float
) -> PairBatch:
    z = z.to(next(network.parameters()).device)
    return gan.render(gan.sample(network, z, stream, truncation))


def _finish(
    pair: PairBatch, name: str, size: tuple[int, int], classes: ClassMap | None, grey: bool
) -> Sample:
    image = finish_image(pair.images[0], size, grey)
    return Sample(image, _finish_mask(pair.mask, size, classes), name, grey)


def not_truncated(path: Path) -> InputError:
    """Return the refusal of a truncation that a generator has none of."""
    return InputError(f"{path} knows no truncation, as stylegan2 alone does: leave it out")


def load_weights(module: nn.Module, path: Path, sha256: str) -> None:
    """Fill a network from a file of a generator's folder.

    Raises:
        InputError: the file is missing, damaged, or does not fit the network.
    """
    data = read_verified(path, sha256)
    try:
        module.load_state_dict(load_safetensors(data), strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"snapshot {path} does not fit this version of synthaug ({reason}): fit again"
        ) from error


def finish_image(image: torch.Tensor, size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
    """(1, 3, h, w) in [-1, 1] -> (H, W, 3) uint8 by bicubic resampling."""
    value = ((image[0].float() + 1) * 127.5).permute(1, 2, 0).contiguous().cpu().numpy()
    height, width = size
    if value.shape[:2] != size:
        value = cv2.resize(value, (width, height), interpolation=cv2.INTER_CUBIC)
    if grey:
        value = np.repeat(value.mean(axis=2, keepdims=True), 3, axis=2)
    rounded: NDArray[np.uint8] = np.rint(value).clip(0, 255).astype(np.uint8)
    return rounded


def _finish_mask(
    mask: torch.Tensor | None, size: tuple[int, int], classes: ClassMap | None
) -> NDArray[np.uint8]:
    """(1, N, h, w) probabilities -> (H, W) ids; resized before the argmax, for smooth edges."""
    if mask is None or classes is None:
        return np.full(size, IGNORE_ID, np.uint8)
    if not mask.is_floating_point():  # (1, h, w) classes that were painted, -1 = ignored
        nearest = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[0, 0].long()
        ids = classes.decode(nearest.clamp_min(0).cpu().numpy())
        return np.where((nearest < 0).cpu().numpy(), np.uint8(IGNORE_ID), ids)
    index = likeliest(mask[0].float(), size)
    return classes.decode(index.cpu().numpy())


def likeliest(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize (N, h, w) scores and take the highest of each pixel, (H, W) int64, class by class."""
    highest = torch.full(size, -math.inf, device=maps.device)
    channels = torch.zeros(size, dtype=torch.int64, device=maps.device)
    for channel, low in enumerate(maps):  # not all at full size at once
        full = low
        if low.shape != size:
            full = F.interpolate(low[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        channels[full > highest] = channel
        highest = torch.maximum(highest, full)
    return channels


def pick_device(accelerator: Accelerator) -> torch.device:
    """Return the device that an option names.

    Raises:
        InputError: there is none, or the name is unknown.
    """
    if accelerator not in get_args(Accelerator):
        names = ", ".join(get_args(Accelerator))
        raise InputError(f"unknown accelerator {accelerator!r}: choose one of {names}")
    if accelerator == "cpu":
        return torch.device("cpu")
    mps = accelerator == "mps"
    available = torch.backends.mps.is_available() if mps else devices.cuda_works()
    if accelerator == "auto" and not available:
        return torch.device("cpu")
    if not available:
        raise InputError(f"no {accelerator} device here: use --accelerator cpu or auto")
    return torch.device("mps" if accelerator == "mps" else "cuda")
