"""The standard augmentation: the baseline that synthetic pairs are measured against."""

from __future__ import annotations

from typing import Any

from synthaug import seeding
from synthaug.errors import InputError
from synthaug.mixing._albumentations import load_albumentations

STRENGTHS = {"light": 0.5, "standard": 1.0, "strong": 1.5}
"""Factor on the ranges of every transform; how often each one fires stays the same."""
SCALES, WIDE_SCALES = (0.8, 1.25), (0.5, 2.0)


def standard_augmentation(
    height: int,
    width: int,
    seed: int = 0,
    *,
    strength: str = "standard",
    scales: tuple[float, float] = SCALES,
) -> Any:
    """Build the usual geometric and colour augmentation of an image and its mask.

    At ``strength="standard"``: mirror left-right (p 0.5); scale 0.8 to 1.25, shift by up to 10 %
    of each side and rotate by up to 15 degrees, the border reflected (p 0.8); brightness,
    contrast and saturation by up to 20 %, hue by up to 0.05 of the circle (p 0.5). Images are
    interpolated bilinearly, masks by the nearest neighbour, so no new id appears.

    The transforms fire independently of each other. ``albumentations.Compose(seed=...)`` is
    avoided on purpose: in 2.0.8 it gives every transform an equally seeded generator, and those
    of equal probability then fire all together or not at all. In a `DataLoader` with workers
    pass ``worker_init_fn=synthaug.mixing.seed_worker``.

    Args:
        height: height of the result in pixels; an input of another size is resized first.
        width: width of the result in pixels.
        seed: seed of the pipeline; equal seeds give equal sequences of augmentations.
        strength: ``"light"`` (half the ranges), ``"standard"`` or ``"strong"`` (1.5 times).
        scales: smallest and largest scale at ``"standard"``, such as `WIDE_SCALES`.

    Returns:
        An ``albumentations.Compose``: call it as ``pipeline(image=..., mask=...)`` with an
        (H, W, 3) uint8 RGB image and an (H, W) uint8 or int32 mask.

    Raises:
        InputError: unknown strength, no positive size, or AlbumentationsX is installed.
    """
    if strength not in STRENGTHS:
        raise InputError(f"unknown strength {strength!r}: choose one of {', '.join(STRENGTHS)}")
    if height < 1 or width < 1:
        raise InputError(f"cannot augment to {height}x{width}: give a positive size in pixels")
    A = load_albumentations()
    bilinear, nearest, reflect = 1, 0, 4  # cv2.INTER_LINEAR, INTER_NEAREST, BORDER_REFLECT_101
    k = STRENGTHS[strength]
    pipeline = A.Compose(
        [
            A.Resize(height, width, interpolation=bilinear, mask_interpolation=nearest),
            A.HorizontalFlip(p=0.5),
            A.Affine(
                scale=(scales[0] ** k, scales[1] ** k),
                keep_ratio=True,
                translate_percent=(-0.1 * k, 0.1 * k),
                rotate=(-15 * k, 15 * k),
                interpolation=bilinear,
                mask_interpolation=nearest,
                border_mode=reflect,
                p=0.8,
            ),
            A.ColorJitter(
                brightness=(1 - 0.2 * k, 1 + 0.2 * k),
                contrast=(1 - 0.2 * k, 1 + 0.2 * k),
                saturation=(1 - 0.2 * k, 1 + 0.2 * k),
                hue=(-0.05 * k, 0.05 * k),
                p=0.5,
            ),
        ]
    )
    pipeline.set_random_state(
        seeding.numpy_stream(seed, "standard-augmentation"),
        seeding.python_stream(seed, "standard-augmentation"),
    )
    return pipeline
