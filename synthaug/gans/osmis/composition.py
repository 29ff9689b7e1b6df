"""Compositions of a labelled pair: its objects, moved, over its completed background.

The fast preset's generator starts from a coarse composition, as SinGAN starts from a coarse
picture, and its discriminator accepts compositions as real layouts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.composing.components import in_turns, largest_scale, list_components
from synthaug.composing.cutting import empty
from synthaug.gans.precision import exact
from synthaug.gans.warping import affine_places, sample_at
from synthaug.sample import IGNORE_ID, ClassMap, Sample

MAX_OBJECTS = 6
BACKGROUND_DRAWS = 5
OBJECT_DRAWS = 6
DRAWS = BACKGROUND_DRAWS + OBJECT_DRAWS * MAX_OBJECTS


class Composition(nn.Module):
    """Draws compositions of P training pairs.

    The six largest objects, each class in turn, as `list_components` tells them, move on their own,
    everything else stays with the background. Buffers hold the parts, so that a snapshot carries
    them.

    Args:
        height: height of the parts in pixels.
        width: width of the parts in pixels.
        num_classes: N, the background first; None for pictures without masks.
        num_pairs: P.
        flip: whether mirror images are plausible.
        enlarge: whether small objects are shown larger, too, see `largest_scale`.
    """

    pictures: Tensor
    backgrounds: Tensor
    alphas: Tensor
    classes: Tensor
    centres: Tensor
    largest: Tensor
    reach: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        num_classes: int | None,
        num_pairs: int = 1,
        *,
        flip: bool,
        enlarge: bool = True,
    ) -> None:
        super().__init__()
        self.size = (height, width)
        self.channels = num_classes or 1
        self.flip = flip
        self.enlarge = enlarge
        P, K, N = num_pairs, MAX_OBJECTS, self.channels
        self.register_buffer("pictures", torch.zeros(P, 3, height, width))
        self.register_buffer("backgrounds", torch.zeros(P, 3 + N, height, width))
        self.register_buffer("alphas", torch.zeros(P, K, height, width))
        self.register_buffer("classes", torch.full((P, K), -1, dtype=torch.long))
        self.register_buffer("centres", torch.zeros(P, K, 2))
        self.register_buffer("largest", torch.ones(P))
        self.register_buffer("reach", torch.tensor([0.5, 0.25]), persistent=False)
        self._slots = 0  # a number that the device need not be asked for in every step
        self.register_load_state_dict_post_hook(_count_slots)  # type: ignore[no-untyped-call]

    def learn(self, images: Tensor, masks: Tensor | None) -> None:
        """Take pairs apart.

        Args:
            images: (P, 3, H, W) in [-1, 1].
            masks: (P, N, H, W) one-hot, zero where ignored; None without masks.
        """
        if masks is None:
            masks = torch.ones_like(images[:, :1])
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            self._learn_pair(index, image, mask)
        _count_slots(self)

    def _learn_pair(self, index: int, image: Tensor, mask: Tensor) -> None:
        size = self.size
        image = F.interpolate(image[None], size, mode="area")[0]
        share = F.interpolate(mask[None], size, mode="area")[0]
        self.pictures[index] = image
        objects = _components(share.argmax(0), self.channels)
        self.backgrounds[index] = _emptied(image, share, [found[:2] for found in objects])
        for slot, (label, component, _) in enumerate(objects):
            self.classes[index, slot] = label
            self.alphas[index, slot] = share[label] * _grow(component, 1)
            self.centres[index, slot] = _centre(component)
        if self.enlarge:
            covered = int((share.argmax(0) > 0).sum())
            self.largest[index] = largest_scale(covered / (size[0] * size[1]))

    def forward(self, draws: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Compose.

        Args:
            draws: (B, DRAWS) standard normal numbers that choose the places.
            pair: (B,) index of the pair each composition is made from.

        Returns:
            Images (B, 3, H, W) in [-1, 1] and masks (B, N, H, W).
        """
        u = torch.special.ndtr(draws)
        image, mask = self._ground(u[:, :BACKGROUND_DRAWS], pair)
        for slot in range(self._slots):
            first = BACKGROUND_DRAWS + OBJECT_DRAWS * slot
            image, mask = self._paste(image, mask, u[:, first : first + OBJECT_DRAWS], pair, slot)
        return image, mask

    def _ground(self, u: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Crop the background by a factor of up to 1.3, mirrored half the time."""
        size = 1 / (1 + 0.3 * u[:, 1])
        theta = torch.zeros(len(u), 2, 3, device=u.device)
        theta[:, 0, 0] = size * self._mirror(u[:, 0])
        theta[:, 1, 1] = size
        theta[:, 0, 2] = (1 - size) * (2 * u[:, 2] - 1)
        theta[:, 1, 2] = (1 - size) * (2 * u[:, 3] - 1)
        whole = _warp(self.backgrounds[pair], theta, "reflection")
        return whole[:, :3], whole[:, 3:]

    def _paste(
        self, image: Tensor, mask: Tensor, u: Tensor, pair: Tensor, slot: int
    ) -> tuple[Tensor, Tensor]:
        """Paste one object mirrored, scaled, turned by up to 0.2 rad and shifted.

        Scales are 0.74-1.35, or further up where the pair's objects are small.
        """
        height, width = self.size
        centre = self.centres[pair, slot]
        place = ((2 * u[:, 3:5] - 1) * self.reach + centre).clamp(-0.8, 0.8)
        most = self.largest[pair].log().clamp_min(0.3)
        scale = torch.exp((2 * u[:, 1] - 1) * (most + 0.3) / 2 + (most - 0.3) / 2)
        angle = (2 * u[:, 2] - 1) * 0.2
        mirror = self._mirror(u[:, 0])
        cos, sin = angle.cos() / scale, angle.sin() / scale
        row_x = torch.stack([cos * mirror, -sin * mirror * height / width], 1)
        row_y = torch.stack([sin * width / height, cos], 1)
        linear = torch.stack([row_x, row_y], 1)  # (B, 2, 2)
        with exact(u):
            offset = centre - (linear @ place[..., None])[..., 0]
        theta = torch.cat([linear, offset[..., None]], 2)
        part = torch.cat([self.pictures[pair], self.alphas[pair, slot, None]], 1)
        part = _warp(part, theta, "zeros")
        alpha = part[:, 3:]
        classes = torch.arange(self.channels, device=u.device)
        of_class = (self.classes[pair, slot, None] == classes).to(mask.dtype)[..., None, None]
        return image + alpha * (part[:, :3] - image), mask + alpha * (of_class - mask)

    def _mirror(self, u: Tensor) -> Tensor:
        sign = torch.where(u < 0.5, -1.0, 1.0)
        return sign if self.flip else torch.ones_like(sign)


def _count_slots(composition: Composition, *_: object) -> None:
    """Count the slots of objects in use: they are filled one after the other."""
    composition._slots = int((composition.classes >= 0).any(0).sum())


def _components(labels: Tensor, num_classes: int) -> list[tuple[int, Tensor, int]]:
    """Return (class, (H, W) bool, pixels) of the movable objects, largest first."""
    found = in_turns(list_components(labels.numpy(), num_classes), MAX_OBJECTS)
    shape = tuple(labels.shape)
    return [(part.channel, torch.from_numpy(part.whole(shape)), part.area) for part in found]


def _emptied(image: Tensor, share: Tensor, objects: list[tuple[int, Tensor]]) -> Tensor:
    """Image (3, H, W) and shares of classes (N, H, W) without objects, as (3 + N, H, W)."""
    if not objects:
        return torch.cat([image, share])
    known = share.sum(0)
    labels = torch.where(known > 0.5, share.argmax(0), IGNORE_ID).byte().numpy()
    pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().byte().contiguous().numpy()
    parts = [(label, component.numpy()) for label, component in objects]
    ground = empty(Sample(pixels, labels), parts, ClassMap(tuple(range(len(share)))))
    filled = torch.from_numpy((ground.image != pixels).any(2) | (ground.mask != labels))
    colours = torch.from_numpy(ground.image).permute(2, 0, 1) / 127.5 - 1
    channels = torch.from_numpy(ground.mask).long().clamp_max(len(share) - 1)
    one_hot = F.one_hot(channels, len(share)).permute(2, 0, 1) * known
    return torch.where(filled, torch.cat([colours, one_hot]), torch.cat([image, share]))


def _grow(component: Tensor, by: int) -> Tensor:
    return F.max_pool2d(component[None, None].float(), 2 * by + 1, 1, by)[0, 0] > 0


def _centre(component: Tensor) -> Tensor:
    """Centre of mass in [-1, 1], (x, y)."""
    rows, columns = component.nonzero().float().unbind(1)
    height, width = component.shape
    x = (columns.mean() + 0.5) / width * 2 - 1
    y = (rows.mean() + 0.5) / height * 2 - 1
    return torch.stack([x, y])


def _warp(maps: Tensor, theta: Tensor, padding: str) -> Tensor:
    return sample_at(maps, affine_places(theta, (maps.shape[2], maps.shape[3])), padding)
