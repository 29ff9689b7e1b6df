"""A fitted painter of label maps: new pictures for given masks, with control over their noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synthaug.bank import require_pairs
from synthaug.config import Accelerator
from synthaug.errors import InputError
from synthaug.gans.oasis import LabelMapGenerator
from synthaug.gans.oasis.networks import NOISE_DIM
from synthaug.gans.oasis.noise import (
    Per,
    as_tensor,
    combine,
    image_noise,
    interpolate,
    noise_per,
)
from synthaug.generation.generator import Generator, finish_image
from synthaug.sample import IGNORE_ID, Sample, class_list, meaning_table
from synthaug.seeding import numpy_stream, torch_stream

SEAM = 0.5
"""Standard deviation of LabelMix' soft seams, in pixels of the painter."""


class MapGenerator(Generator):
    """A generator that paints label maps, opened for sampling only.

    One that ``convert`` made of public weights has no training pairs: it paints masks that are
    given, and each as if stretched to the training size, whatever its own.

    Noise for `render` comes from `synthaug.gans.oasis.noise`: one vector for the picture, or a
    field of vectors made from the mask, of which places can be exchanged or interpolated.

    Masks are of ids of the training masks, 255 being unlabelled; `meaning` brings masks there that
    are written as the training's were.

    Attributes:
        white_is_object: whether 255 was the object in the training's masks, which is class 1.

    Args:
        path: folder that ``fit`` wrote with a generator such as ``oasis``, or ``convert``.
        accelerator: ``auto`` takes CUDA where it is there.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged.
    """

    paints_masks = True
    _GANS = ("oasis",)
    _OTHER = "{path} does not paint masks: its manifest.json is of another kind"

    def __init__(self, path: str | Path, *, accelerator: Accelerator = "cpu") -> None:
        super().__init__(path, accelerator=accelerator)
        assert isinstance(self._network, LabelMapGenerator)
        self._painter: LabelMapGenerator = self._network
        self._ignored = self.manifest["config"].get("ignore", ())
        self._unlabelled = [IGNORE_ID, *self._ignored]
        self.white_is_object = bool(self.manifest.get("white_is_object", False))
        self._labelled = [p for p in self.pairs if (p.mask != IGNORE_ID).any()]

    def sample(self, seed: int) -> Sample:
        """Paint a training pair's mask anew; the same seed gives the same bits.

        Args:
            seed: picks the pair and its noise.

        Returns:
            The picture at the pair's size with the pair's mask, ignored pixels included.

        Raises:
            InputError: there are no training pairs.
        """
        return self.paint(self.training_pair(seed).mask, seed)

    def interpolate(self, first: int, second: int, n: int) -> list[Sample]:
        """Paint the first seed's training mask ``n`` times; see `between`."""
        mask, name = self.training_pair(first).mask, f"z{first}-z{second}"
        painted = self.between(mask, (first, second), n)
        return [
            Sample(image, mask.copy(), f"{name}-{number / (n - 1):.3f}", self.grey)
            for number, image in enumerate(painted)
        ]

    def paint(self, mask: NDArray[np.uint8], seed: int) -> Sample:
        """Paint a mask with one noise vector; see `render`."""
        return Sample(self.render(mask, image_noise(seed)), mask.copy(), f"z{seed}", self.grey)

    def mix(
        self,
        pair: Sample,
        seed: int,
        share: float = 0.0,
        *,
        keep: int | str | Sequence[int | str] = (),
        mask: NDArray[np.uint8] | None = None,
    ) -> Sample:
        """Paint a labelled picture anew, and keep some of its classes as they were: LabelMix.

        The operation by which OASIS trains its discriminator (Sushko et al., ICLR 2021, section
        3.1), with soft seams.

        Args:
            pair: a picture and its mask.
            seed: of the noise and of what is kept.
            share: see `kept`.
            keep: see `kept`.
            mask: (H, W) ids to paint instead of the pair's own, of its size; only where both are
                the same may anything be kept.

        Returns:
            The mixed picture with the mask that it shows.

        Raises:
            InputError: as `render`, the share is out of range, a class is unknown, or the mask is
                of another size than the pair.
        """
        if mask is not None and mask.shape != pair.mask.shape:
            raise InputError(
                f"a pair of shape {pair.mask.shape} is not mixed with a mask of shape "
                f"{mask.shape}: bring both to one size"
            )
        painted = self.paint(pair.mask if mask is None else mask, seed)
        same = painted.mask == pair.mask
        where = self.kept(painted.mask, seed, share, keep=keep, where=same)
        mixed = label_mix(pair.image, painted.image, where)
        return Sample(mixed, painted.mask, painted.id, self.grey)

    def kept(
        self,
        mask: NDArray[np.uint8],
        seed: int,
        share: float = 0.0,
        *,
        keep: int | str | Sequence[int | str] = (),
        where: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Draw which classes of a mask keep their pixels, each for itself.

        At least one of those that are drawn for does not, so that something is painted.

        Args:
            mask: (H, W) ids; what is unlabelled is drawn for like a class.
            seed: of the draw.
            share: probability of a class to be kept, in [0, 1).
            keep: classes, by id or name, that are kept in any case.
            where: (H, W) bool: elsewhere nothing is kept.

        Returns:
            (H, W) in [0, 1]: 1 where kept. Seams are as soft as the painter's pixels are large.

        Raises:
            InputError: the share is out of range, or a class is unknown.
        """
        if not 0 <= share < 1:
            raise InputError(f"labelmix {share} is out of range: take a share from 0 to below 1")
        draws = numpy_stream(seed, "labelmix").random(256)
        always = [self.classes.find(name) for name in class_list(keep)]
        free = np.setdiff1d(np.unique(mask), always)
        if len(free):
            draws[free[draws[free].argmax()]] = 1.0
        draws[always] = -1.0
        sharp = (draws < share)[mask].astype(np.float32)
        height, width = mask.shape
        softness_px = SEAM * height / self._working_size(height, width)[0]
        soft: NDArray[np.float32] = cv2.GaussianBlur(sharp, (0, 0), softness_px)
        return soft if where is None else soft * where

    def versions(
        self,
        mask: NDArray[np.uint8],
        n: int,
        *,
        seed: int = 0,
        per: Per = "image",
        resample: int | str | NDArray[np.bool_] | Tensor | None = None,
    ) -> list[NDArray[np.uint8]]:
        """Paint a mask several times over.

        Args:
            mask: (H, W) ids; see `render`.
            n: number of pictures.
            seed: noise of the first; the next have the next numbers.
            per: what gets a noise vector of its own.
            resample: a class by its id or name, or (H, W) bool or 0/1, NumPy or torch: only there
                the versions get other noise than the first.

        Returns:
            n pictures (H, W, 3) uint8 RGB.

        Raises:
            InputError: as `render`, n is less than 1, the class is unknown or nowhere in the mask,
                or the place is of another size than the mask, of other values, or empty.
        """
        if n < 1:
            raise InputError(f"{n} versions are none: ask for 1 up")
        labels, where = self._ids(mask), self._where(mask, resample)
        first = noise_per(per, labels, seed)
        pictures = []
        for number in range(n):  # one by one: noise may be as large as 64 pictures
            noise = noise_per(per, labels, seed + number) if number else first
            if where is not None:
                noise = combine(first, noise, where)
            pictures.append(self.render(mask, noise))
        return pictures

    def between(
        self,
        mask: NDArray[np.uint8],
        seeds: tuple[int, int],
        n: int,
        *,
        per: Per = "image",
        resample: int | str | NDArray[np.bool_] | Tensor | None = None,
    ) -> list[NDArray[np.uint8]]:
        """Paint a mask with noise that goes from one seed's to another's, both included.

        Args:
            mask: (H, W) ids; see `render`.
            seeds: of the first and the last picture.
            n: number of pictures, from 2.
            per: what gets a noise vector of its own.
            resample: where the noise changes; see `versions`. Elsewhere it is the first seed's.

        Returns:
            n pictures (H, W, 3) uint8 RGB.

        Raises:
            InputError: as `versions`, or n is less than 2.
        """
        check_strip(n)
        labels, where = self._ids(mask), self._where(mask, resample)
        first, last = (noise_per(per, labels, seed) for seed in seeds)
        shares = [number / (n - 1) for number in range(n)]
        return [self.render(mask, interpolate(first, last, s, where=where)) for s in shares]

    @torch.inference_mode()
    def render(
        self, mask: NDArray[np.integer[Any]], noise: Tensor | NDArray[np.floating[Any]] | int
    ) -> NDArray[np.uint8]:
        """Paint a mask at its own size, at the scale of the training pictures.

        Args:
            mask: (H, W) ids of the training masks; 255, and what training ignored, is unlabelled.
            noise: (64,) for all of it, or (64, H, W), NumPy or torch, of any floating type; an
                integer seeds one vector.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: the mask has an id that training did not show, or no label at all, or the
                noise has another shape.
        """
        labels = torch.from_numpy(self._encode(mask))
        vectors = _vectors(noise, mask.shape)
        size = self._working_size(labels.shape[0], labels.shape[1])
        labels = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0].long()
        if vectors.ndim == 3:
            vectors = F.interpolate(vectors[None], size, mode="nearest-exact")[0]
        painted = self._painter.paint(labels.to(self._device), vectors[None].to(self._device))
        return finish_image(painted, (mask.shape[0], mask.shape[1]), self.colourless)

    def meaning(self, mask: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Give ids in a mask of the user's what they meant in training; see `meanings`."""
        return self.meanings([mask])[0]

    def meanings(self, masks: Sequence[NDArray[np.integer[Any]]]) -> list[NDArray[np.uint8]]:
        """Give ids in masks that belong together what they meant in training.

        Args:
            masks: ids, of any shapes.

        Returns:
            The same shapes, uint8: what training ignored is 255, and 255 is 1 where it was the
            object, unless one of these masks holds id 1; see `meaning_table`.

        Raises:
            InputError: an id is not in 0..255.
        """
        for mask in masks:
            if mask.size and (mask.min() < 0 or mask.max() > 255):
                bad = int(mask.min() if mask.min() < 0 else mask.max())
                raise InputError(f"the mask holds id {bad}: ids of masks are 0..255")
        shown = {"": {1} if any((mask == 1).any() for mask in masks) else set[int]()}
        table = meaning_table(shown, self._ignored, white=self.white_is_object)
        return [table[mask] for mask in masks]

    def check_ids(self, mask: NDArray[np.integer[Any]], where: str = "the mask") -> set[int]:
        """Return the ids of a mask, what is unlabelled included.

        Args:
            mask: (H, W) ids.
            where: begins the error's line.

        Raises:
            InputError: training did not show one of them.
        """
        ids = set(np.unique(mask).tolist())
        unknown = sorted(ids - set(self.classes.ids) - set(self._unlabelled))
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise InputError(
                f"{where} holds ids {unknown[:3]}{more} that {self.path} was not fitted to: known "
                f"are {list(self.classes.ids)}, and 255 is unlabelled"
            )
        return ids

    def require_training_masks(self) -> None:
        """Refuse what paints training masks where there are none; see `require_pairs`."""
        require_pairs(self.path, self.pairs, "give masks to paint with --layouts FOLDER")

    def training_pair(self, seed: int) -> Sample:
        """Return the labelled training pair of a seed, the one whose mask `sample` paints.

        Raises:
            InputError: there are no training pairs.
        """
        self.require_training_masks()
        stream = torch_stream(seed, "training mask")
        number = int(torch.randint(len(self._labelled), (1,), generator=stream))
        return self._labelled[number]

    def _ids(self, mask: NDArray[np.uint8]) -> Tensor:
        self._encode(mask)  # refuses what cannot be painted
        return torch.from_numpy(mask.astype(np.int64))

    def _where(
        self, mask: NDArray[np.uint8], resample: int | str | NDArray[np.bool_] | Tensor | None
    ) -> Tensor | None:
        """The place to resample, (H, W) bool."""
        if resample is None:
            return None
        if isinstance(resample, (np.ndarray, Tensor)):
            place = as_tensor(resample).cpu()
            if place.shape != mask.shape:
                raise InputError(
                    f"a place of shape {tuple(place.shape)} lies in no mask of shape {mask.shape}: "
                    "pass bool (H, W) of the mask's size"
                )
            if not ((place == 0) | (place == 1)).all() or not place.any():
                raise InputError(
                    "the place to resample is empty or holds other values than 0 and 1: pass bool "
                    "that is true there"
                )
            return place.bool()
        class_id = self.classes.find(resample)
        where = mask == class_id
        if not where.any():
            held = sorted(set(np.unique(mask).tolist()) - set(self._unlabelled))
            raise InputError(f"the mask has no pixel of class {resample}: it holds ids {held}")
        return torch.from_numpy(where)

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size that a mask is painted at: as much smaller as the training pictures were."""
        whole = self.size if self.pairs else None
        return at_trained_scale((height, width), self._painter.size, whole, self._painter.grid_px)

    def _encode(self, mask: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Turn ids into classes, -1 where unlabelled."""
        if mask.ndim != 2:
            raise InputError(f"a mask of shape {mask.shape} cannot be painted: pass ids (H, W)")
        ids = self.check_ids(mask)
        if not ids - set(self._unlabelled):
            raise InputError("the mask has no labelled pixel: there is nothing to paint")
        return self.classes.encode(mask.astype(np.uint8))


def _vectors(noise: object, size: tuple[int, ...]) -> Tensor:
    """Noise to paint a mask of (H, W) with, (64,) or (64, H, W) float32."""
    if isinstance(noise, (int, np.integer)):
        return image_noise(int(noise))
    vectors = as_tensor(noise) if isinstance(noise, (np.ndarray, Tensor)) else None
    if vectors is None or vectors.shape not in ((NOISE_DIM,), (NOISE_DIM, *size)):
        found = type(noise).__name__ if vectors is None else f"shape {tuple(vectors.shape)}"
        raise InputError(
            f"noise of {found} cannot paint a mask of shape {size}: pass ({NOISE_DIM},), "
            f"{(NOISE_DIM, *size)}, or a seed"
        )
    return vectors.float()


def label_mix(
    picture: NDArray[Any], painted: NDArray[Any], kept: NDArray[np.float32]
) -> NDArray[Any]:
    """Blend two pictures of one shape and dtype; ``kept`` (H, W) is the first one's share."""
    weight = kept if picture.ndim == 2 else kept[..., None]
    mixed: NDArray[Any] = painted + weight * (picture.astype(np.float32) - painted)
    whole = np.issubdtype(picture.dtype, np.integer)
    return (np.rint(mixed) if whole else mixed).astype(picture.dtype)


def check_strip(n: int) -> None:
    """Refuse to go from one seed to another in fewer than two pictures."""
    if n < 2:
        raise InputError(f"{n} picture(s) cannot lead from one seed to another: ask for 2 up")


def at_trained_scale(
    size: tuple[int, int], trained: tuple[int, int], whole: tuple[int, int] | None, grid_px: int
) -> tuple[int, int]:
    """Return the size to work at: as much smaller than the picture as in training.

    Args:
        size: height and width of the picture in pixels.
        trained: size of the training pictures as the networks saw them.
        whole: size of the training pictures in their files; None: pictures of any size were
            stretched to ``trained``.
        grid_px: what sides must be multiples of.
    """
    if whole is None:
        return trained
    height, width = (
        max(1, round(side * seen / full / grid_px)) * grid_px
        for side, seen, full in zip(size, trained, whole, strict=True)
    )
    return height, width
