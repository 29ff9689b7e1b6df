"""Quality of a bank, next to the same figures for standard augmentation of its training pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.filtering import Yardstick, in_batches, to_tensor
from synthaug.mixing import standard_augmentation
from synthaug.mixing.source import working_size
from synthaug.quality.features import Network, load_feature_net
from synthaug.quality.overlap import confusion_matrix, iou_per_class, mean_iou
from synthaug.quality.perceptual import Diversity
from synthaug.sample import ClassMap, Sample, resized
from synthaug.seeding import derive_seed, numpy_stream
from synthaug.segmenters.contract import Item
from synthaug.segmenters.semantic import build_segmenter, default_device, optimise, predict
from synthaug.stages import Progress, counted, counting

AGREEMENT_SIDE_PX = 192
_FLIP_P, _SHIFT_P, _SHIFT_RANGE = 0.15, 0.3, (0.05, 0.3)


def evaluate(
    bank: Bank | str | Path,
    *,
    seed: int = 0,
    network: Network = "auto",
    weights: str | Path | None = None,
    max_samples: int = 100,
    agreement_steps: int = 300,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the kept samples of a bank.

    Args:
        bank: the bank or its folder.
        seed: seed of the augmentations and of the segmenter.
        network: network of SIFID, see `synthaug.quality.features.load_feature_net`; the
            perceptual figures always use the bundled one.
        weights: InceptionV3 weights file.
        max_samples: look at no more than this many kept samples, the first ones; standard
            augmentation is drawn as often.
        agreement_steps: training steps of the mask-agreement segmenter; 0 leaves it out.
        progress: called with a part's name, samples or training steps done, and how many.

    Returns:
        Plain JSON values: ``samples``; ``network``; ``sifid`` (``bank`` and ``standard``: means at
        the four depths); ``diversity`` (mean pairwise perceptual distance of ``bank``,
        ``standard``, ``bank_and_standard``, and ``ratio`` and ``combined_ratio``, both relative to
        ``standard``, null where that is 0); ``nearest_training_distance`` (``bank`` and
        ``standard``: mean and min); ``memorised`` (near copies among the samples looked at:
        ``bank`` and ``standard``; among all that the filter saw: ``filtered``, null without a
        filter; ``threshold``);
        ``mask_agreement`` (see `mask_agreement`, null when left out or without masks);
        ``seconds`` per part.

    Raises:
        InputError: fewer than two kept samples, a damaged bank, or missing weights.
    """
    bank = Bank(bank)
    if max_samples < 2:
        raise InputError(f"max_samples is {max_samples}: give at least 2")
    count = min(len(bank), max_samples)
    if count < 2:
        raise InputError(
            f"bank {bank.path} keeps {len(bank)} sample(s): generate more or filter less strictly"
        )
    seconds: dict[str, float] = {}
    with _timed("load", seconds):
        pairs = bank.pairs()
        yardstick = Yardstick(pairs, load_feature_net(network, weights))
        threshold = yardstick.training.near_copy_threshold()
    height, width = pairs[0].size

    def shown(part: str, samples: Iterable[Sample]) -> Iterator[Sample]:
        return counted(islice(samples, count), count, progress, part)

    with _timed(part := "bank", seconds):
        ours = _measure(yardstick, shown(part, bank))
    with _timed(part := "standard augmentation", seconds):
        augment = standard_augmentation(height, width, derive_seed(seed, "evaluate", "standard"))
        standard = _measure(yardstick, shown(part, _augmented(cycle(pairs), augment)))
    with _timed(part := "bank and standard augmentation", seconds):
        augment = standard_augmentation(height, width, derive_seed(seed, "evaluate", "both"))
        both = _measure(yardstick, shown(part, _augmented(bank, augment)), with_sifid=False)
    agreement = None
    if agreement_steps and bank.classes.ids:
        with _timed(part := "mask agreement", seconds):
            agreement = mask_agreement(
                islice(bank, count),
                pairs,
                bank.classes,
                steps=agreement_steps,
                seed=seed,
                progress=counting(progress, part),
            )
    filtered = bank.manifest.get("filter", {}).get("memorised")
    return {
        "samples": count,
        "network": yardstick.net.name,
        "sifid": {"bank": ours.sifid, "standard": standard.sifid},
        "diversity": {
            "bank": ours.diversity,
            "standard": standard.diversity,
            "bank_and_standard": both.diversity,
            "ratio": _ratio(ours.diversity, standard.diversity),
            "combined_ratio": _ratio(both.diversity, standard.diversity),
        },
        "nearest_training_distance": {
            name: {"mean": float(np.mean(m.nearest)), "min": float(np.min(m.nearest))}
            for name, m in (("bank", ours), ("standard", standard))
        },
        "memorised": {
            "bank": sum(d < threshold for d in ours.nearest),
            "standard": sum(d < threshold for d in standard.nearest),
            "filtered": filtered,
            "threshold": threshold,
        },
        "mask_agreement": agreement,
        "seconds": seconds,
    }


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference else None


def mask_agreement(
    samples: Iterable[Sample],
    pairs: Sequence[Sample],
    classes: ClassMap,
    *,
    steps: int = 300,
    batch_size: int = 5,
    tests: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train a segmenter on generated samples alone, test it on the real pair.

    OSMIS' protocol (Sushko et al. 2023): a U-Net, both sides mildly augmented. Differences: the
    bundled EfficientNet-Lite0 encoder, a working size of at most 192 px on the long side, and
    true IoU from one confusion matrix over all test images, absent classes excluded.

    Args:
        samples: generated samples.
        pairs: the training pairs of the generator.
        classes: classes of the masks.
        steps: training steps.
        batch_size: samples per step.
        tests: augmented versions of the pairs to test on, taken in turn.
        seed: seed of weights, order and augmentation.
        progress: called with (steps done, steps).

    Returns:
        ``foreground_iou`` (mean over all classes but the background), ``miou`` (with it),
        ``iou`` per class id (null when absent), ``final_loss``.

    Raises:
        InputError: there is no sample.
    """
    size = working_size(pairs[0].size, AGREEMENT_SIDE_PX)
    training = [resized(sample, *size) for sample in samples]
    if not training:
        raise InputError("there is no sample to train on: give at least one")
    real = [resized(pair, *size) for pair in pairs]
    model = build_segmenter("unet", len(classes), seed=seed).to(default_device())
    batches = _MildBatches(training, steps, batch_size, seed)
    losses = optimise(model, batches, classes, seed=seed, progress=progress)
    stream = numpy_stream(seed, "agreement", "test")
    shown = [mild_augmentation(pair, stream) for pair in islice(cycle(real), tests)]
    predictions = predict(model, [sample.image for sample in shown])
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for sample, prediction in zip(shown, predictions, strict=True):
        confusion += confusion_matrix(classes.encode(sample.mask), prediction, len(classes))
    values = [None if np.isnan(value) else float(value) for value in iou_per_class(confusion)]
    return {
        "foreground_iou": mean_iou(confusion, background=False),
        "miou": mean_iou(confusion),
        "iou": {str(i): value for i, value in zip(classes.ids, values, strict=True)},
        "final_loss": float(np.mean(losses[-10:])),
    }


def mild_augmentation(sample: Sample, stream: np.random.Generator) -> Sample:
    """Mirror left-right (p 0.15), shift down or up and sideways (p 0.3 each), border mirrored.

    Shifts are 5 % to 30 % of the side, in a random direction; the image keeps its size.
    """
    image, mask = sample.image, sample.mask
    if stream.random() < _FLIP_P:
        image, mask = image[:, ::-1], mask[:, ::-1]
    for axis in (0, 1):
        if stream.random() < _SHIFT_P:
            step = round(float(stream.uniform(*_SHIFT_RANGE)) * mask.shape[axis])
            before = bool(stream.random() < 0.5)
            image, mask = (_shifted(array, step, axis, before) for array in (image, mask))
    return replace(sample, image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))


@dataclass
class _Figures:
    sifid: list[float] = field(default_factory=list)
    diversity: float = float("nan")
    nearest: list[float] = field(default_factory=list)


def _measure(
    yardstick: Yardstick, samples: Iterable[Sample], *, with_sifid: bool = True
) -> _Figures:
    distances, diversity, figures = [], Diversity(), _Figures()
    for batch in in_batches(samples):
        images = to_tensor(batch)
        if with_sifid:
            sifid, embedded = yardstick.look(images)
            distances.append(sifid)
        else:
            with torch.inference_mode():
                embedded = yardstick.space.embed(images)
        diversity.add(embedded)
        figures.nearest += yardstick.training.distance(embedded).tolist()
    if with_sifid:
        figures.sifid = torch.cat(distances).mean(0).tolist()
    figures.diversity = diversity.value()
    return figures


class _MildBatches:
    """Samples in random order, epoch after epoch, each mildly augmented anew."""

    def __init__(self, samples: Sequence[Sample], steps: int, batch_size: int, seed: int) -> None:
        self.samples = samples
        self.steps = steps
        self._batch_size = batch_size
        self._stream = numpy_stream(seed, "agreement", "train")
        draws = numpy_stream(seed, "segmenter", "order")
        epochs = -(-steps * batch_size // len(samples))
        self._order = [int(i) for _ in range(epochs) for i in draws.permutation(len(samples))]

    def batch(self, step: int) -> list[Item]:
        """Draw the next batch; every step is asked for once, in order."""
        chosen = self._order[step * self._batch_size : (step + 1) * self._batch_size]
        found = (mild_augmentation(self.samples[index], self._stream) for index in chosen)
        return [Item(sample.image, sample.mask) for sample in found]


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a part took."""
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 3)


def _augmented(samples: Iterable[Sample], augment: Any) -> Iterator[Sample]:
    for sample in samples:
        out = augment(image=sample.image, mask=sample.mask)
        yield replace(sample, image=out["image"], mask=out["mask"])


def _shifted(array: Any, step: int, axis: int, before: bool) -> Any:
    padding = [(0, 0)] * array.ndim
    padding[axis] = (step, 0) if before else (0, step)
    padded = np.pad(array, padding, mode="reflect")
    start = 0 if before else step
    return padded.take(range(start, start + array.shape[axis]), axis=axis)
