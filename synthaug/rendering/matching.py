"""Nearest-neighbour fields: for every patch of a picture, where on the sheet the nearest one lies.

A field is (B, h, w) int64, flat places on an octave's sheet, one per whole patch. It is found by
search among a thinned sheet at the coarsest octave, then only improved: places beside a
neighbour's place (propagation) and random places ever nearer (random search), both after
PatchMatch (Barnes et al. 2009), here for all pixels at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.rendering.atlas import RADIUS, Octave

CHUNK = 1 << 22
"""Distances held at a time."""


def search(queries: Tensor, octave: Octave, step: int = 1) -> Tensor:
    """Look up each patch among every ``step``-th one of the sheet.

    Args:
        queries: (B, h, w, D) descriptors.
        octave: the sheet.
        step: 1 is exhaustive.

    Returns:
        The field, (B, h, w).
    """
    places = octave.places[::step]
    keys = octave.descriptors[places]
    norms = keys.square().sum(1)
    rows = queries.flatten(0, 2)
    found = [
        torch.addmm(norms, part, keys.T, alpha=-2).argmin(1)
        for part in rows.split(max(1, CHUNK // len(places)))
    ]
    return places[torch.cat(found)].view(queries.shape[:3])


def refine(
    field: Tensor, queries: Tensor, octave: Octave, jumps: Sequence[Tensor], rounds: int
) -> Tensor:
    """Improve a field.

    Args:
        field: (B, h, w).
        queries: (B, h, w, D) descriptors.
        octave: the sheet.
        jumps: (h, w) flat steps on the sheet each, tried from the place a patch has.
        rounds: how often neighbours are asked.

    Returns:
        The better field.
    """
    cost = _cost(field, queries, octave)
    width = octave.shape[1]
    for round_ in range(rounds):
        reach = 1 << max(0, rounds - 1 - round_)
        for dy, dx in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
            shifted = _shift(field, dy, dx) + dy * width + dx
            field, cost = _better(field, cost, shifted, queries, octave)
        for jump in jumps:
            field, cost = _better(field, cost, field + jump, queries, octave)
    return field


def upsample(field: Tensor, coarse: Octave, fine: Octave, shape: tuple[int, int]) -> Tensor:
    """Carry a field over to the next finer octave.

    Args:
        field: (B, h, w) on the coarse sheet.
        coarse: that sheet.
        fine: the sheet twice as fine.
        shape: height and width of the fine field.

    Returns:
        (B, \\*shape).
    """
    h, w = field.shape[1:]
    own_y, near_y = _halves(shape[0], h, field.device)
    own_x, near_x = _halves(shape[1], w, field.device)
    places = field[:, near_y[:, None], near_x]
    top = places // coarse.shape[1] * 2 + own_y[:, None]
    left = places % coarse.shape[1] * 2 + own_x
    return top * fine.shape[1] + left


def random_jumps(
    shape: tuple[int, int], width: int, reaches: Sequence[int], stream: torch.Generator
) -> list[Tensor]:
    """Draw one step per pixel and reach: up to that many pixels down, up and sideways."""
    jumps = []
    for reach in reaches:
        step = torch.randint(-reach, reach + 1, (2, *shape), generator=stream)
        jumps.append(step[0] * width + step[1])
    return jumps


def _halves(size: int, coarse: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each fine patch centre: its offset from twice its coarse centre, and that one's index."""
    fine = torch.arange(size, device=device) + RADIUS
    near = (fine // 2 - RADIUS).clamp(0, coarse - 1)
    return (fine - 2 * (near + RADIUS)).clamp(-1, 2), near


def _better(
    field: Tensor, cost: Tensor, candidate: Tensor, queries: Tensor, octave: Octave
) -> tuple[Tensor, Tensor]:
    """Take a candidate where it is nearer; steps off the sheet come back at its other end."""
    candidate = candidate.remainder(len(octave.descriptors))
    found = _cost(candidate, queries, octave)
    nearer = found < cost
    return torch.where(nearer, candidate, field), torch.where(nearer, found, cost)


def _cost(field: Tensor, queries: Tensor, octave: Octave) -> Tensor:
    rows = octave.descriptors.index_select(0, field.flatten())
    return (rows - queries.flatten(0, 2)).square_().sum(1).view(field.shape)


def _shift(field: Tensor, dy: int, dx: int) -> Tensor:
    """Move a field's content down and right; the border keeps its own."""
    h, w = field.shape[1:]
    out = field.clone()
    rows, back = slice(max(dy, 0), h + min(dy, 0)), slice(max(-dy, 0), h + min(-dy, 0))
    columns, left = slice(max(dx, 0), w + min(dx, 0)), slice(max(-dx, 0), w + min(-dx, 0))
    out[:, rows, columns] = field[:, back, left]
    return out


def vote(field: Tensor, octave: Octave, radius: int = RADIUS) -> Tensor:
    """Let every patch say what its pixels should be, and average.

    Args:
        field: (B, h, w).
        octave: the sheet.
        radius: how far from its centre a patch speaks, at most 2.

    Returns:
        (B, 3 + N, h + 4, w + 4) whole numbers.
    """
    B, h, w = field.shape
    C = octave.pixels.shape[1]
    width = octave.shape[1]
    total = field.new_zeros(B, h + 2 * RADIUS, w + 2 * RADIUS, C, dtype=torch.float32)
    count = torch.zeros_like(total[:1, ..., :1])
    flat = field.flatten()
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            said = octave.pixels.index_select(0, flat + (dy * width + dx)).view(B, h, w, C)
            rows = slice(RADIUS + dy, RADIUS + dy + h)
            columns = slice(RADIUS + dx, RADIUS + dx + w)
            total[:, rows, columns] += said
            count[:, rows, columns] += 1
    return (total / count).round().permute(0, 3, 1, 2)
