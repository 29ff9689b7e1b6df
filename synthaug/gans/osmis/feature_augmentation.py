"""Feature augmentation: what the discriminator's branches see of the real pairs is recombined.

The content branch's vectors are mixed between samples and partly dropped; the layout branch's maps
are rearranged in rectangles and, with masks, object by object (thesis sections 5.2.1 and 6.2.2).
A rearrangement is kept as a map of source positions into all samples' positions, which the
operations refine one after the other; features and mask are gathered once at the end. There is no
loop over samples and no transfer to the host.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 5
OBJECTS = 3
"""At most this many objects of a sample are duplicated or removed."""


def augment_content(
    vectors: Tensor, p: float = 0.4, *, per_sample: bool = True, swap: bool = True
) -> Tensor:
    """Mix and drop channels of the first row, the background (or the image, without masks).

    Mixing exchanges a random 10-30 % of the channels between the two samples of a pair; dropping
    zeroes a random 10-30 %.

    Args:
        vectors: (N, B, C) mean features by class and sample.
        p: probability of either operation.
        per_sample: draw by pair and sample, with random pairs; off: one draw for the batch, pairs
            (0, 1), (2, 3), ... and one shared subset to drop.
        swap: exchange; off: only the first sample of a pair receives.

    Returns:
        (N, B, C); rows from the second on are untouched.
    """
    row = vectors[0]
    B, C = row.shape
    device = row.device
    pairs = Pairs.draw(B, per_sample, device)
    mixed = _channels(B, C, device)[pairs.leader] & _fires(B, p, per_sample, device)[pairs.leader]
    if not swap:
        mixed = mixed & pairs.leads[:, None]
    row = torch.where(mixed, row[pairs.partner], row)
    dropped = _channels(B if per_sample else 1, C, device) & _fires(B, p, per_sample, device)
    row = row.masked_fill(dropped, 0.0)
    return torch.cat([row[None], vectors[1:]])


def augment_layout(
    features: Tensor, mask: Tensor | None, p: float = 0.4, *, per_sample: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Rearrange feature maps, and the mask along with them.

    Without mask: swap a rectangle between the two samples of a pair. With mask, one after the
    other and each with probability ``p``: copy a rectangle of background over another one of the
    same sample; swap a rectangle of background within a pair; paste an object of one sample of
    the pair on background of the other; for some objects, duplicate them on background and cover
    the original with background. Places are drawn up to five times until they fit.

    Args:
        features: (B, C, h, w), h and w at least 2.
        mask: (B, N, H, W), background first, hard or soft; resized to (h, w) by nearest neighbour.
            What is not wholly background counts as object and is never covered by accident.
        p: probability of each operation.
        per_sample: draw by sample and by random pair; off: once for the batch, pairs (0, 1), ...

    Returns:
        Features (B, C, h, w) and the mask (B, N, h, w) that fits them, or None.
    """
    B, _, h, w = features.shape
    device = features.device
    source = torch.arange(B * h * w, device=device).view(B, h, w)
    pairs = Pairs.draw(B, per_sample, device)
    if mask is None:
        inside = _Rectangles.draw(B, 1, h, w, device).inside()[:, 0]
        fire = _fires(B, p, per_sample, device)[..., None]
        source = torch.where((inside & fire)[pairs.leader], source[pairs.partner], source)
    else:
        mask = F.interpolate(mask, (h, w), mode="nearest")
        rearrange = Rearrangement(mask, pairs, p, per_sample)
        source = rearrange.copy_background(source)
        source = rearrange.swap_background(source)
        source = rearrange.paste_object(source)
        source = rearrange.move_objects(source)
        mask = _take(mask, source)
    return _take(features, source), mask


class Pairs(NamedTuple):
    """Samples two by two.

    Attributes:
        partner: (B,) index of the other sample; oneself for an odd one out.
        leader: (B,) index of the pair's first sample.
    """

    partner: Tensor
    leader: Tensor

    @classmethod
    def draw(cls, B: int, shuffle: bool, device: torch.device) -> Pairs:
        """Pair B samples, at random or as neighbours."""
        order = torch.arange(B, device=device)
        partner, leader = order.clone(), order.clone()
        if shuffle:
            order = torch.rand(B, device=device).argsort()
        first, second = order[0 : B - 1 : 2], order[1:B:2]
        partner[first], partner[second] = second, first
        leader[second] = first
        return cls(partner, leader)

    @property
    def leads(self) -> Tensor:
        """Whether a sample is the first of two, (B,)."""
        own = torch.arange(len(self.leader), device=self.leader.device)
        return (self.leader == own) & (self.partner != own)


class _Rectangles(NamedTuple):
    """Rectangles, T a sample; top, left, height, width are (B, T) integers."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    h: int
    w: int

    @classmethod
    def draw(cls, B: int, T: int, h: int, w: int, device: torch.device) -> _Rectangles:
        """Sides 10-50 % of the map, centres uniform, pushed inside."""
        side = torch.rand(2, B, T, device=device) * 0.4 + 0.1
        height = (side[0] * h).round().clamp_min(1).long()
        width = (side[1] * w).round().clamp_min(1).long()
        zero = torch.zeros_like(height)
        return cls(zero, zero, height, width, h, w).elsewhere()

    def elsewhere(self) -> _Rectangles:
        """Rectangles of the same sizes at new places."""
        centre = torch.rand(2, *self.height.shape, device=self.height.device)
        top = (centre[0] * self.h - self.height / 2).round().long()
        left = (centre[1] * self.w - self.width / 2).round().long()
        top = torch.minimum(top.clamp_min(0), self.h - self.height)
        left = torch.minimum(left.clamp_min(0), self.w - self.width)
        return self._replace(top=top, left=left)

    def inside(self) -> Tensor:
        """Return (B, T, h, w) bool."""
        y = torch.arange(self.h, device=self.top.device) - self.top[..., None]
        x = torch.arange(self.w, device=self.top.device) - self.left[..., None]
        rows = (y >= 0) & (y < self.height[..., None])
        columns = (x >= 0) & (x < self.width[..., None])
        return rows[..., :, None] & columns[..., None, :]

    def shift_to(self, other: _Rectangles) -> Tensor:
        """Return the distance (B, T) from these to the other places in flat positions."""
        return (other.top - self.top) * self.w + other.left - self.left

    def disjoint(self, other: _Rectangles) -> Tensor:
        """Whether rectangles of equal size do not touch, (B, T)."""
        return ((self.top - other.top).abs() >= self.height) | (
            (self.left - other.left).abs() >= self.width
        )


class Rearrangement:
    """The operations of layout augmentation with masks, on maps (B, h, w) of source positions.

    Args:
        mask: (B, N, h, w), background first.
        pairs: who swaps and pastes with whom.
        p: probability of each operation.
        per_sample: whether firing is drawn by sample, or once for the batch.
    """

    def __init__(self, mask: Tensor, pairs: Pairs, p: float, per_sample: bool) -> None:
        self.mask = mask
        self.shape = mask.shape
        self.pairs = pairs
        self.p = p
        self.per_sample = per_sample
        self.object = (mask[:, 0] < 0.999).flatten()  # (B * h * w,)

    def copy_background(self, source: Tensor) -> Tensor:
        """Copy a rectangle of background over another one of the same sample."""
        origin = self._rectangles()
        target = origin.elsewhere()
        from_, to = origin.inside(), target.inside()
        fits = self._free(source, from_) & self._free(source, to) & origin.disjoint(target)
        to, distance, found = _first(fits, to, origin.shift_to(target))
        moved = _shifted(source, distance)
        return torch.where(to & (found & self._fires())[:, None, None], moved, source)

    def swap_background(self, source: Tensor) -> Tensor:
        """Swap a rectangle that is background in both samples of a pair."""
        inside = self._rectangles().inside()[self.pairs.leader]
        free = self._free(source, inside)
        inside, _, found = _first(free & free[self.pairs.partner], inside)
        fire = found & self._fires()[self.pairs.leader]
        return torch.where(inside & fire[:, None, None], source[self.pairs.partner], source)

    def paste_object(self, source: Tensor) -> Tensor:
        """Paste an object of a pair's first sample at the same place of the second."""
        classes, present = self._objects(source, 1)
        if classes.shape[1] == 0:
            return source
        region = self._region(source, classes[:, 0])[self.pairs.leader]
        free = self._free(source, region[:, None])[:, 0]
        receives = self.pairs.leads[self.pairs.partner]
        fire = receives & free & (present[:, 0] & self._fires())[self.pairs.leader]
        return torch.where(region & fire[:, None, None], source[self.pairs.leader], source)

    def move_objects(self, source: Tensor) -> Tensor:
        """Duplicate some objects on background, cover some with background; both: a move."""
        classes, present = self._objects(source, OBJECTS)
        for k in range(classes.shape[1]):
            region = self._region(source, classes[:, k])
            box = _bounding_box(region, TRIES)
            place = box.elsewhere()
            there = place.inside()
            there, distance, found = _first(
                self._free(source, there) & present[:, k, None], there, box.shift_to(place)
            )
            duplicate = found & self._fires()
            remove = found & self._fires()
            covered = box.inside()[:, 0] & (region | ~self.object[source])
            moved = torch.where(
                covered & remove[:, None, None], _shifted(source, -distance), source
            )
            copy = there & _shifted(region, distance) & duplicate[:, None, None]
            source = torch.where(copy, _shifted(source, distance), moved)
        return source

    def _rectangles(self) -> _Rectangles:
        B, _, h, w = self.shape
        return _Rectangles.draw(B, TRIES, h, w, self.mask.device)

    def _fires(self) -> Tensor:
        return _fires(self.shape[0], self.p, self.per_sample, self.mask.device)[:, 0]

    def _free(self, source: Tensor, region: Tensor) -> Tensor:
        """Whether regions (B, T, h, w) hold no object, (B, T)."""
        return ~(region & self.object[source][:, None]).flatten(2).any(2)

    def _objects(self, source: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Draw up to ``count`` different classes a sample and whether it has them, (B, count)."""
        now = _take(self.mask, source)[:, 1:] > 0
        present = now.flatten(2).any(2)
        rank = torch.rand(present.shape, device=present.device) + present
        classes = rank.argsort(1, descending=True)[:, :count]
        return classes + 1, present.gather(1, classes)

    def _region(self, source: Tensor, classes: Tensor) -> Tensor:
        """Return the pixels (B, h, w) of one class a sample."""
        B, N, h, w = self.shape
        one = self.mask.transpose(0, 1).reshape(N, -1)[classes]  # (B, B * h * w)
        return one.gather(1, source.view(B, -1)).view(B, h, w) > 0


def _fires(B: int, p: float, per_sample: bool, device: torch.device) -> Tensor:
    return (torch.rand(B if per_sample else 1, 1, device=device) < p).expand(B, 1)


def _channels(B: int, C: int, device: torch.device) -> Tensor:
    """Draw subsets (B, C) of 10-30 % of the channels."""
    fraction = torch.rand(B, 1, device=device) * 0.2 + 0.1
    rank = torch.rand(B, C, device=device).argsort(1).argsort(1)
    return rank < (fraction * C).round()


def _bounding_box(region: Tensor, tries: int) -> _Rectangles:
    """Return the boxes of regions (B, h, w), ``tries`` times; an empty region gets the whole."""
    B, h, w = region.shape
    edges = []
    for occupied in (region.any(2), region.any(1)):
        low = occupied.long().argmax(1)
        size = occupied.shape[1] - occupied.flip(1).long().argmax(1) - low
        edges.append((low[:, None].expand(B, tries), size[:, None].expand(B, tries)))
    (top, height), (left, width) = edges
    return _Rectangles(top, left, height, width, h, w)


def _first(
    fits: Tensor, inside: Tensor, distance: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the first try that fits.

    Args:
        fits: (B, T) bool.
        inside: (B, T, h, w) bool.
        distance: (B, T) integers.

    Returns:
        The try's region (B, h, w), distance (B,) and whether any fitted (B,).
    """
    pick = fits.long().argmax(1, keepdim=True)
    chosen = inside.take_along_dim(pick[..., None, None], 1)[:, 0]
    distance = pick if distance is None else distance.gather(1, pick)
    return chosen, distance[:, 0], fits.any(1)


def _shifted(values: Tensor, distance: Tensor) -> Tensor:
    """Move maps (B, h, w) by flat distances (B,); what comes from outside is unspecified."""
    B, h, w = values.shape
    position = torch.arange(h * w, device=values.device) - distance[:, None]
    return values.reshape(B, -1).gather(1, position.clamp(0, h * w - 1)).view(B, h, w)


def _take(maps: Tensor, source: Tensor) -> Tensor:
    """Gather maps (B, C, h, w) from source positions (B, h, w) over all samples."""
    B, C, h, w = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(B * h * w, C)
    return rows[source.flatten()].view(B, h, w, C).permute(0, 3, 1, 2)
