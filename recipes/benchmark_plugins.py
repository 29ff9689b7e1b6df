"""What does a plug-in cost? CPU seconds of a training step with each, over a step with none.

    python recipes/benchmark_plugins.py

The GANs are those of the presets: ``osmis`` fast on the pair of coins that comes with the package,
``stylegan2`` small on squares of it, 32 px, and ``stylegan2-masks`` the same while it learns masks.
After the regression that ``fast`` begins with, all rows take a step each in turn, ``--rounds``
times; a row's ratio is the median over the rounds. The probability that ``ada`` steers is set to a
half.

Hardware and result to expect: one CPU core, some four minutes; 1 to 1.1 times, ``medgan-regions``
1.6 to 1.9 times: the table of plug-ins in the README.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from recipe_options import Distinct, positive, run_main
from torch import Tensor

from synthaug import gans
from synthaug.config import FitConfig
from synthaug.demo import write_training_pair
from synthaug.engine import Engine
from synthaug.fitting.presets import make_plan
from synthaug.fitting.training_pairs import read_square_crops, read_training_pairs, training_tensors
from synthaug.gain.hardware import hardware
from synthaug.plugins.ada import ADA
from synthaug.plugins.named import NEEDS_MASKS, PLUGINS, REFUSED
from synthaug.sample import ClassMap
from synthaug.training import TrainingState, train

NONE = "none"
MASKED = "stylegan2-masks"
KINDS = ("osmis", "stylegan2", MASKED)
Data = tuple[Tensor, Tensor | None]


class Run:
    """A training with one plug-in, taken a step at a time."""

    def __init__(self, config: FitConfig, size: tuple[int, int], data: Data) -> None:
        classes = None if data[1] is None else 2
        plan = make_plan(config, size, classes, 1)
        torch.manual_seed(0)
        gan = gans.build(plan.gan)
        gan.initialise(*data)
        self.state, self.data = TrainingState(gan, plan.plugins(), plan.loop), data
        drawn = plan.gan.get("bernoulli_steps", 0)  # masks are drawn at first, and then learned
        self.state.step = gan.pretrain_steps + plan.gan.get("mask_from", 0) + drawn
        for plugin in self.state.plugins:
            if isinstance(plugin, ADA):
                plugin.meter.p.fill_(0.5)

    def step(self) -> float:
        """Train for a step; return its CPU seconds."""
        start = time.process_time()
        train(self.state, *self.data, Engine("cpu", 1, "32-true"), lambda _: True)
        return time.process_time() - start


def runs(kind: str, work: Path) -> Iterator[tuple[str, Run]]:
    """Begin a training without a plug-in, and one with each that the GAN takes."""
    image, mask = write_training_pair(work / "pair")
    gan = kind.removesuffix("-masks")
    config = FitConfig(generator=gan, accelerator="cpu", precision="32-true")
    if gan == "stylegan2":
        config = replace(config, max_size=32)
    if kind != "stylegan2":
        pairs, _ = read_training_pairs(image, mask, None, None)
        classes = ClassMap.from_masks([pairs[0].mask], "mask", 255)
        plan = make_plan(config, pairs[0].size, len(classes), 1)
        scale = gans.build(plan.gan).real_scale
        data = training_tensors(pairs, classes, plan.size, scale)
    else:
        mask.unlink()
        pairs, _ = read_square_crops(image.parent, 32, 0)
        data = training_tensors(pairs, None, (32, 32), 1)
    yield NONE, Run(config, pairs[0].size, data)
    for name in NEEDS_MASKS if kind == MASKED else PLUGINS:
        if (gan, name) not in REFUSED and not (name in NEEDS_MASKS and data[1] is None):
            with_it = replace(config, plugins=(name,))
            yield name, Run(with_it, pairs[0].size, data)


def table(kind: str, rounds: int, work: Path) -> str:
    """Time all rows of a GAN in turn."""
    begun = dict(runs(kind, work))
    seconds: dict[str, list[float]] = {name: [] for name in begun}
    for turn in range(rounds + 2):
        for name, run in begun.items():
            spent = run.step()
            if turn >= 2:  # the first are slower
                seconds[name].append(spent)
        print(f"{kind}: round {turn + 1}/{rounds + 2}", file=sys.stderr)
    lines = [f"| plug-in, {kind} | CPU s a step | over none |", "|---|---|---|"]
    for name, own in seconds.items():
        times = median(a / b for a, b in zip(own, seconds[NONE], strict=True))
        lines.append(f"| {name} | {median(own):.2f} | {times:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for every GAN."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gans", nargs="+", action=Distinct, choices=KINDS, default=KINDS)
    parser.add_argument("--rounds", type=positive, default=15)
    options = parser.parse_args(arguments)
    for kind in options.gans:
        with tempfile.TemporaryDirectory() as work:
            print(table(kind, options.rounds, Path(work)))
    print(", ".join(f"{key} {value}" for key, value in hardware().items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_main(main)
