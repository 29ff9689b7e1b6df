"""What the main process of a fit does between steps: log, draw samples, watch, save."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from synthaug.config.fit import FitConfig
from synthaug.errors import InputError
from synthaug.fitting.fit_folder import GRID_SAMPLES, FitFolder
from synthaug.fitting.monitoring import Monitor, Verdict
from synthaug.fitting.presets import Plan
from synthaug.generation import Generator
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import derive_seed
from synthaug.training import TrainingState

LOG_EVERY = 10


@dataclass
class Run:
    """What every process of a fit needs; the main process also writes."""

    target: FitFolder
    manifest: dict[str, Any]
    pairs: Sequence[Sample]
    classes: ClassMap | None
    plan: Plan
    config: FitConfig
    resume: bool


class Keeper:
    """Logs, draws, watches and saves, in the main process.

    Saving happens between steps and draws nothing from the training's random stream, so that a
    resumed run equals an uninterrupted one.
    """

    def __init__(self, run: Run, state: TrainingState, monitor: Monitor) -> None:
        self.run = run
        self.state = state
        self.monitor = monitor
        self.best: Verdict | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.best_step = 0
        self.metrics: list[dict[str, Any]] = []
        self.note = ""
        self._terms: dict[str, Tensor | float] = {}
        self._refreshed_at = self._snapshot_of = -1
        self._saved_at = time.monotonic()
        self._started = time.monotonic()

    def after_step(self, terms: dict[str, Tensor], *, last: bool, stop: bool) -> None:
        """Do what is due after a step.

        Raises:
            InputError: the training has diverged.
        """
        step, plan = self.state.step, self.run.plan
        self._terms |= terms  # some are due every few steps
        if step % LOG_EVERY == 0 or last:
            seconds = round(time.monotonic() - self._started, 3)
            values = {name: round(float(term), 5) for name, term in self._terms.items()}
            self._terms = {}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise self._diverged(f"the loss {name} is {value}")
            self.metrics.append({"step": step, "seconds": seconds, **values})
        if (step % plan.watch_every == 0 and step > self.state.gan.pretrain_steps) or last:
            self._watch()
        if step % plan.sample_every == 0 or last:
            self._draw()
        if last or stop or time.monotonic() - self._saved_at > self.run.config.checkpoint_s:
            self.save()

    def save(self) -> None:
        """Write metrics, the best snapshot so far, and the checkpoint."""
        self.run.target.write_metrics(self.metrics)
        weights = self.best_weights or self._averaged().state_dict()
        chosen = asdict(self.best) if self.best is not None else {}
        gan = self.state.gan
        lies_there = self.best_weights and self._snapshot_of == self.best_step
        if gan.keeps_discriminator or not lies_there:
            self.run.target.write_snapshot(
                weights,
                self.run.manifest,
                self.best_step or self.state.step,
                chosen,
                gan.discriminator.state_dict() if gan.keeps_discriminator else None,
            )
            self._snapshot_of = self.best_step
        self.run.target.write_checkpoint(
            {
                "training": self.state.state_dict(),
                "best": chosen,
                "best_step": self.best_step,
                "best_weights": self.best_weights,
                "terms": {name: float(term) for name, term in self._terms.items()},
            }
        )
        self._saved_at = time.monotonic()

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `save` wrote into the checkpoint."""
        self.best = Verdict(**checkpoint["best"]) if checkpoint["best"] else None
        self.best_step = int(checkpoint["best_step"])
        self.best_weights = dict(checkpoint["best_weights"])
        self._terms = dict(checkpoint.get("terms", {}))
        self.metrics = self.run.target.read_metrics(self.state.step)
        timed = (line["seconds"] for line in reversed(self.metrics) if "seconds" in line)
        self._started -= next(timed, 0.0)

    def _averaged(self) -> nn.Module:
        """The averaged generator, ready for use."""
        if self._refreshed_at != self.state.step:
            self.state.gan.refresh(self.state.ema)
            self._refreshed_at = self.state.step
        return self.state.ema

    def _watch(self) -> None:
        try:
            verdict = self.monitor.judge(self.state.gan, self._averaged())
        except InputError as error:
            raise self._diverged(str(error)) from error
        self.metrics.append({"step": self.state.step, **asdict(verdict)})
        self.note = f"quality {verdict.quality:.3f}, diversity {verdict.diversity:.2f}"
        best = self.best is None or verdict.score < self.best.score
        if self.run.plan.keep_best and best:
            self.best, self.best_step = verdict, self.state.step
            self.best_weights = self.state.averaged_weights()

    def _diverged(self, what: str) -> InputError:
        source = ", or another source" if self.run.config.source is not None else ""
        return InputError(
            f"training diverged at step {self.state.step}: {what}; fit again with another --seed "
            f"or --precision 32-true{source}"
        )

    def _draw(self) -> None:
        pair, ema = self.run.pairs[0], self._averaged()
        classes = self.run.classes
        grid = [(pair.image, pair.mask)]
        for index in range(GRID_SAMPLES):
            seed = derive_seed(self.run.config.seed, "grid", index)
            sample = Generator.draw(self.state.gan, ema, seed, pair.size, classes, pair.grey)
            grid.append((sample.image, sample.mask))
        self.run.target.write_grid(grid, self.state.step)
