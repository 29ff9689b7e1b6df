"""One run of a comparison: train a segmenter on an arm's batches, test it on the unit's images."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from synthaug import files
from synthaug.config.arms import Arm
from synthaug.errors import InputError
from synthaug.formats.folder import mask_png
from synthaug.gain.hardware import peak_memory_gb, used_gpu
from synthaug.gain.leaks import refuse_leak
from synthaug.mixing.arms import ArmStream
from synthaug.mixing.source import Source, open_source_once, working_size
from synthaug.quality.overlap import confusion_matrix, iou_per_class, jf, mean_iou
from synthaug.sample import Sample
from synthaug.seeding import derive_seed, python_stream
from synthaug.segmenters import build_learner
from synthaug.segmenters.semantic import BUNDLED_ENCODER

if TYPE_CHECKING:
    from synthaug.formats.splits import Unit
    from synthaug.segmenters.contract import Learner

MEASURES = {"video": ("J&F", "J", "F", "mIoU"), "images": ("mIoU",)}
"""Measures by the unit's kind, the primary one first; all of them lie in [0, 1]."""
KEPT_IMAGES = 8
KEPT_SAMPLES = 4
_CHUNK = 16
_IN_ORDER = "matching"
"""The segmenter that takes the pictures of one call for frames of one video."""


@dataclass(frozen=True)
class Settings:
    """What all runs of a comparison share.

    Attributes:
        segmenter: name of the learner, see `synthaug.segmenters.build_learner`.
        steps: training steps.
        batch_size: items per step.
        side_px: longer side in training and testing, px; smaller images keep their size. Images of
            several sizes are stretched to that of the middle one.
        lr: highest learning rate.
        encoder: encoder of the network.
        parent: file of a parent network; None = without.
    """

    segmenter: str = "osvos"
    steps: int = 150
    batch_size: int = 8
    side_px: int = 256
    lr: float = 1e-3
    encoder: str = BUNDLED_ENCODER
    parent: str | None = None

    def build(self, num_classes: int, size: tuple[int, int], seed: int) -> Learner:
        """Build the learner."""
        return build_learner(
            self.segmenter,
            num_classes,
            seed=seed,
            size=size,
            lr=self.lr,
            encoder=self.encoder,
            parent=self.parent,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings in plain JSON values."""
        return asdict(self)


def open_sources(unit: Unit, arm: Arm, paths: Mapping[str, Any]) -> dict[str, Source]:
    """Open what an arm uses on a unit.

    Raises:
        InputError: a source is missing, is none, has classes that the unit has not, or by other
            ids, or has learned from test pictures.
    """
    opened = {}
    for kind in arm.uses:
        if kind not in paths:
            if kind not in arm.needs:
                continue
            raise InputError(
                f"arm {arm.name!r} needs a source of {kind} items for {unit.name}: "
                "give a bank or generator"
            )
        source = open_source_once(str(paths[kind]))
        source.require_masks()
        source.require_pairs()
        strange = sorted(set(source.classes.ids) - set(unit.classes.ids))
        if strange:
            raise InputError(
                f"{paths[kind]} shows class {strange[0]}, which the training masks of {unit.name} "
                f"(classes {list(unit.classes.ids)}) do not: make it from this unit's masks"
            )
        unit.classes.refuse_swapped(source.classes, str(paths[kind]))
        refuse_leak(unit, source)
        opened[kind] = source
    return opened


def run(
    unit: Unit,
    arm: Arm,
    seed: int,
    sources: Mapping[str, Source],
    settings: Settings,
    *,
    predictions: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train and test once.

    The learner's seed and the stream's seed follow from unit and seed alone: all arms of a seed
    start from the same weights and see the same real items in the same places.

    Args:
        unit: what to learn and what to test on.
        arm: how to fill the batches.
        seed: the repetition.
        sources: from `open_sources`.
        settings: shared by all runs.
        predictions: also return them, see `measure`.
        progress: called with (steps done, steps).

    Returns:
        What `measure` does, ``seconds`` and ``peak_memory_gb``.

    Raises:
        InputError: the training diverged, or no pixel of the test masks is labelled.
    """
    size = working_size(unit.size, settings.side_px)
    names = ("gain", unit.name)
    learner = settings.build(len(unit.classes), size, derive_seed(seed, *names, "weights"))
    stream = ArmStream(
        arm,
        unit.training,
        sources,
        steps=arm.steps(settings.steps),
        batch_size=settings.batch_size,
        seed=derive_seed(seed, *names, "batches"),
        size=size,
    )
    if used_gpu():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    losses = learner.learn(
        stream, unit.classes, seed=derive_seed(seed, *names, "training"), progress=progress
    )
    if not np.isfinite(losses).all():
        raise InputError(
            f"training {arm.name} on {unit.name} (seed {seed}) diverged, its loss is not finite: "
            f"take a lower learning rate than {settings.lr:g} (compare.lr)"
        )
    trained = time.perf_counter()
    result = measure(learner, unit, predictions, in_order=settings.segmenter == _IN_ORDER)
    tested = time.perf_counter()
    result["seconds"] = {"train": round(trained - start, 3), "test": round(tested - trained, 3)}
    result["peak_memory_gb"] = peak_memory_gb()
    return result


def measure(
    learner: Learner, unit: Unit, predictions: bool = False, *, in_order: bool = False
) -> dict[str, Any]:
    """Test a trained learner on all test images of a unit.

    Videos: J, F and J&F, means over the test frames (of the objects' means within a frame), as
    the DAVIS benchmark defines them; the last frame counts, which its semi-supervised evaluator
    leaves out as it does the first. All kinds: mIoU from one confusion matrix over all test
    images, over the classes that a test mask holds.

    Args:
        learner: trained.
        unit: its test images are segmented in order, a few in a call.
        predictions: also return at most `KEPT_IMAGES` evenly spread ones.
        in_order: the learner takes the images of a call for frames of one video: all of a video
            are given in one call, and images that are no video one by one.

    Returns:
        ``measures`` (name -> value), ``per_class`` (class id -> IoU, null where no test mask holds
        the class: whether it is learned cannot show),
        ``per_image`` (``id`` and the primary measure of each, null where nothing is labelled; such
        frames do not count) and, if asked for, ``predictions`` (id -> content of an index PNG).

    Raises:
        InputError: no pixel of the test masks is labelled.
    """
    classes, count = unit.classes, len(unit.classes)
    primary = MEASURES[unit.kind][0]
    kept = kept_indices(len(unit.test))
    confusion = np.zeros((count, count), np.int64)
    frames, per_image, pictures = [], [], dict[str, bytes]()
    for index, sample, channels in _segmented(learner, unit, in_order):
        target = classes.encode(sample.mask)
        single = confusion_matrix(target, channels, count)
        confusion += single
        value = mean_iou(single)
        if unit.kind == "video" and single.any():  # J and F of no label would be 1
            frame = jf(target, channels, count)
            frames.append((frame.mean, frame.j, frame.f))
            value = frame.mean
        per_image.append({"id": sample.id, primary: _finite(value)})
        if predictions and index in kept:
            pictures[sample.id] = mask_png(classes.decode(channels))
    if not confusion.any():
        raise InputError(f"no test image of {unit.name} has a labelled pixel: check its masks")
    values = [*np.mean(frames, axis=0).tolist()] if frames else []
    measures = dict(zip(MEASURES[unit.kind], [*values, mean_iou(confusion)], strict=True))
    per_class = zip(classes.ids, iou_per_class(confusion).tolist(), strict=True)
    return {
        "measures": measures,
        "per_class": {str(i): _finite(value) for i, value in per_class},
        "per_image": per_image,
        **({"predictions": pictures} if predictions else {}),
    }


def keep_pictures(unit: Unit, sources: Mapping[str, Source], folder: Path) -> None:
    """Keep what the report shows beside the predictions.

    ``predictions/UNIT/_test`` gets the test images (JPEG) and their masks (index PNG) at which
    predictions are kept; ``samples/UNIT/KIND`` gets a few samples of every source.
    """
    for index in sorted(kept_indices(len(unit.test))):
        _write_pair(folder / "predictions" / unit.name / "_test", unit.test[index])
    for kind, source in sources.items():
        stream = python_stream(0, "gain", "pictures", kind)
        drawn = (source.fetch(source.draw(stream.randrange)) for _ in range(4 * KEPT_SAMPLES))
        shown: dict[str, Sample] = {}
        for sample in drawn:
            shown.setdefault(sample.id, sample)
            if len(shown) == KEPT_SAMPLES:
                break
        target = folder / "samples" / unit.name / kind
        for old in target.glob("*"):  # of an earlier source
            old.unlink()
        for sample in shown.values():
            _write_pair(target, sample)


def kept_indices(count: int) -> set[int]:
    """Indices of at most `KEPT_IMAGES` of ``count`` test images, evenly spread, ends included."""
    number = min(KEPT_IMAGES, count)
    return {round(i * (count - 1) / max(1, number - 1)) for i in range(number)}


def _segmented(learner: Learner, unit: Unit, in_order: bool) -> Iterator[tuple[int, Sample, Any]]:
    """(index, sample, (H, W) channels)."""
    whole = len(unit.test) if unit.kind == "video" else 1
    size = whole if in_order else _CHUNK
    samples = iter(range(len(unit.test)))
    while indices := list(islice(samples, size)):
        shown: Sequence[Sample] = [unit.test[index] for index in indices]
        maps = learner.segment([sample.image for sample in shown])
        yield from zip(indices, shown, maps, strict=True)


def _write_pair(folder: Path, sample: Sample) -> None:
    buffer = io.BytesIO()
    Image.fromarray(sample.image).save(buffer, "JPEG", quality=90)
    files.write_bytes(folder / f"{sample.id}.jpg", buffer.getvalue())
    files.write_bytes(folder / f"{sample.id}.png", mask_png(sample.mask))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
