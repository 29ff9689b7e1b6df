"""Nearest-neighbour fields: where on the sheet the nearest patch to each patch of a picture lies.

A field is (B, h, w) int64, flat places on the sheet, one per whole patch: a picture of H x W pixels
has (H - 4) x (W - 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.rendering.atlas import RADIUS, Octave

MAX_KEYS = 8192
COMPLETENESS = 0.1
REACHES_PX = (16, 4, 1)


def search(queries: Tensor, octave: Octave) -> Tensor:
    """Look every patch up on the sheet, so that most of the sheet is used.

    The distance to a patch of the sheet is divided by that patch's distance to its own nearest
    query: what no other query resembles comes cheaper (Granot et al. 2022, arXiv:2103.15545,
    "Drop the GAN", eq. 2). Their constant is 0.1 of the median of those distances. A large sheet
    is thinned to 8192 patches; `refine` finds those between.

    Args:
        queries: (B, h, w, 16) descriptors.
        octave: the sheet.

    Returns:
        The field, (B, h, w).
    """
    places = octave.places[:: -(-len(octave.places) // MAX_KEYS)]
    keys = octave.descriptors[places]
    B, h, w, _ = queries.shape
    cells = 1 << (22 if queries.device.type == "cpu" else 26)
    parts = torch.split(queries.flatten(1, 2), max(1, cells // (B * len(places))), 1)
    own = torch.stack([_distances(part, keys).amin(1) for part in parts]).amin(0)  # (B, n)
    norm = own + (COMPLETENESS * own.median(1, keepdim=True).values).clamp_min(1)
    found = [(_distances(part, keys) / norm[:, None]).argmin(2) for part in parts]
    return places[torch.cat(found, 1)].view(B, h, w)


def refine(
    field: Tensor, queries: Tensor, octave: Octave, jumps: Sequence[Tensor], rounds: int
) -> Tensor:
    """Improve a field by PatchMatch's two steps (Barnes et al. 2009), for all patches at once.

    Propagation tries the place beside that of a neighbour, in the first rounds of one farther
    away; random search tries places around the present one.

    Args:
        field: (B, h, w).
        queries: (B, h, w, 16) descriptors.
        octave: the sheet.
        jumps: (h, w) steps on the sheet, see `random_jumps`.
        rounds: how often both steps are taken.

    Returns:
        The better field; patches that found nothing nearer keep their place.
    """
    cost = _cost(field, queries, octave)
    width = octave.shape[1]
    for round_ in reversed(range(rounds)):
        reach = 1 << round_
        for dy, dx in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
            beside = _moved(field, dy, dx) + dy * width + dx
            field, cost = _better(field, cost, beside, queries, octave)
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
        (B, H, W) of that shape.
    """
    near_y, own_y = _halves(shape[0], field.shape[1], field.device)
    near_x, own_x = _halves(shape[1], field.shape[2], field.device)
    places = field[:, near_y[:, None], near_x]
    top = places // coarse.shape[1] * 2 + own_y[:, None]
    left = places % coarse.shape[1] * 2 + own_x
    return top * fine.shape[1] + left


def random_jumps(shape: tuple[int, int], octave: Octave, stream: torch.Generator) -> list[Tensor]:
    """Draw three steps per patch, of up to 16, 4 and 1 pixels each way, as (h, w) flat steps."""
    jumps = []
    for reach in REACHES_PX:
        step = torch.randint(-reach, reach + 1, (2, *shape), generator=stream)
        jumps.append((step[0] * octave.shape[1] + step[1]).to(octave.places.device))
    return jumps


def vote(field: Tensor, octave: Octave) -> Tensor:
    """Let every patch say what the 3 x 3 pixels at its middle should be, and average.

    Args:
        field: (B, h, w).
        octave: the sheet.

    Returns:
        Pictures (B, C, h + 4, w + 4) in whole numbers.
    """
    B, h, w = field.shape
    width, C = octave.shape[1], octave.pixels.shape[1]
    field = _extend(field, width)
    total = octave.pixels.new_zeros(B, h + 4, w + 4, C)
    count = octave.pixels.new_zeros(h + 4, w + 4, 1)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            places = (field + (dy - 1) * width + dx - 1).flatten()
            box = (slice(dy, dy + h + 2), slice(dx, dx + w + 2))
            total[:, *box] += octave.pixels.index_select(0, places).view(B, h + 2, w + 2, C)
            count[box] += 1
    return (total / count).round().permute(0, 3, 1, 2)


def _extend(field: Tensor, width: int) -> Tensor:
    """Continue a field by one patch beyond each border, (B, h + 2, w + 2)."""
    field = torch.cat([field[:, :1] - width, field, field[:, -1:] + width], 1)
    return torch.cat([field[..., :1] - 1, field, field[..., -1:] + 1], 2)


def _distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Squared distances (B, t, n) of (B, t, 16) to (n, 16), exact."""
    norms = queries.square().sum(2, keepdim=True) + keys.square().sum(1)
    return torch.baddbmm(norms, queries, keys.T.expand(len(queries), -1, -1), alpha=-2)


def _halves(size: int, coarse: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each fine patch: its coarse patch, and where it lies from twice that one's place."""
    fine = torch.arange(size, device=device) + RADIUS
    near = (fine // 2 - RADIUS).clamp(0, coarse - 1)
    return near, (fine - 2 * (near + RADIUS)).clamp(-RADIUS, RADIUS + 1)


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


def _moved(field: Tensor, dy: int, dx: int) -> Tensor:
    """Move a field's content down and right; where nothing comes in, it stays as it is."""
    h, w = field.shape[1:]
    dy, dx = max(-h, min(h, dy)), max(-w, min(w, dx))
    out = field.clone()
    into = (slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0)))
    out[:, *into] = field[:, max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)]
    return out
