"""The frozen ImageNet EfficientNet-Lite0 that OSMIS' fast preset and the metrics look through.

Batch norms are folded into the convolutions, so that a forward pass is half as many kernels as
timm's; outputs agree with ``tf_efficientnet_lite0`` to float rounding (tested).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.weights import efficientnet_lite0_state

# (kernel, stride, expansion, channels out, repeats) per stage: Tan & Le 2019, Lite variant (no SE).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
TAP_BLOCKS = (0, 2, 4, 10)
TAP_CHANNELS = (16, 24, 40, 112)


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow "same" padding and a folded batch norm (ReLU6 optional).

    At stride 2 an even side is padded at its far end only. Without gradients that costs no padded
    copy of the input: a kernel with a row (column) of zeros in front, padded on both ends, gives
    the same bits. Its gradient would differ in the last ones, so there the input is padded.
    """

    def __init__(self, c_in: int, c_out: int, k: int, stride: int, groups: int, act: bool) -> None:
        super().__init__(c_in, c_out, k, stride, groups=groups)
        self.act = act

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x, weight, padding = input, self.weight, self.kernel_size[0] // 2
        if self.stride[0] == 2:
            down, right = (1 - side % 2 for side in x.shape[-2:])
            if x.requires_grad:
                x = F.pad(x, (padding - right, padding, padding - down, padding))
                padding = 0
            else:
                weight = F.pad(weight, (right, 0, down, 0))
        x = F.conv2d(x, weight, self.bias, self.stride, padding, groups=self.groups)
        return F.relu6(x, inplace=True) if self.act else x


class _Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, k: int, stride: int, expansion: int) -> None:
        super().__init__()
        mid = c_in * expansion
        convs = [] if expansion == 1 else [_SameConv(c_in, mid, 1, 1, 1, act=True)]
        convs.append(_SameConv(mid, mid, k, stride, mid, act=True))
        convs.append(_SameConv(mid, c_out, 1, 1, 1, act=False))
        self.convs = nn.Sequential(*convs)
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x)
        return x + y if self.skip else y


class FrozenLite0(nn.Module):
    """Features of ImageNet EfficientNet-Lite0 at strides 2, 4, 8 and 16, without gradients to it.

    Args:
        pretrained: load the bundled weights; False leaves seeded random ones for tests.

    Shapes: (B, 3, H, W) in [-1, 1] -> (B, 16, H/2, W/2), (B, 24, H/4, W/4), (B, 40, H/8, W/8),
    (B, 112, H/16, W/16), sizes rounded up (blocks 0, 2, 4 and 10). Gradients reach the input.
    """

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.stem = _SameConv(3, 32, 3, 2, 1, act=True)
        blocks, c_in = [], 32
        for kernel, stride, expansion, c_out, repeats in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(c_in, c_out, kernel, stride if repeat == 0 else 1, expansion))
                c_in = c_out
        self.blocks = nn.ModuleList(blocks[: TAP_BLOCKS[-1] + 1])
        if pretrained:
            self._load()
        self.requires_grad_(False)
        self.eval().to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the four feature maps of images in [-1, 1]."""
        taps = []
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAP_BLOCKS:
                taps.append(x)
        return taps

    def train(self, mode: bool = True) -> FrozenLite0:
        """Stay in evaluation mode."""
        return super().train(False)

    def _load(self) -> None:
        state = efficientnet_lite0_state()
        _fold(self.stem, state, "conv_stem", "bn1")
        number = 0
        for stage, (*_, expansion, _, repeats) in enumerate(_STAGES):
            names = ("conv_dw", "conv_pw") if expansion == 1 else ("conv_pw", "conv_dw", "conv_pwl")
            for repeat in range(repeats):
                if number >= len(self.blocks):
                    return
                convs = self.blocks[number].get_submodule("convs").children()
                for i, (conv, name) in enumerate(zip(convs, names, strict=True), start=1):
                    prefix = f"blocks.{stage}.{repeat}"
                    _fold(conv, state, f"{prefix}.{name}", f"{prefix}.bn{i}")
                number += 1


def _fold(conv: nn.Module, state: dict[str, Tensor], conv_name: str, norm_name: str) -> None:
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    scale = state[f"{norm_name}.weight"] / (state[f"{norm_name}.running_var"] + 1e-3).sqrt()
    with torch.no_grad():
        conv.weight.copy_(state[f"{conv_name}.weight"] * scale[:, None, None, None])
        conv.bias.copy_(state[f"{norm_name}.bias"] - state[f"{norm_name}.running_mean"] * scale)
