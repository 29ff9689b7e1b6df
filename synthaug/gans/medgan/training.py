"""MED-GAN's own loop.

`synthaug.training` trains two players on pictures of one kind. Here are three, and labelled,
unlabelled and generated samples in every step; the classifier's guesses feed the discriminator,
and both teach the generator. A class for the third player in the one loop would serve nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.gans.medgan.losses import (
    Draw,
    Weights,
    classifier_terms,
    discriminator_terms,
    generator_terms,
)
from synthaug.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class Players:
    """The three networks, on one device.

    Attributes:
        generator: maps z (B, latent_dim) and classes (B,) to samples.
        discriminator: maps samples, masks or None, and classes to a `networks.Verdict`.
        classifier: maps samples to logits (B, K).
        latent_dim: length of z.
        classes: K.
    """

    generator: nn.Module
    discriminator: nn.Module
    classifier: nn.Module
    latent_dim: int
    classes: int


@dataclass(frozen=True)
class Settings:
    """How to train (section 5.1).

    Attributes:
        steps: one step of each player.
        batch_size: labelled, unlabelled and generated samples per step, as many of each
            (published: 50, 16 and 32).
        lr: Adam's learning rate of the classifier, and of the others unless they have their own.
        lr_generator: of the generator; None = ``lr``, as published.
        lr_discriminator: of the discriminator; None = ``lr``, as published. On few images it has to
            learn faster than the generator, or samples of a class become all alike.
        betas: Adam's betas.
        weights: of the losses.
        supervised_steps: steps at the start in which the classifier learns from labelled samples
            alone, and nobody else learns.
        seed: every draw of step t follows from (seed, t).
    """

    steps: int
    batch_size: int = 50
    lr: float = 2e-4
    lr_generator: float | None = None
    lr_discriminator: float | None = None
    betas: tuple[float, float] = (0.0, 0.999)
    weights: Weights = field(default_factory=Weights)
    supervised_steps: int = 0
    seed: int = 0


def train(
    players: Players,
    labelled: tuple[Tensor, Tensor],
    unlabelled: Tensor,
    settings: Settings,
    after_step: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> None:
    """Train the three players together, in place.

    One step: seed torch from (seed, step); draw samples, guess classes of the unlabelled ones,
    generate; discriminator, classifier, generator descend in this order, the generator on the
    samples that the other two just saw. The classifier is in training mode only where it learns.

    Args:
        players: the networks.
        labelled: samples (n, ...), floating, images in [-1, 1], and their classes (n,) int64.
        unlabelled: samples (m, ...) of the same shape.
        settings: of the training.
        after_step: called with the step's number, from 1, and the mean of every loss term.

    Raises:
        InputError: no samples of a kind, or of another type or shape; other classes; or no steps
            or batch.
    """
    samples, labels = labelled
    _check(samples, labels, unlabelled, players.classes, settings)
    G, D, C = players.generator, players.discriminator, players.classifier
    rates = (settings.lr_generator, settings.lr_discriminator, settings.lr)
    of_g, of_d, of_c = (
        torch.optim.Adam(
            net.parameters(),
            lr=settings.lr if rate is None else rate,
            betas=settings.betas,
            fused=True,
        )
        for net, rate in zip((G, D, C), rates, strict=True)
    )
    B, device = settings.batch_size, samples.device
    G.train()
    D.train()
    for step in range(settings.supervised_steps + settings.steps):
        torch.manual_seed(derive_seed(settings.seed, "medgan", step))
        pick = torch.randint(len(samples), (B,), device=device)
        real, label = samples[pick], labels[pick]
        C.train()
        if step < settings.supervised_steps:
            terms = {"c/labelled": nn.functional.cross_entropy(C(real), label, reduction="none")}
            _descend(of_c, terms)
        else:
            others = unlabelled[torch.randint(len(unlabelled), (B,), device=device)]
            asked = torch.randint(players.classes, (B,), device=device)
            fake = G(torch.randn(B, players.latent_dim, device=device), asked)
            guess = _guess(C, others)
            draw = Draw(real, label, others, guess, fake.detach(), asked)
            d_terms = discriminator_terms(D, draw, settings.weights)
            _descend(of_d, d_terms)
            C.train()
            c_terms = classifier_terms(C, draw)
            _descend(of_c, c_terms)
            C.eval()
            for net in (D, C):
                net.requires_grad_(False)
            g_terms = generator_terms(D, C, fake, asked, settings.weights)
            for net in (D, C):
                net.requires_grad_(True)
            _descend(of_g, g_terms)
            named = {"d": d_terms, "c": c_terms, "g": g_terms}
            terms = {f"{key}/{n}": term for key, part in named.items() for n, term in part.items()}
        if after_step is not None:
            after_step(step + 1, {name: term.detach().mean() for name, term in terms.items()})


def _check(
    samples: Tensor, labels: Tensor, unlabelled: Tensor, classes: int, settings: Settings
) -> None:
    if not len(samples) or not len(unlabelled):
        raise InputError("MED-GAN trains on labelled and unlabelled samples: give some of both")
    if not samples.is_floating_point() or not unlabelled.is_floating_point():
        kinds = f"{samples.dtype} and {unlabelled.dtype}"
        raise InputError(f"MED-GAN: samples are {kinds}: give floats, of images in [-1, 1]")
    if samples.shape[1:] != unlabelled.shape[1:]:
        shapes = f"{tuple(samples.shape[1:])} and {tuple(unlabelled.shape[1:])}"
        raise InputError(f"MED-GAN: samples are of shapes {shapes}: bring them to one")
    if labels.shape != samples.shape[:1] or labels.dtype != torch.int64:
        found = f"{tuple(labels.shape)} {labels.dtype}"
        raise InputError(f"MED-GAN: classes are {found}: give ({len(samples)},) torch.int64")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(f"MED-GAN: classes must be 0 to {classes - 1}")
    steps, first = settings.steps, settings.supervised_steps
    if steps < 0 or first < 0 or steps + first < 1 or settings.batch_size < 1:
        raise InputError(
            f"MED-GAN: {steps} steps after {first} supervised ones in batches of "
            f"{settings.batch_size}: there must be some of both"
        )


@torch.no_grad()
def _guess(C: nn.Module, samples: Tensor) -> Tensor:
    """Classes (B,) that the classifier takes samples for, as it does in use."""
    C.eval()
    guess: Tensor = C(samples).argmax(1)
    return guess


def _descend(optimizer: torch.optim.Optimizer, terms: dict[str, Tensor]) -> None:
    loss = torch.stack([term.mean() for term in terms.values()]).sum()
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()
