"""Quality of a generator's pictures, whatever masks they have, beside held-out pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from synthaug import files
from synthaug.errors import InputError
from synthaug.filtering import in_batches, to_tensor
from synthaug.fitting.fit_folder import FitFolder
from synthaug.fitting.training_pairs import (
    class_folders,
    kept_pairs,
    read_class_crops,
    read_square_crops,
    read_training_pairs,
    require_one_size,
)
from synthaug.generation import Generator
from synthaug.quality.features import (
    FeatureNet,
    Lite0Features,
    Network,
    image_tensor,
    load_feature_net,
    pooled_features,
)
from synthaug.quality.frechet import fid
from synthaug.quality.kernel import LEAST_IMAGES, kid
from synthaug.quality.perceptual import PerceptualSpace, intra_diversity, nearest_reals
from synthaug.sample import Sample, resize_image
from synthaug.seeding import numpy_stream
from synthaug.stages import Progress, counted

SAMPLES, STRIPS, STRIP = 512, 32, 9
"""Samples that are measured, lines between two latents, and pictures on each."""
LEAST_SHARE = 0.02
"""Share of the samples that must be nearest to a training picture for it to count as reached."""
MOST_TRAINING = 50
"""Of more training pictures not all could be reached: the samples' clusters would be too small."""
LAST_SHARE = 0.1
"""Share of a loss's logged values that its mean at the end of the fit is taken over."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures of a generator.

    Attributes:
        samples: of consecutive seeds.
        strips: rows from one latent to another, see `Generator.interpolate`.
    """

    samples: list[Sample]
    strips: list[list[Sample]]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a generator's pictures are measured on; `check_held_out` makes it.

    Attributes:
        pictures: of the generator's size, at least 4; it has seen none of them.
        training: those that it was fitted to.
    """

    pictures: Sequence[Sample]
    training: Sequence[Sample]


def draw_pictures(
    generator: Generator,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    strips: int = STRIPS,
    progress: Progress | None = None,
) -> Drawn:
    """Draw what `evaluate_pictures` measures.

    Args:
        generator: any that has latents.
        seed: of the first sample; the next have the next numbers. Strip i lies between the latents
            of seed + 2i and seed + 2i + 1.
        samples: how many.
        strips: how many rows of 9 pictures.
        progress: called with a part's name, samples or strips done, and how many.
    """
    drawn = counted(range(samples), samples, progress, "sample")
    rows = counted(range(strips), strips, progress, "strip")
    return Drawn(
        [generator.sample(seed + i) for i in drawn],
        [generator.interpolate(seed + 2 * i, seed + 2 * i + 1, STRIP) for i in rows],
    )


def read_held_out(generator: Generator, images: str | Path, *, seed: int = 0) -> HeldOut:
    """Read pictures as the generator has read those that it was fitted to, and check them.

    Args:
        generator: says whether random squares are cut out of photographs, in as many of every
            class where sub-folders are its classes, or pictures are taken whole.
        images: folder of pictures that it has not seen.
        seed: of the squares.

    Raises:
        InputError: a picture is unreadable, the whole ones have another size, the generator was
            fitted to one of them or to squares of it, or there are fewer than 4.
    """
    height, width = generator.size
    if "crops" in generator.manifest:
        classes = class_folders(images) if generator.manifest.get("crop_classes") else []
        if classes:
            crops, photographs = read_class_crops(classes, height, seed)
        else:
            crops, photographs = read_square_crops(images, height, seed)
        _refuse(generator, photographs.items(), generator.manifest.get("learned_from", ()))
        if len(photographs) < LEAST_IMAGES:  # squares of one are no independent pictures
            raise InputError(
                f"{len(photographs)} held-out photographs: give at least {LEAST_IMAGES}"
            )
        return check_held_out(generator, crops)
    held_out, _ = read_training_pairs(None, None, images, None)
    require_one_size(held_out, f"bring all images of {images} to one size")
    found = held_out[0].size
    if found != generator.size:
        raise InputError(
            f"the pictures of {images} are {found[1]}x{found[0]} px but {generator.path} draws "
            f"{width}x{height}: bring them to that size"
        )
    return check_held_out(generator, held_out)


def evaluate_pictures(
    generator: Generator,
    drawn: Drawn,
    held_out: HeldOut,
    *,
    seed: int = 0,
    network: Network = "auto",
    weights: str | Path | None = None,
    net: FeatureNet | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a generator's pictures with held-out ones, and with the few it was fitted to.

    FID and KID stand next to the same of the training pictures themselves, which a generator that
    only repeats them would have: of as many as there are samples, or of all if there are fewer.

    Args:
        generator: what has drawn the pictures.
        drawn: they, see `draw_pictures`.
        held_out: see `read_held_out`, or `check_held_out` for pictures that are read already.
        seed: of the draws of training pictures and of KID.
        network: network of FID and KID; the perceptual figures always use the bundled one.
        weights: InceptionV3 weights file.
        net: a loaded network, instead of ``network`` and ``weights``.
        progress: called with a part's name, sets of pictures done, and how many.

    Returns:
        Plain JSON values: ``samples``, ``held_out``, ``training`` (numbers of pictures);
        ``truncation`` (the generator's, see `Generator`); ``network``; ``fid`` and ``kid``
        (``generated``, ``training``; see `distances`); ``intra_diversity`` (see
        `synthaug.quality.perceptual.intra_diversity`) and ``reached`` (training pictures that 2 %
        of the samples are nearest to), both null for more than 50 training pictures; ``jump``
        (largest over mean perceptual step on the way between two latents, 1 if even, mean over the
        strips); ``losses`` (name -> mean over the last tenth of its values logged up to the
        snapshot that is kept, of the networks in training, not of the average that draws) and
        ``smoothness`` (the same of the distance between the derivatives of generator and source,
        without its weight; null where the fit did not compare them).

    Raises:
        InputError: missing weights.
    """
    training = held_out.training
    net = net or load_feature_net(network, weights)
    shown = as_many(training, len(drawn.samples), seed)
    sets = {"generated": drawn.samples, "training": shown}
    found = distances(sets, held_out.pictures, net, seed=seed, progress=progress)
    space = PerceptualSpace(*generator.size, net if isinstance(net, Lite0Features) else None)
    few = len(training) <= MOST_TRAINING
    intra, reached = _around(training, drawn.samples, space) if few else (None, None)
    losses = _last_losses(generator)
    return {
        "samples": len(drawn.samples),
        "held_out": len(held_out.pictures),
        "training": len(training),
        "truncation": generator.truncation,
        "network": net.name,
        **found,
        "intra_diversity": intra,
        "reached": reached,
        "jump": mean(_jump(row, space) for row in drawn.strips),
        "smoothness": _smoothness(generator, losses),
        "losses": losses,
    }


def distances(
    sets: Mapping[str, Sequence[Sample]],
    held_out: Sequence[Sample],
    net: FeatureNet,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """FID and KID of sets of pictures to held-out ones.

    Args:
        sets: name -> pictures.
        held_out: real pictures, at least 4.
        net: the network; its name belongs beside the numbers.
        seed: of KID's draws.
        progress: called with the part's name, sets done, and how many.

    Returns:
        ``fid`` (one number per set) and ``kid`` (``value`` and ``error`` per set, see
        `synthaug.quality.kernel`; null for fewer than 4 pictures).
    """
    shown = counted((held_out, *sets.values()), len(sets) + 1, progress, "FID and KID")
    reference, *others = (_pooled(pictures, net) for pictures in shown)
    features = dict(zip(sets, others, strict=True))
    return {
        "fid": {name: fid(rows, reference) for name, rows in features.items()},
        "kid": {
            name: kid(rows, reference, seed=seed)._asdict() if len(rows) >= LEAST_IMAGES else None
            for name, rows in features.items()
        },
    }


def check_held_out(generator: Generator, pictures: Sequence[Sample]) -> HeldOut:
    """Refuse held-out pictures that say nothing, before any is drawn.

    Args:
        generator: what they are held against.
        pictures: of its size.

    Raises:
        InputError: there are fewer than 4, or the generator was fitted to one.
    """
    training = kept_pairs(generator.path, generator.manifest)
    refuse_seen(generator, training, pictures)
    if len(pictures) < LEAST_IMAGES:
        raise InputError(f"{len(pictures)} held-out pictures: give at least {LEAST_IMAGES}")
    return HeldOut(pictures, training)


def refuse_seen(
    generator: Generator, training: Iterable[Sample], held_out: Sequence[Sample]
) -> None:
    """Refuse held-out pictures that are among the training pictures, pixel by pixel.

    Args:
        generator: whose manifest also lists what is behind its source, and what pictures were
            resized or cut from.
        training: what it was fitted to.
        held_out: what it is measured on.

    Raises:
        InputError: some are.
    """
    known = {files.sha256_bytes(pair.image.tobytes()) for pair in training}
    known |= set(generator.manifest.get("learned_from", ()))
    _refuse(generator, ((files.sha256_bytes(s.image.tobytes()), s.id) for s in held_out), known)


def _refuse(
    generator: Generator, held_out: Iterable[tuple[str, str]], known: Iterable[str]
) -> None:
    """Refuse pictures, (SHA-256 of the pixels, name), that are among the known SHA-256."""
    named, known = list(held_out), set(known)
    seen = [name for key, name in named if key in known]
    if seen:
        raise InputError(
            f"{generator.path} was fitted to {len(seen)} of the {len(named)} held-out pictures, "
            f"{seen[0]} first: name others, that it has not seen"
        )


def as_many(training: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Take a random subset of the training pictures, all if there are no more than ``count``."""
    order = numpy_stream(seed, "evaluate", "training pictures").permutation(len(training))
    return [training[int(index)] for index in sorted(order[:count])]


def _pooled(samples: Iterable[Sample], net: FeatureNet) -> Tensor:
    return pooled_features((to_tensor(batch) for batch in in_batches(samples)), net)


def _around(
    training: Sequence[Sample], samples: Sequence[Sample], space: PerceptualSpace
) -> tuple[float | None, int]:
    """Return intra-diversity around training pictures, and how many of them are reached."""
    shrunk = (
        image_tensor([resize_image(sample.image, space.size) for sample in pictures])
        for pictures in (samples, training)
    )
    fakes, reals = shrunk
    vectors, nearest = nearest_reals(fakes, list(reals), space)
    shares = torch.bincount(nearest, minlength=len(training)) / len(samples)
    diversity = intra_diversity(vectors, nearest)
    return None if math.isnan(diversity) else diversity, int((shares >= LEAST_SHARE).sum())


def _jump(row: Sequence[Sample], space: PerceptualSpace) -> float:
    path = space.embed(to_tensor(row))
    steps = (path[1:] - path[:-1]).square().sum(1)
    return float(steps.max() / steps.mean().clamp_min(1e-9))


def _last_losses(generator: Generator) -> dict[str, float]:
    """Mean of every logged loss over its last values."""
    step = generator.manifest.get("snapshot_step", math.inf)
    logged: dict[str, list[float]] = {}
    for line in FitFolder(generator.path).read_metrics(step):
        for name, value in line.items():
            if name.startswith(("d/", "g/")):
                logged.setdefault(name, []).append(value)
    return {
        name: mean(values[-math.ceil(LAST_SHARE * len(values)) :])
        for name, values in logged.items()
    }


def _smoothness(generator: Generator, losses: Mapping[str, float]) -> float | None:
    """Distance of the derivatives from the source's, without the weight that the loss has."""
    weight = generator.manifest["gan"].get("smoothness")
    compared = losses.get("g/smoothness")
    return compared / weight if compared is not None and weight else None
