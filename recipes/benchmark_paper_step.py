"""Seconds and FLOPs of one training step of the published OSMIS networks on a CPU.

A step is a generator step and a discriminator step with fresh fakes, batch 5, 96x160 pixels, half
width (base 16), one object class, differentiable augmentation, diversity regularisation and EMA.

    python recipes/benchmark_paper_step.py            # as the package computes it
    python recipes/benchmark_paper_step.py --naive    # the same step without the savings

``--naive`` computes the same losses with every saving switched off: up-sampling and pooling apart
from the convolutions, 1x1 shortcuts at the high resolution, all image heads, discriminator weight
gradients in the generator step, a double loop for the diversity, augmentation sample by sample and
scale by scale at full size, channels-first memory.

Expected: 30.9 GFLOP per step, naive 53.1. With ``--threads 1`` on one core of a busy AMD EPYC
0.39 to 0.63 s, naive 0.93 to 1.7 s. As many threads as cores need an idle machine: beside other
work their barriers make a step several times slower.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from recipe_options import positive, run_main
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from synthaug.gans.contract import PairBatch
from synthaug.gans.osmis import OSMIS, build_paper, size_rule
from synthaug.gans.osmis.networks import SpectralConv2d
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.diversity import Diversity

BATCH, HEIGHT, WIDTH, CLASSES = 5, 96, 160, 2


class Step:
    """One training step and what it needs."""

    def __init__(self, naive: bool, base: int) -> None:
        torch.manual_seed(0)
        self.naive = naive
        self.gan: OSMIS = build_paper(HEIGHT, WIDTH, CLASSES, max_size=WIDTH, base=base)
        self.augment = NaiveDiffAugment(p=0.7) if naive else DiffAugment(p=0.7)
        self.diversity = NaiveDiversity() if naive else Diversity()
        if naive:
            depth = size_rule(HEIGHT, WIDTH, WIDTH).depth
            self.gan.generator.scales = self.gan.scales = depth
            SpectralConv2d.forward = naive_convolution
        else:
            self.gan.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.gan.generator)
        G, D = self.gan.generator, self.gan.discriminator
        self.optimise_g = torch.optim.Adam(G.parameters(), 2e-4, betas=(0.5, 0.999))
        self.optimise_d = torch.optim.Adam(D.parameters(), 2e-4, betas=(0.5, 0.999))
        self.images = torch.rand(BATCH, 3, HEIGHT, WIDTH) * 2 - 1
        labels = torch.zeros(BATCH, HEIGHT, WIDTH, dtype=torch.long)
        labels[:, 30:60, 50:90] = 1
        self.masks = F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).float()

    def __call__(self) -> None:
        """Train the generator once, the discriminator once."""
        gan, D = self.gan, self.gan.discriminator
        D.requires_grad_(self.naive)
        fake = gan.generator(gan.latent(BATCH))
        terms = gan.generator_terms(self.augment.transform(fake), step=0)
        terms |= self.diversity.generator_terms(fake)
        self.optimise_g.zero_grad()
        torch.stack([term.mean() for term in terms.values()]).sum().backward()
        self.optimise_g.step()
        D.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(
                [*self.ema.parameters()], [*gan.generator.parameters()], weight=1e-4
            )
            fake = gan.generator(gan.latent(BATCH))
        real = self.augment.transform(gan.prepare(self.images, self.masks))
        terms = gan.discriminator_terms(real, self.augment.transform(fake), step=0)
        self.optimise_d.zero_grad()
        torch.stack([term.mean() for term in terms.values()]).sum().backward()
        self.optimise_d.step()


def naive_convolution(self: SpectralConv2d, x: Tensor) -> Tensor:
    """Resample, convolve, pool: one after the other, channels first."""
    x = x.contiguous()
    if self.resample == "up":
        x = F.interpolate(x, scale_factor=2.0)
    x = F.conv2d(x, self.weight, self.bias, padding=self.padding)
    return F.avg_pool2d(x, 2) if self.resample == "down" else x


class NaiveDiffAugment(DiffAugment):
    """Sample by sample, every scale brought to full size, transformed and brought back."""

    def transform(self, batch: PairBatch) -> PairBatch:
        """Transform all scales and the mask."""
        size = batch.images[0].shape[2:]
        full = [
            F.interpolate(image, size, mode="bilinear", align_corners=False)
            for image in batch.images
        ]
        theta = self._draw(batch.images[0])
        maps = [*full, batch.mask]
        for k, stack in enumerate(maps):
            samples = []
            for b in range(stack.shape[0]):
                grid = F.affine_grid(theta[b : b + 1], [1, 1, *size], align_corners=False)
                samples.append(
                    F.grid_sample(
                        stack[b : b + 1], grid, padding_mode="reflection", align_corners=False
                    )
                )
            maps[k] = torch.cat(samples)
        images = [
            F.interpolate(whole, image.shape[2:], mode="bilinear", align_corners=False)
            for whole, image in zip(maps, batch.images, strict=False)
        ]
        return batch.with_pair(images, maps[-1])


class NaiveDiversity(Diversity):
    """The same sum as a double loop over samples."""

    def generator_terms(self, fake: PairBatch) -> dict[str, Tensor]:
        """Return the batch's value for every sample."""
        L = len(fake.features)
        total = fake.images[0].new_zeros(())
        for feature in fake.features:
            for k in range(fake.batch_size):
                for m in range(k):
                    total = total + (feature[k].tanh() - feature[m].tanh()).abs().mean()
        return {"diversity": (-self.weight * 2 / (L * (L - 1)) * total).expand(fake.batch_size)}


def hardware() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else ())
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()} x {len(names) or '?'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--naive", action="store_true", help="without the savings")
    parser.add_argument("--base", type=positive, default=16, help="width; the published one is 32")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    step = Step(options.naive, options.base)
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(
        f"{'naive' if options.naive else 'synthaug'}: {statistics.median(seconds):.3f} s per step"
    )
    print(f"(fastest {min(seconds):.3f}, slowest {max(seconds):.3f}, {options.repeats} steps)")
    print(f"{counter.get_total_flops() / 1e9:.1f} GFLOP per step")
    print(f"{hardware()}, {options.threads} threads, torch {torch.__version__}")
    if hasattr(os, "getloadavg"):
        print(f"load average {os.getloadavg()[0]:.1f}: only an idle machine gives the step's cost")


if __name__ == "__main__":
    run_main(main)
