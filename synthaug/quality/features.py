"""The frozen networks through which the metrics look at images: four depths each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from synthaug.backbone import FrozenLite0
from synthaug.errors import InputError
from synthaug.seeding import derive_seed, torch_seeded, torch_stream
from synthaug.weights import inception_v3_path

Network = Literal["auto", "inception_v3", "efficientnet_lite0"]
NETWORKS = ("auto", "inception_v3", "efficientnet_lite0")
INCEPTION_MIN_SIDE_PX = 75
INCEPTION_SIDE_PX = 299
_BATCH_PIXELS = 250_000  # small batches stay in the cache: 2.5 times as fast on a CPU
_MAX_BATCH = 16
_LITE0_SCALE = 4.0


class FeatureNet(nn.Module):
    """A frozen network with four taps, always in evaluation mode.

    Attributes:
        name: which network and weights; a metric's number is comparable under one name only.
        tap_names: the four depths, shallow to deep.

    Shapes: (B, 3, H, W) float in [0, 1] -> four maps (B, C, h, w).
    """

    name: str
    tap_names: tuple[str, ...]

    def train(self, mode: bool = True) -> FeatureNet:
        """Stay in evaluation mode."""
        return super().train(False)


class Lite0Features(FeatureNet):
    """The bundled ImageNet EfficientNet-Lite0: 16, 24, 40, 112 channels at strides 2, 4, 8, 16.

    Args:
        pretrained: use the bundled weights; otherwise seeded random ones, for tests.
        seed: seed of the random weights.
    """

    tap_names = ("block0", "block2", "block4", "block10")

    def __init__(self, *, pretrained: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.name = "efficientnet_lite0" if pretrained else f"efficientnet_lite0-random-{seed}"
        with torch_seeded(0):  # the weights are read: the caller's stream stays
            self.net = FrozenLite0(pretrained=pretrained)
        if not pretrained:
            _randomise(self.net, seed)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four maps of images in [0, 1]; any size from 32 px a side."""
        taps: list[Tensor] = self.net(images * 2 - 1)
        return taps


class InceptionFeatures(FeatureNet):
    """torchvision's InceptionV3 at the image's own size, as SIFID uses it.

    Taps: 64 channels after ``Conv2d_2b_3x3`` (before the first max-pool), 192 after
    ``Conv2d_4a_3x3`` (before the second), 768 of ``Mixed_6e``, 2048 of ``Mixed_7c`` (unpooled).
    Images are scaled to [-1, 1] and not resized, except that an image whose shorter side is under
    75 px, which the network cannot digest, is first enlarged bilinearly to 75 px there.

    Args:
        path: verified weights file, or None for seeded random weights, for tests.
        seed: seed of the random weights.
    """

    tap_names = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_6e", "Mixed_7c")
    _layers = (
        ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
        ("maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
        ("maxpool2", *(f"Mixed_5{x}" for x in "bcd"), *(f"Mixed_6{x}" for x in "abcde")),
        ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    )

    def __init__(self, path: Path | None = None, *, seed: int = 0) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        with torch_seeded(derive_seed(seed, "features")):
            whole: Any = inception_v3(weights=None, init_weights=False, aux_logits=True)
        if path is not None:
            whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.name = "inception_v3" if path is not None else f"inception_v3-random-{seed}"
        self.stages = nn.ModuleList(
            nn.Sequential(*(getattr(whole, layer) for layer in layers)) for layers in self._layers
        )
        if path is None:
            _randomise(self.stages, seed)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four maps of images in [0, 1]."""
        x = images * 2 - 1
        short = min(x.shape[-2:])
        if short < INCEPTION_MIN_SIDE_PX:
            size = [round(side * INCEPTION_MIN_SIDE_PX / short) for side in x.shape[-2:]]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        taps = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return taps


def load_feature_net(name: Network = "auto", weights: str | Path | None = None) -> FeatureNet:
    """Load a pre-trained feature network; nothing is downloaded.

    Args:
        name: "inception_v3" (the network of the published SIFID and FID), "efficientnet_lite0"
            (bundled), or "auto": InceptionV3 when its weights file is found, else the bundled one.
        weights: torchvision's InceptionV3 file; None searches torch's hub cache.

    Raises:
        InputError: unknown name; InceptionV3 asked for and not found; a weights file is damaged
            or named for the bundled network.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown feature network {name!r}: choose one of {', '.join(NETWORKS)}")
    if name == "efficientnet_lite0":
        if weights is not None:
            raise InputError("efficientnet_lite0 brings its own weights: leave the path out")
        return Lite0Features()
    path = inception_v3_path(weights)
    if path is not None:
        return InceptionFeatures(path)
    if name == "inception_v3":
        raise InputError(
            "no InceptionV3 weights in torch's cache: name torchvision's "
            "inception_v3_google-0cc3c7bd.pth, or use the bundled efficientnet_lite0"
        )
    return Lite0Features()


def pooled_features(batches: Iterable[Tensor], net: FeatureNet) -> Tensor:
    """Describe every image by the deepest tap, averaged over positions, as FID and KID do.

    InceptionV3 sees images at 299x299 px as published, bilinearly resized. The bundled network
    sees them at their own size; its features, whose root mean square over photographs is about
    2.3, are divided by 4, since KID's kernel supposes features below 1.

    Args:
        batches: images (B, 3, H, W) float in [0, 1]; sizes may differ from batch to batch.
        net: the network; its name belongs beside the numbers.

    Returns:
        (n, d) float32: 2048 channels of InceptionV3, 112 of the bundled network.
    """
    rows = []
    with torch.inference_mode():
        for images in batches:
            if isinstance(net, InceptionFeatures):
                size = (INCEPTION_SIDE_PX, INCEPTION_SIDE_PX)
                images = F.interpolate(images, size, mode="bilinear", align_corners=False)
            rows.append(net(images)[-1].float().mean((2, 3)))
    features = torch.cat(rows)
    return features / _LITE0_SCALE if isinstance(net, Lite0Features) else features


def split_batches(images: Tensor) -> Iterator[Tensor]:
    """Cut (n, 3, H, W) into batches that a forward pass takes at once."""
    yield from torch.split(images, batch_size_for(images.shape[-2], images.shape[-1]))


def image_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack images (H, W, 3) uint8 of one size to (B, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def batch_size_for(height: int, width: int) -> int:
    """Return how many images of one size a forward pass takes at once (1..16)."""
    return max(1, min(_MAX_BATCH, _BATCH_PIXELS // (height * width)))


def _randomise(net: nn.Module, seed: int) -> None:
    """Draw He-normal convolutions from the named stream, so that deep features keep a scale."""
    stream = torch_stream(seed, "features")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            with torch.no_grad():
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=stream)
                if module.bias is not None:
                    module.bias.zero_()
