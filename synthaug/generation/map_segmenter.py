"""A fitted painter's discriminator, opened as a segmenter of unlabelled pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from synthaug import gans
from synthaug.bank import read_manifest
from synthaug.config import Accelerator
from synthaug.errors import InputError
from synthaug.gans.oasis import OASIS
from synthaug.gans.oasis.noise import as_tensor
from synthaug.generation.generator import likeliest, load_weights, pick_device
from synthaug.generation.map_generator import MapGenerator, at_trained_scale
from synthaug.generator_folder import check_manifest
from synthaug.sample import ClassMap


class MapSegmenter:
    """What told real pixels of every class from painted ones, asked for the class alone.

    OASIS' discriminator gives every pixel a class or calls it fake; without "fake" it is a
    segmenter (Sushko et al., IJCV 2022, section 4.5). Its weights are the last ones: only the
    generator is averaged.

    Args:
        path: folder that ``fit`` wrote with a generator such as ``oasis``, or ``convert``.
        accelerator: ``auto`` takes CUDA where it is there.

    Attributes:
        path: the folder.
        classes: what it tells apart.
        hash: SHA-256 of its weights.

    Raises:
        InputError: the folder is no such generator, holds no discriminator, or is damaged.
    """

    def __init__(self, path: str | Path, *, accelerator: Accelerator = "cpu") -> None:
        self.path = Path(path)
        manifest = read_manifest(self.path, "generator")
        if not MapGenerator.draws(manifest):
            raise InputError(
                f"{path} has no discriminator that segments: fit with --generator oasis"
            )
        if "discriminator" not in manifest:
            why = "an earlier version of synthaug wrote it, fit again"
            if not manifest.get("pairs"):
                why = "lay the *_D.pth beside the *_EMA.pth and convert again"
            raise InputError(f"{path} holds no discriminator: {why}")
        check_manifest(manifest, self.path, ["discriminator_sha256"])
        self.classes = ClassMap.from_dict(manifest.get("classes"), f"generator {path}")
        self.hash: str = manifest["discriminator_sha256"]
        height, width = manifest["size"]
        self._size = (height, width) if manifest["pairs"] else None  # see `at_trained_scale`
        self._device = pick_device(accelerator)
        gan = gans.build_saved(manifest["gan"], path)
        assert isinstance(gan, OASIS)
        load_weights(gan.discriminator, self.path / manifest["discriminator"], self.hash)
        self._gan = gan.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give every pixel of a picture a class.

        Args:
            image: (H, W, 3) uint8 RGB, at the scale of the training pictures.

        Returns:
            (H, W) uint8 ids of the training masks; nothing is left unlabelled.

        Raises:
            InputError: the picture has another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"a picture of shape {image.shape} and type {image.dtype} cannot be segmented: "
                "pass RGB (H, W, 3) of uint8"
            )
        height, width = image.shape[:2]
        size = at_trained_scale(
            (height, width), self._gan.generator.size, self._size, self._gan.segment_grid_px
        )
        pixels = as_tensor(image).permute(2, 0, 1)[None].to(self._device).float()
        pixels = F.interpolate(
            pixels / 127.5 - 1, size, mode="bilinear", antialias=True, align_corners=False
        )
        logits = self._gan.segment(pixels.clamp(-1, 1))
        channels = likeliest(logits[0], (height, width))
        return self.classes.decode(channels.cpu().numpy())
