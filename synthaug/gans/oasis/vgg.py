"""The optional pull of painted pictures to real ones in the features of an ImageNet VGG19.

The loss of SPADE (Park et al. 2019, arXiv:1903.07291) and of those before it, which OASIS does
without: with it ADE20K's pictures look more alike, MS-SSIM .88 instead of .65 (thesis, table 4.2).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.gans.state_dicts import fill
from synthaug.weights import VGG19_FILE, vgg19_state

TAPS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
"""Weights by torchvision's numbers of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""
STRENGTH = 10.0


class VGGLoss:
    """Holds the frozen network outside the module tree: it has no place in a checkpoint.

    Args:
        path: torchvision's ImageNet VGG19 weights, see `synthaug.weights.vgg19_state`.

    Raises:
        InputError: the file cannot be read, or holds another network.
    """

    def __init__(self, path: str | Path) -> None:
        self.network = FrozenVGG19(path)

    def __call__(self, painted: Tensor, real: Tensor) -> Tensor:
        """Return the weighted mean absolute distances of the features, (B,) float32.

        Args:
            painted: (B, 3, H, W) in [-1, 1], sides from 16 px; not normalised by ImageNet's
                statistics, as published.
            real: what they are compared with, alike; receives no gradient.
        """
        self.network.to(painted.device)
        with torch.no_grad():
            wanted = self.network(real)
        distances = [
            weight * (a.float() - b.float()).abs().mean((1, 2, 3))
            for weight, a, b in zip(TAPS.values(), self.network(painted), wanted, strict=True)
        ]
        return STRENGTH * torch.stack(distances).sum(0)


class FrozenVGG19(nn.Module):
    """VGG19 without batch normalisation (Simonyan & Zisserman 2015) as far as relu5_1.

    Shapes: (B, 3, H, W) -> five maps of 64, 128, 256, 512 and 512 channels at strides 1, 2, 4, 8
    and 16, sizes rounded down. Gradients reach the input.

    Args:
        path: see `VGGLoss`.

    Raises:
        InputError: see `VGGLoss`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        from torchvision.models import vgg19

        with torch.device("meta"):
            whole: Any = vgg19(weights=None)
        del whole.classifier
        mend = f"; give torchvision's {VGG19_FILE} (vgg19_bn is another network)"
        fill(whole, vgg19_state(path), path, "VGG19", mend)
        self.layers = whole.features[: max(TAPS) + 1]
        self.eval().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps at `TAPS`."""
        taps = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in TAPS:
                taps.append(x)
        return taps
