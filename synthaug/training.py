"""FIT: the one training loop. It knows the GAN contract and the plug-in hooks, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.gans.contract import GAN, PairBatch, Terms, prefixed
from synthaug.plugins.hooks import Plugin
from synthaug.seeding import derive_seed


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs beside the GAN and its plug-ins.

    Attributes:
        iterations: number of steps.
        batch_size: pairs per step over all processes.
        lr_generator: Adam's learning rate of the generator.
        lr_discriminator: Adam's learning rate of the discriminator.
        lr_pretrain: learning rate of the generator in the GAN's pre-training steps.
        betas: Adam's betas.
        ema: decay of the averaged generator per step, but at most (step + 1) / (step + 10), which
            is less than .9999 for the first 90,000 steps; buffers are copied.
        share_fakes: the discriminator's fakes serve the generator's step as well; off: fresh
            latents, as published.
        seed: every draw of step t in process r follows from (seed, r, t).
    """

    iterations: int
    batch_size: int
    lr_generator: float
    lr_discriminator: float
    lr_pretrain: float
    betas: tuple[float, float]
    ema: float
    share_fakes: bool
    seed: int


class TrainingState:
    """Everything that changes while training, and therefore everything a checkpoint holds.

    Args:
        gan: the GAN, on its device.
        plugins: the plug-ins in the order in which they act.
        settings: the loop's settings.

    Raises:
        InputError: a plug-in needs one score per sample, and the GAN tells none.
    """

    def __init__(self, gan: GAN, plugins: Sequence[Plugin], settings: LoopSettings) -> None:
        self.gan = gan
        self.plugins = list(plugins)
        self.settings = settings
        self.scoring = [plugin for plugin in self.plugins if plugin.needs_scores]
        self.corrupting = [p for p in self.plugins if type(p).corrupt is not Plugin.corrupt]
        if self.scoring and not gan.scores_samples:
            raise InputError(
                f"the plug-in {self.scoring[0].name} needs one score per sample, which "
                f"{type(gan).__name__} does not tell: leave it out"
            )
        for plugin in self.plugins:
            plugin.attach(gan)
        shared: dict[int, Any] = {id(constant): constant for constant in gan.constants()}
        self.ema = copy.deepcopy(gan.generator, shared).requires_grad_(False).eval()
        self.optimizer_g = _adam(gan.generator, settings.lr_generator, settings.betas)
        self.optimizer_d = _adam(gan.discriminator, settings.lr_discriminator, settings.betas)
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values only: loads with ``weights_only=True``."""
        return {
            "step": self.step,
            "gan": self.gan.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "plugins": {plugin.name: plugin.state_dict() for plugin in self.plugins},
        }

    def averaged_weights(self) -> dict[str, Tensor]:
        """Return a copy of the EMA's state dict; what the generator shares with it is no copy."""
        current = self.gan.generator.state_dict()
        return {
            name: value if value.data_ptr() == current[name].data_ptr() else value.clone()
            for name, value in self.ema.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, strictly."""
        self.step = int(state["step"])
        self.gan.load_state_dict(state["gan"], strict=True)
        self.ema.load_state_dict(state["ema"], strict=True)
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        for plugin in self.plugins:
            plugin.load_state_dict(state["plugins"][plugin.name], strict=True)


def train(
    state: TrainingState,
    images: Tensor,
    masks: Tensor | None,
    engine: Engine,
    after_step: Callable[[dict[str, Tensor]], bool],
) -> None:
    """Train until the last iteration, or until ``after_step`` says stop.

    One step, in order:

    1. tell the GAN; seed torch from (seed, process, step); pick real pairs;
    2. generate fakes; in the GAN's pre-training steps go to 5 with its own terms;
    3. transform real and fake alike, corrupt the images, let the GAN look at them (a GAN that
       paints masks is given those of transformed real pairs, so that what it paints is aligned
       with them as it is);
    4. discriminator step on detached fakes, plug-ins may add terms; they observe the scores of
       the real pairs;
    5. generator step (discriminator frozen) on the same fakes, or fresh ones; plug-ins weigh the
       samples in the adversarial terms, and add terms;
    6. plug-ins adapt; average the generator (EMA) and what processes estimate; hand the terms to
       ``after_step``.

    Args:
        state: continues at ``state.step``.
        images: (P, 3, H, W) in [-1, 1], all real pictures, on the device or the CPU.
        masks: beside them, (P, N, H, W) one-hot, zero where ignored, or (P, H, W) indices for a
            GAN that paints masks, or (P,) classes of whole pictures; None without any.
        engine: device, precision and the other processes.
        after_step: called with the mean of every loss term; True stops the training.
    """
    gan, settings = state.gan, state.settings
    share = max(1, settings.batch_size // engine.world_size)
    gan.train()
    while state.step < settings.iterations:
        gan.before_step(state.step, state.ema)
        torch.manual_seed(derive_seed(settings.seed, "fit", engine.rank, state.step))
        pick = _pick(len(images), share).to(images.device)
        chosen = (
            images[pick].to(engine.device),
            None if masks is None else masks[pick].to(engine.device),
        )
        pretraining = state.step < gan.pretrain_steps
        with engine.autocast():
            real = _transform(state, gan.prepare(*chosen)) if gan.paints_masks else None
            with torch.set_grad_enabled(pretraining or settings.share_fakes):
                fake = _generate(state, share, engine, real)
            if pretraining:
                terms = prefixed("pretrain", gan.pretrain_terms(fake))
            else:
                if real is None:
                    real = _transform(state, gan.prepare(*chosen))
                seen_real, seen = _see(state, real), _look(state, fake)
                shown = seen_real, seen.detach()
                d_terms = gan.discriminator_terms(*shown, state.step)
                for plugin in state.plugins:
                    d_terms |= plugin.discriminator_terms(gan, *shown, state.step)
                _descend(state.optimizer_d, gan.discriminator, d_terms, engine)
                _observe(state, d_terms, engine)
                if not settings.share_fakes:
                    fake = _generate(state, share, engine, real)
                    seen = _look(state, fake)
                gan.discriminator.requires_grad_(False)
                g_terms = _select(state, gan.generator_terms(seen, state.step))
                g_terms |= gan.layout_terms(fake)
                for plugin in state.plugins:
                    g_terms |= plugin.generator_terms(fake)
                gan.discriminator.requires_grad_(True)
                terms = prefixed("d", d_terms)
        rate = settings.lr_pretrain if pretraining else settings.lr_generator
        for group in state.optimizer_g.param_groups:
            group["lr"] = rate
        if pretraining:
            _descend(state.optimizer_g, gan.generator, terms, engine)
        else:
            _descend(state.optimizer_g, gan.generator, g_terms, engine)
            terms |= prefixed("g", g_terms)
            for plugin in state.plugins:
                plugin.adapt()
        _average(state)
        for estimate in gan.estimates():
            estimate.copy_(engine.gather(estimate.reshape(1)).mean())
        state.step += 1
        if after_step({name: term.detach().mean() for name, term in terms.items()}):
            return


def _pick(pairs: int, share: int) -> Tensor:
    """Draw the pairs of a batch, none twice where there are enough.

    A discriminator that looks at the whole batch would learn that repeats are real.
    """
    if share <= pairs:
        return torch.randperm(pairs)[:share]
    return torch.randint(pairs, (share,))


def _generate(
    state: TrainingState, batch_size: int, engine: Engine, real: PairBatch | None
) -> PairBatch:
    gan = state.gan
    if real is None or not gan.paints_masks:
        fake: PairBatch = gan.generator(gan.latent(batch_size).to(engine.device))
        return fake
    painted: PairBatch = gan.generator(gan.latent_for(real, state.step), real.mask)
    return replace(painted, layout=(real.images[0], None))


def _look(state: TrainingState, fake: PairBatch) -> PairBatch:
    if not state.gan.paints_masks:
        fake = _transform(state, fake)
    return _see(state, fake)


def _see(state: TrainingState, batch: PairBatch) -> PairBatch:
    """Corrupt transformed pairs at the samples' size, then let the GAN look at them."""
    if state.corrupting:
        batch = state.gan.to_sample_size(batch)
        for plugin in state.corrupting:
            batch = plugin.corrupt(batch)
    return state.gan.look(batch, state.step)


def _observe(state: TrainingState, terms: dict[str, Tensor], engine: Engine) -> None:
    if state.scoring:
        assert isinstance(terms, Terms)
        scores = engine.gather(terms.realness())
        for plugin in state.scoring:
            plugin.observe(scores)


def _select(state: TrainingState, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weigh the samples in the adversarial terms as the plug-ins say."""
    if not state.scoring:
        return terms
    assert isinstance(terms, Terms)
    scores, selected = terms.realness(), dict(terms)
    for plugin in state.scoring:
        weights = plugin.select(scores)
        if weights is not None:
            for name in terms.keys() - terms.beside:
                selected[name] = selected[name] * weights
    return selected


def _transform(state: TrainingState, batch: PairBatch) -> PairBatch:
    for plugin in state.plugins:
        batch = plugin.transform(batch)
    return batch


def _descend(
    optimizer: torch.optim.Optimizer, module: nn.Module, terms: dict[str, Tensor], engine: Engine
) -> None:
    """One optimiser step down the sum of the terms' means over the batch."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(engine.device.type, enabled=False):
        loss = torch.stack([term.float().mean() for term in terms.values()]).sum()
        torch.autograd.backward(loss)
    engine.average_gradients(module)
    optimizer.step()
    # Autocast keeps the weights that it has cast: they are old now. And older versions of torch
    # take what was cast for fakes without gradient for the generator's step too, which then
    # leaves the generator as it is.
    torch.clear_autocast_cache()


@torch.no_grad()
def _average(state: TrainingState) -> None:
    """Move the EMA towards the generator; buffers are copied."""
    decay = min(state.settings.ema, (state.step + 1) / (state.step + 10))
    averaged: list[Tensor] = list(state.ema.parameters())
    current: list[Tensor] = list(state.gan.generator.parameters())
    torch._foreach_lerp_(averaged, current, 1 - decay)
    for target, source in zip(state.ema.buffers(), state.gan.generator.buffers(), strict=True):
        if target is not source:
            target.copy_(source)


def _adam(module: nn.Module, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=lr, betas=betas, foreach=True)
