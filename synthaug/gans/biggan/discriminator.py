"""The discriminator of BigGAN-deep: the generator's mirror image, and a class projection."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.biggan.layers import SelfAttention, SpectralConv, SpectralLinear
from synthaug.gans.biggan.networks import START_PX, Layer
from synthaug.gans.focus import Focus
from synthaug.gans.precision import full


class BigDiscriminator(nn.Module):
    """Residual bottleneck blocks down to 4 px, places summed, one logit; spectral norm throughout.

    After Brock et al. (2019, appendix B, figure 16 and tables 7 to 9): the generator's blocks in
    reverse, with attention where the generator has it. The class's embedding, projected onto the
    summed features, adds to the logit (Miyato and Koyama 2018).

    Args:
        layers: of the generator.
        attention_at: of the generator.
        width: channels of the first convolution.
        num_classes: known classes; None: images are judged without a class.
        block_heads: judge after the last block of every size, for the loss over all blocks (Sushko
            and Gall, thesis eq. 7.3): a 3x3 convolution to one logit per place before 4 px, the
            published logit there.
        frozen: sizes from the first halving on whose blocks never learn (Mo et al., FreezeD, 2020),
            the convolution before them included; 0: everything learns.
        eps: of spectral normalisation.

    Attributes:
        size: side of the images in pixels.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        attention_at: int,
        *,
        width: int = 128,
        num_classes: int | None = None,
        block_heads: bool = False,
        frozen: int = 0,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        steps = [(up, after * width, before * width) for up, before, after in reversed(layers)]
        self.size = START_PX << sum(down for down, _, _ in steps)
        self.frozen = frozen
        self.first = SpectralConv(3, steps[0][1], 3, eps)
        stages: list[list[nn.Module]] = []
        for index, (down, before, after) in enumerate(steps):
            if index == len(layers) - attention_at:
                stages[-1].append(SelfAttention(before, eps))
            if down or not stages:
                stages.append([])
            stages[-1].append(DownBlock(before, after, eps, down))
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        ends = [here[2] for here, following in pairwise(steps) if following[0]]
        self.heads = None
        if block_heads:
            self.heads = nn.ModuleList(SpectralConv(channels, 1, 3, eps) for channels in ends)
        self.focus = Focus(steps[-1][2])
        self.final = SpectralLinear(steps[-1][2], 1, eps, bias=True)
        self.projection = None
        if num_classes is not None:
            self.projection = SpectralLinear(steps[-1][2], num_classes, eps)
        self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the weights learn or not; those of frozen blocks never do."""
        super().requires_grad_(requires_grad)
        if self.frozen:
            self.first.requires_grad_(False)
            self.stages[: self.frozen].requires_grad_(False)
        return self

    @property
    def block_sizes(self) -> list[int]:
        """Sides in pixels of the features that are judged, in the order of the logits."""
        if self.heads is None:
            return [START_PX]
        return [START_PX << level for level in reversed(range(len(self.heads) + 1))]

    def forward(
        self, image: Tensor, classes: Tensor | None = None, focus: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Judge images (B, 3, size, size) of classes (B,) int64, with regard to masks.

        Returns:
            Logits (B, P), P places, of every judged size, large ones first; the last is (B, 1).
        """
        logits = []
        x = self.first(image)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if self.heads is not None and index < len(self.heads):
                logits.append(full(self.heads[index](F.relu(x)).flatten(1)))
        summed = F.relu(self.focus(x, focus)).sum((2, 3))
        logit: Tensor = self.final(summed)
        if self.projection is not None:
            assert classes is not None
            logit = logit + self.projection(summed).gather(1, classes[:, None])
        return (*logits, full(logit))


class DownBlock(nn.Module):
    """1x1 to a quarter, two 3x3, 1x1 up; a 1x1 adds what channels the input lacks.

    Shapes: (B, c_in, h, w) -> (B, c_out, h, w), halved if ``down``; c_out >= c_in.
    """

    def __init__(self, c_in: int, c_out: int, eps: float, down: bool) -> None:
        super().__init__()
        middle = c_out // 4
        self.conv_0 = SpectralConv(c_in, middle, 1, eps)
        self.conv_1 = SpectralConv(middle, middle, 3, eps)
        self.conv_2 = SpectralConv(middle, middle, 3, eps)
        self.conv_3 = SpectralConv(middle, c_out, 1, eps)
        self.extra = SpectralConv(c_in, c_out - c_in, 1, eps) if c_out > c_in else None
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        y = self.conv_1(F.relu(self.conv_0(F.relu(x))))
        y = F.relu(self.conv_2(F.relu(y)))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        if self.extra is not None:
            x = torch.cat([x, self.extra(x)], 1)
        out: Tensor = x + self.conv_3(y)
        return out
