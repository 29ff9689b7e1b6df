"""TRAIN: semantic segmenters from segmentation-models-pytorch over the bundled encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import derive_seed, numpy_stream
from synthaug.weights import efficientnet_lite0_state

Architecture = Literal["unet", "deeplabv3", "deeplabv3plus"]
_MODELS = {"unet": "Unet", "deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3Plus"}
BUNDLED_ENCODER = "tu-tf_efficientnet_lite0"
_STRIDE_PX = 32
_PREDICT_BATCH = 8


class Segmenter(nn.Module):
    """A segmentation network for images of any size from 32 px a side.

    Normalises images as the bundled encoder expects (mean = std = 0.5), pads them by reflection
    to a multiple of 32 px and crops the result.

    Shapes: (B, 3, H, W) float in [0, 1] -> (B, N, H, W) logits.
    """

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits."""
        h, w = images.shape[-2:]
        padding = (0, -w % _STRIDE_PX, 0, -h % _STRIDE_PX)
        padded = F.pad(images * 2 - 1, padding, mode="reflect")
        logits: Tensor = self.net(padded.contiguous(memory_format=torch.channels_last))
        return logits[..., :h, :w]


def build_segmenter(
    arch: Architecture = "unet",
    num_classes: int = 2,
    encoder: str = BUNDLED_ENCODER,
    *,
    seed: int = 0,
) -> Segmenter:
    """Build a segmenter; the bundled encoder starts from ImageNet weights, offline.

    Args:
        arch: "unet", "deeplabv3" or "deeplabv3plus".
        num_classes: number of classes N, background included.
        encoder: an encoder of segmentation-models-pytorch; any but the bundled one starts from
            random weights.
        seed: seed of the random weights.

    Raises:
        InputError: unknown architecture.
    """
    import segmentation_models_pytorch as smp

    if arch not in _MODELS:
        raise InputError(f"unknown architecture {arch!r}: choose one of {', '.join(_MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "segmenter", "weights"))
        net = getattr(smp, _MODELS[arch])(encoder, encoder_weights=None, classes=num_classes)
    if encoder == BUNDLED_ENCODER:
        outcome = net.encoder.model.load_state_dict(efficientnet_lite0_state(), strict=False)
        if outcome.missing_keys:
            raise RuntimeError(
                f"encoder weights do not fit: {outcome.missing_keys[:3]} are missing"
            )
    return Segmenter(net, num_classes)


def train_segmenter(
    model: Segmenter,
    dataset: Any,
    classes: ClassMap,
    *,
    steps: int,
    batch_size: int = 8,
    lr: float = 1e-3,
    seed: int = 0,
    warmup_share: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train in place: AdamW, linear warm-up, cosine decay, cross-entropy + Dice.

    Args:
        model: from `build_segmenter`.
        dataset: a map-style dataset of `Sample` or of (image (H, W, 3) uint8, mask (H, W) ids)
            tuples, all of one size; visited in seeded random order, epoch after epoch, each
            access to an item may augment it anew.
        classes: classes of the masks; 255 and unknown ids do not count.
        steps: optimiser steps.
        batch_size: samples per step, at least 2 (DeepLab's batch norms need two).
        lr: highest learning rate.
        seed: seed of order and dropout; with the dataset's own seed it fixes the result on CPU.
        warmup_share: share of the steps over which the learning rate rises.
        progress: called with (steps done, steps).

    Returns:
        The loss of every step.

    Raises:
        InputError: batch under 2, empty dataset, or samples of different sizes.
    """
    if batch_size < 2:
        raise InputError(f"batch size {batch_size} is too small to train: give at least 2")
    order = _order(len(dataset), numpy_stream(seed, "segmenter", "order"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    warmup = max(1, round(steps * warmup_share))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _learning_rate_factor(step, steps, warmup)
    )
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "segmenter", "training"))
        model.train()
        for step in range(steps):
            images, masks = collate([dataset[next(order)] for _ in range(batch_size)], classes)
            loss = segmentation_loss(model(images), masks)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            if progress is not None:
                progress(step + 1, steps)
    model.eval()
    return losses


def predict(model: Segmenter, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
    """Segment images.

    Args:
        model: a trained segmenter; it is set to evaluation mode.
        images: (H, W, 3) uint8 RGB each, sizes may differ.

    Returns:
        Class channels (H, W) int64 in [0, N), one map per image; `ClassMap.decode` gives ids.
    """
    model.eval()
    maps: list[NDArray[np.int64]] = []
    with torch.inference_mode():
        start = 0
        while start < len(images):
            stop = start + 1
            while (
                stop < len(images)
                and stop - start < _PREDICT_BATCH
                and images[stop].shape == images[start].shape
            ):
                stop += 1
            batch = _image_tensor(images[start:stop])
            maps.extend(model(batch).argmax(1).numpy())
            start = stop
    return maps


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the classes present in the batch.

    Args:
        logits: (B, N, H, W).
        target: (B, H, W) int64 class channels, -1 = ignored.

    Returns:
        Scalar; 0 when every pixel is ignored.
    """
    labelled = target >= 0
    if not labelled.any():
        return logits.sum() * 0
    entropy = F.cross_entropy(logits, target, ignore_index=-1)
    truth = F.one_hot(target.clamp(min=0), logits.shape[1]).permute(0, 3, 1, 2)
    truth = truth * labelled[:, None]  # (B, N, H, W)
    share = logits.softmax(1) * labelled[:, None]
    overlap = (truth * share).sum((0, 2, 3))
    total = (truth + share).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    dice = 1 - 2 * overlap[present] / total[present]
    return entropy + dice.mean()


def collate(items: Sequence[Any], classes: ClassMap) -> tuple[Tensor, Tensor]:
    """Stack dataset items: images (B, 3, H, W) in [0, 1], masks (B, H, W) int64, -1 = ignored.

    Raises:
        InputError: the items differ in size.
    """
    pairs = [(i.image, i.mask) if isinstance(i, Sample) else (i[0], i[1]) for i in items]
    sizes = {mask.shape for _, mask in pairs}
    if len(sizes) > 1:
        raise InputError(f"samples of sizes {sorted(sizes)} cannot share a batch: resize them")
    masks = np.stack([classes.encode(mask) for _, mask in pairs])
    return _image_tensor([image for image, _ in pairs]), torch.from_numpy(masks)


def _image_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def _order(count: int, stream: np.random.Generator) -> Iterator[int]:
    if count == 0:
        raise InputError("the training set is empty: give at least one sample")

    def forever() -> Iterator[int]:
        while True:
            yield from (int(i) for i in stream.permutation(count))

    return forever()


def _learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
