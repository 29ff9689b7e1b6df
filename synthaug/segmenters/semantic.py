"""TRAIN: semantic segmenters from segmentation-models-pytorch over the bundled encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from synthaug import devices
from synthaug.errors import InputError
from synthaug.quality.features import image_tensor
from synthaug.sample import ClassMap, resize_image, resize_mask
from synthaug.seeding import derive_seed, torch_seeded
from synthaug.segmenters.contract import Item, Stream
from synthaug.weights import efficientnet_lite0_state

Architecture = Literal["unet", "fpn", "deeplabv3", "deeplabv3plus"]
_MODELS = {
    "unet": "Unet",
    "fpn": "FPN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
}
_OPTIONS: dict[str, dict[str, int]] = {
    "fpn": {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 64}
}
"""A decoder as wide as smp's would take half of the time, for a network that sees one image."""
BUNDLED_ENCODER = "tu-tf_efficientnet_lite0"
STRIDE_PX = 32
"""What the bundled encoder, and most others, divide the sides by."""
WARMUP_SHARE = 0.1
"""Share of the steps over which the learning rate rises."""
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
        shown = padded(images * 2 - 1, STRIDE_PX).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(shown)
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
        arch: "unet", "fpn", "deeplabv3" or "deeplabv3plus".
        num_classes: number of classes N, background included.
        encoder: an encoder of segmentation-models-pytorch; any but the bundled one starts from
            random weights.
        seed: seed of the random weights.

    Raises:
        InputError: unknown architecture or encoder.
    """
    import segmentation_models_pytorch as smp

    if arch not in _MODELS:
        raise InputError(f"unknown architecture {arch!r}: choose one of {', '.join(_MODELS)}")
    with torch_seeded(derive_seed(seed, "segmenter", "weights")):
        try:
            net = getattr(smp, _MODELS[arch])(
                encoder, encoder_weights=None, classes=num_classes, **_OPTIONS.get(arch, {})
            )
        except (KeyError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{arch} cannot be built on encoder {encoder!r} "
                f"({' '.join(str(error).split())[:120]}): choose another encoder"
            ) from error
    if encoder == BUNDLED_ENCODER:
        outcome = net.encoder.model.load_state_dict(efficientnet_lite0_state(), strict=False)
        if outcome.missing_keys:
            raise RuntimeError(
                f"encoder weights do not fit: {outcome.missing_keys[:3]} are missing"
            )
    return Segmenter(net, num_classes)


class SemanticLearner:
    """Trains a network on a stream, then segments every picture on its own.

    Runs on the GPU where there is one.

    Args:
        network: (B, 3, H, W) float in [0, 1] -> (B, N, H, W) logits; it is trained in place.
        lr: highest learning rate.
        size: (height, width) in px in which the network works; None = each picture's own.
    """

    def __init__(
        self, network: nn.Module, *, lr: float = 1e-3, size: tuple[int, int] | None = None
    ) -> None:
        self.network = network.to(default_device())
        self.lr = lr
        self.size = size

    def learn(
        self,
        stream: Stream,
        classes: ClassMap,
        *,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """Train with `optimise`; returns the loss of every step."""
        return optimise(
            self.network,
            stream,
            classes,
            lr=self.lr,
            seed=seed,
            size=self.size,
            progress=progress,
        )

    def segment(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
        """Return class channels (H, W) int64 of images (H, W, 3) uint8, at their own size."""
        return predict(self.network, images, size=self.size)


def optimise(
    model: nn.Module,
    stream: Stream,
    classes: ClassMap,
    *,
    lr: float = 1e-3,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train in place: AdamW, linear warm-up, cosine decay, cross-entropy + Dice.

    A step's loss is the weighted mean of its items' losses. Items of weight 0 are left out of the
    batch, so that batch norms do not see them either; a single item is shown twice, because
    DeepLab's batch norms need two.

    Args:
        model: (B, 3, H, W) float in [0, 1] -> (B, N, H, W) logits.
        stream: the batches, one per optimiser step.
        classes: classes of the masks; 255 and unknown ids do not count.
        lr: highest learning rate.
        seed: seed of dropout; with the stream it fixes the result on CPU.
        size: items of another (height, width) are resized to this one; None = leave them.
        progress: called with (steps done, steps).

    Returns:
        The loss of every step, 0 where no item counted.

    Raises:
        InputError: items of different sizes in a batch, or a network without trainable weights.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        raise InputError("the network has no trainable weights: leave some of them unfrozen")
    device = weights[0].device
    optimiser = torch.optim.AdamW(weights, lr=lr, weight_decay=1e-4)
    warmup = max(1, round(stream.steps * WARMUP_SHARE))
    losses = torch.zeros(stream.steps, device=device)  # read once: reading waits for the device
    with torch_seeded(derive_seed(seed, "segmenter", "training")):
        model.train()
        for step in range(stream.steps):
            for group in optimiser.param_groups:
                group["lr"] = lr * _learning_rate_factor(step, stream.steps, warmup)
            items = [item for item in stream.batch(step) if item.weight > 0]
            if items:
                if len(items) == 1:
                    items = items * 2
                images, masks = collate([resized(item, size) for item in items], classes)
                shares = torch.tensor([item.weight for item in items], device=device)
                each = segmentation_loss(model(images.to(device)), masks.to(device))
                loss = (each * shares).sum() / shares.sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses[step] = loss.detach()
            if progress is not None:
                progress(step + 1, stream.steps)
    model.eval()
    return losses.tolist()


def predict(
    model: nn.Module,
    images: Iterable[NDArray[np.uint8]],
    *,
    size: tuple[int, int] | None = None,
) -> list[NDArray[np.int64]]:
    """Segment images.

    Args:
        model: a trained network; it is set to evaluation mode.
        images: (H, W, 3) uint8 RGB each, sizes may differ; each is read once.
        size: (height, width) in which the network works; its logits are resized bilinearly to
            the image's size. None = the image's own.

    Returns:
        Class channels (H, W) int64 in [0, N), one map per image; `ClassMap.decode` gives ids.
    """
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    maps: list[NDArray[np.int64]] = []
    with torch.inference_mode():
        for group in _groups_of_one_size(images):
            h, w = group[0].shape[:2]
            shown = group if size is None else [resize_image(image, size) for image in group]
            logits = model(image_tensor(shown).to(device))
            if logits.shape[-2:] != (h, w):
                logits = F.interpolate(logits, (h, w), mode="bilinear", align_corners=False)
            maps.extend(logits.argmax(1).cpu().numpy())
    return maps


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the classes present, per item.

    Args:
        logits: (B, N, H, W).
        target: (B, H, W) int64 class channels, -1 = ignored.

    Returns:
        (B,); 0 where every pixel of an item is ignored.
    """
    labelled = target >= 0  # (B, H, W)
    entropy = F.cross_entropy(logits, target, ignore_index=-1, reduction="none").sum((1, 2))
    entropy = entropy / labelled.sum((1, 2)).clamp(min=1)
    truth = F.one_hot(target.clamp(min=0), logits.shape[1]).permute(0, 3, 1, 2)
    truth = truth * labelled[:, None]  # (B, N, H, W)
    share = logits.softmax(1) * labelled[:, None]
    overlap = (truth * share).sum((2, 3))  # (B, N)
    total = (truth + share).sum((2, 3))
    present = truth.sum((2, 3)) > 0
    dice = (1 - 2 * overlap / total.clamp(min=1e-6)) * present
    return entropy + dice.sum(1) / present.sum(1).clamp(min=1)


def padded(images: Tensor, multiple: int) -> Tensor:
    """Pad images (B, C, H, W) below and at the right by reflection to multiples of some px."""
    h, w = images.shape[-2:]
    return F.pad(images, (0, -w % multiple, 0, -h % multiple), mode="reflect")


def collate(items: Sequence[Item], classes: ClassMap) -> tuple[Tensor, Tensor]:
    """Stack items: images (B, 3, H, W) in [0, 1], masks (B, H, W) int64, -1 = ignored.

    Raises:
        InputError: the items differ in size.
    """
    sizes = {item.mask.shape for item in items}
    if len(sizes) > 1:
        raise InputError(f"samples of sizes {sorted(sizes)} cannot share a batch: resize them")
    masks = np.stack([classes.encode(item.mask) for item in items])
    return image_tensor([item.image for item in items]), torch.from_numpy(masks)


def resized(item: Item, size: tuple[int, int] | None) -> Item:
    """Return the item at ``size`` (height, width); its mask by nearest neighbour."""
    if size is None:
        return item
    return item._replace(image=resize_image(item.image, size), mask=resize_mask(item.mask, size))


def default_device() -> torch.device:
    """Return the first CUDA device; the CPU where there is none, and in `DataLoader` workers.

    CUDA cannot be started in a process that was forked from one that uses it.
    """
    worker = torch.utils.data.get_worker_info() is not None
    return torch.device("cuda" if not worker and devices.cuda_works() else "cpu")


def _groups_of_one_size(
    images: Iterable[NDArray[np.uint8]],
) -> Iterator[list[NDArray[np.uint8]]]:
    group: list[NDArray[np.uint8]] = []
    for image in images:
        if group and (image.shape != group[0].shape or len(group) == _PREDICT_BATCH):
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def _learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
