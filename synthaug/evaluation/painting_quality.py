"""Quality of a painter: pictures of held-out label maps, beside the held-out pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.config.arms import ARMS
from synthaug.errors import InputError
from synthaug.evaluation.picture_quality import as_many, distances, refuse_seen
from synthaug.filtering import to_tensor
from synthaug.generation import MapGenerator
from synthaug.mixing.arms import ArmStream
from synthaug.mixing.source import working_size
from synthaug.quality.appearance import ClassAppearance, colour_distances, texture_distances
from synthaug.quality.features import Network, load_feature_net
from synthaug.quality.kernel import LEAST_IMAGES
from synthaug.quality.overlap import (
    confusion_matrix,
    frequency_groups,
    iou_per_class,
    mean_iou,
    mean_iou_by_group,
)
from synthaug.quality.perceptual import PerceptualSpace, pairwise_diversity
from synthaug.quality.structure import num_scales, pairwise_ms_ssim
from synthaug.sample import IGNORE_ID, ClassMap, Sample
from synthaug.seeding import derive_seed
from synthaug.segmenters import build_learner
from synthaug.segmenters.contract import Learner
from synthaug.stages import Progress, counted, counting

SEGMENTER_SIDE_PX = 256


def evaluate_painter(
    painter: MapGenerator,
    samples: Sequence[Sample],
    *,
    seed: int = 0,
    network: Network = "auto",
    weights: str | None = None,
    segmenter: Learner | None = None,
    segmenter_steps: int = 400,
    noises: int = 20,
    diversity_maps: int = 5,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Paint held-out label maps once each and compare with the pictures they belong to.

    The measures of Sushko's thesis, chapter 4. Every figure of painted pictures stands next to the
    same one of real pictures: of as many training pictures as there are held-out ones (all if
    there are fewer), since FID falls with the number of pictures; mIoU of the segmenter on the
    held-out pictures themselves. A painter that was converted has no training pictures: their
    figures are null, and mIoU is left out unless a segmenter is given.

    Args:
        painter: the painter.
        samples: held-out labelled pictures, at least 4; what is not labelled is 255.
        seed: of the noise, the segmenter and the draws.
        network: network of FID and KID; the perceptual diversity always uses the bundled one.
        weights: InceptionV3 weights file.
        segmenter: judges the painted pictures; default: `train_judge` on the painter's training
            pairs. It must never have seen painted or held-out pictures.
        segmenter_steps: its training steps; 0 leaves mIoU out where ``segmenter`` is None.
        noises: pictures per map whose diversity is measured, at least 2.
        diversity_maps: how many maps that is done on, spread evenly.
        progress: called with a part's name, pictures, maps or training steps done, and how many.

    Returns:
        Plain JSON values: ``samples``; ``network``; ``fid`` (``painted``, ``training``); ``kid``
        (the same, each ``value`` and ``error``, see `synthaug.quality.kernel`); ``miou``
        (``painted``, ``real``, ``iou`` per class id, and ``groups``, the classes by their share of
        the training pixels, else of the held-out ones; null when left out); ``diversity``
        (``ms_ssim``, its ``scales``, and ``perceptual``: means over pairs of pictures of one map);
        ``colour`` and ``texture`` (``painted``, ``training``: means over the classes that both
        sides show enough of, and ``per_class`` of the painted ones by id);
        ``seconds_per_picture``.

    Raises:
        InputError: fewer than 4 held-out or training pictures, a held-out picture that the painter
            was fitted to, a map without labels or with ids that it does not know, or missing
            weights.
    """
    _check(painter, samples, noises)
    net = load_feature_net(network, weights)
    start = time.perf_counter()
    painted = [
        Sample(painter.render(s.mask, derive_seed(seed, "painting", i)), s.mask, s.id)
        for i, s in enumerate(counted(samples, len(samples), progress, "painting"))
    ]
    seconds = (time.perf_counter() - start) / len(painted)
    training = as_many(painter.pairs, len(samples), seed)
    pictures = {"painted": painted} | ({"training": training} if training else {})
    found = distances(pictures, samples, net, seed=seed, progress=progress)
    shown = (samples, *pictures.values())
    sets = counted(shown, len(shown), progress, "colour and texture")
    looks = [_appearance(each, painter.classes) for each in sets]
    miou = None
    if segmenter is None and segmenter_steps > 0 and painter.pairs:
        segmenter = train_judge(
            painter.pairs,
            painter.classes,
            steps=segmenter_steps,
            seed=seed,
            progress=counting(progress, "training the segmenter on real pairs"),
        )
    if segmenter is not None:
        miou = _agreement(segmenter, samples, painted, painter)
    absent = {"painted": None, "training": None}
    return {
        "samples": len(samples),
        "network": net.name,
        **{name: absent | found[name] for name in ("fid", "kid")},
        "miou": miou,
        "diversity": _diversity(painter, samples, noises, diversity_maps, seed, progress),
        "colour": _by_class(colour_distances, looks, painter.classes),
        "texture": _by_class(texture_distances, looks, painter.classes),
        "seconds_per_picture": round(seconds, 4),
    }


def train_judge(
    pairs: Sequence[Sample],
    classes: ClassMap,
    *,
    steps: int = 400,
    batch_size: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Learner:
    """Train a U-Net on real pairs with standard augmentation, to judge painted pictures.

    Args:
        pairs: real training pairs.
        classes: their classes.
        steps: training steps.
        batch_size: pairs per step.
        seed: of weights, order and augmentation.
        progress: called with (steps done, steps).
    """
    learner = build_judge(pairs, classes, seed=seed)
    stream = ArmStream(
        ARMS["standard"],
        pairs,
        {},
        steps=steps,
        batch_size=batch_size,
        seed=derive_seed(seed, "judge", "batches"),
        size=working_size(pairs[0].size, SEGMENTER_SIDE_PX),
    )
    learner.learn(stream, classes, seed=derive_seed(seed, "judge"), progress=progress)
    return learner


def build_judge(pairs: Sequence[Sample], classes: ClassMap, *, seed: int = 0) -> Learner:
    """Build the untrained U-Net of `train_judge`, for example to load weights that were kept."""
    size = working_size(pairs[0].size, SEGMENTER_SIDE_PX)
    return build_learner("unet", len(classes), seed=derive_seed(seed, "judge"), size=size)


def _check(painter: MapGenerator, samples: Sequence[Sample], noises: int) -> None:
    if noises < 2:
        raise InputError(
            f"diversity is measured between pictures of one map: {noises} per map are too few, "
            "take 2 or more"
        )
    refuse_seen(painter, painter.pairs, samples)
    if not painter.pairs and len(samples) < LEAST_IMAGES:
        raise InputError(f"{len(samples)} held-out pictures: give at least {LEAST_IMAGES}")
    if painter.pairs and min(len(samples), len(painter.pairs)) < LEAST_IMAGES:
        raise InputError(
            f"{len(samples)} held-out pictures against {len(painter.pairs)} that {painter.path} "
            f"was fitted to: give at least {LEAST_IMAGES} of each"
        )
    for sample in samples:
        ids = set(np.unique(sample.mask).tolist()) - {IGNORE_ID}
        if unknown := sorted(ids - set(painter.classes.ids)):
            raise InputError(
                f"mask {sample.id} holds ids {unknown} that {painter.path} was not fitted to: "
                f"known are {list(painter.classes.ids)}; name others with --ignore"
            )
        if not ids:
            raise InputError(f"mask {sample.id} has no labelled pixel: leave it out")


def _appearance(samples: Iterable[Sample], classes: ClassMap) -> ClassAppearance:
    found = ClassAppearance(len(classes))
    for sample in samples:
        found.add(sample.image, classes.encode(sample.mask))
    return found


def _by_class(
    distances: Callable[[ClassAppearance, ClassAppearance], NDArray[np.float64]],
    looks: Sequence[ClassAppearance],
    classes: ClassMap,
) -> dict[str, Any]:
    real, *others = looks
    painted, *training = (distances(side, real) for side in others)
    return {
        "painted": _mean(painted),
        "training": _mean(training[0]) if training else None,
        "per_class": _per_id(painted, classes),
    }


def _agreement(
    segmenter: Learner, samples: Sequence[Sample], painted: Sequence[Sample], painter: MapGenerator
) -> dict[str, Any]:
    classes = painter.classes
    count = len(classes)
    pixels = classes.count_pixels(pair.mask for pair in painter.pairs or samples)
    groups = frequency_groups(pixels)
    confusions = {}
    for name, shown in (("painted", painted), ("real", samples)):
        confusion = np.zeros((count, count), np.int64)
        predictions = segmenter.segment([sample.image for sample in shown])
        for sample, prediction in zip(shown, predictions, strict=True):
            confusion += confusion_matrix(classes.encode(sample.mask), prediction, count)
        confusions[name] = confusion
    by_group = {name: mean_iou_by_group(c, groups) for name, c in confusions.items()}
    return {
        **{name: mean_iou(confusion) for name, confusion in confusions.items()},
        "iou": {name: _per_id(iou_per_class(c), classes) for name, c in confusions.items()},
        "groups": [
            {
                "ids": [classes.ids[channel] for channel in group],
                "share": float(pixels[group].sum() / pixels.sum()),
                **{name: _finite(values[index]) for name, values in by_group.items()},
            }
            for index, group in enumerate(groups)
        ],
    }


def _diversity(
    painter: MapGenerator,
    samples: Sequence[Sample],
    noises: int,
    maps: int,
    seed: int,
    progress: Progress | None,
) -> dict[str, Any]:
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(maps, len(samples))).round())
    alike, apart, space = [], [], None
    for index in counted(chosen.astype(int).tolist(), len(chosen), progress, "diversity"):
        mask = samples[index].mask
        space = space or PerceptualSpace(*mask.shape)
        versions = [
            painter.render(mask, derive_seed(seed, "diversity", index, number))
            for number in range(noises)
        ]
        images = to_tensor([Sample(image, mask) for image in versions])
        alike.append(pairwise_ms_ssim(images))
        apart.append(pairwise_diversity(images, space))
    return {
        "maps": len(alike),
        "noises": noises,
        "ms_ssim": float(np.mean(alike)),
        "scales": min(num_scales(*samples[int(index)].size) for index in chosen),
        "perceptual": float(np.mean(apart)),
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _per_id(values: NDArray[np.float64], classes: ClassMap) -> dict[str, float | None]:
    return {str(i): _finite(value) for i, value in zip(classes.ids, values, strict=True)}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
