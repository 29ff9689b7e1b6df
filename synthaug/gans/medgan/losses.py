"""MED-GAN's losses: plain functions of features and logits, and what they make of a step's batch.

Equations are those of the paper (`synthaug.gans.medgan`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.gans.regions import (
    IDENTIFICATION,
    MARGIN,
    box_masks,
    contrastive,
    feature_distance,
    looking_masks,
    mix,
    mixing_boxes,
    mixing_masks,
)


@dataclass(frozen=True)
class Weights:
    """Weights of the losses; a weight of 0 switches its loss off.

    Attributes:
        recognition: of the classifier's say in the generator's loss (eq. 7).
        consistency: of features under similar boxes (eq. 4).
        contrast: of real against generated features (eq. 5).
        identification: mu, of mixed pictures taken for real ones (eq. 11).
        margin: gamma of the contrast.
    """

    recognition: float = 1.0
    consistency: float = 1.0
    contrast: float = 1.0
    identification: float = IDENTIFICATION
    margin: float = MARGIN

    def without_regularisers(self) -> Weights:
        """Return the weights of the plain game: consistency, contrast, identification at 0."""
        return replace(self, consistency=0.0, contrast=0.0, identification=0.0)


@dataclass(frozen=True, eq=False)
class Draw:
    """What one step works on; samples are images (B, C, H, W) or points (B, d).

    Attributes:
        real: labelled samples.
        label: their classes, (B,) int64.
        unlabelled: real samples without a class.
        guess: what the classifier takes them for, (B,) int64.
        fake: generated samples.
        asked: classes that they were generated for, (B,) int64.
    """

    real: Tensor
    label: Tensor
    unlabelled: Tensor
    guess: Tensor
    fake: Tensor
    asked: Tensor

    @property
    def images(self) -> bool:
        """Whether there are places, and therefore boxes."""
        return self.real.ndim == 4


def mixed_cross_entropy(logits: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy (B,) of mixed pictures (eq. 9).

    Args:
        logits: (B, K) of the classifier.
        first: classes (B,) of what lies inside the box.
        second: classes of what lies outside.
        share: lambda (B,), the share that lies outside.
    """
    inside = F.cross_entropy(logits, first, reduction="none")
    return (1 - share) * inside + share * F.cross_entropy(logits, second, reduction="none")


def same_class_partners(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Draw another sample of the same class for every sample.

    Args:
        labels: (B,) int64.

    Returns:
        Indices (B,) int64, and (B,) bool: whether there is another one at all.
    """
    same = labels[:, None] == labels[None, :]
    same.fill_diagonal_(False)
    found = same.any(1)
    chances = torch.where(found[:, None], same, True).float()
    return torch.multinomial(chances, 1)[:, 0], found


def discriminator_terms(D: nn.Module, draw: Draw, weights: Weights) -> dict[str, Tensor]:
    """Loss terms (B,) of the discriminator (eq. 12), weights applied.

    Images are judged inside boxes. Points have no places: no boxes, and the contrast is between
    real samples of one class (or guess) and generated ones (section 5.2).

    Args:
        D: maps samples, masks (B, 1, H, W) or None, and classes (B,) to a `Verdict`.
        draw: fakes without gradient history.
        weights: of the regularisers.
    """
    samples = torch.cat([draw.real, draw.unlabelled, draw.fake])
    classes = torch.cat([draw.label, draw.guess, draw.asked])
    verdict = D(samples, _looks(samples), classes)
    real, unlabelled, fake = verdict.logits.chunk(3)
    terms = {
        "real": F.softplus(-real),
        "unlabelled": F.softplus(-unlabelled),
        "fake": F.softplus(fake),
    }
    if draw.images:
        return terms | _regional_terms(D, draw, weights)
    if weights.contrast > 0:
        features = verdict.features
        B = len(draw.real)
        partner, found = same_class_partners(classes[: 2 * B])
        anchor, generated = features[: 2 * B], features[2 * B :].repeat(2, 1)
        loss = contrastive(anchor, anchor[partner], generated, weights.margin) * found
        terms["contrast"] = weights.contrast * loss.view(2, B).mean(0)
    return terms


def _regional_terms(D: nn.Module, draw: Draw, weights: Weights) -> dict[str, Tensor]:
    """The terms that rest on pictures mixed from real and generated ones."""
    terms: dict[str, Tensor] = {}
    if max(weights.consistency, weights.contrast, weights.identification) <= 0:
        return terms
    m, m2 = mixing_masks(draw.real)
    mixed, mixed2 = (mix(draw.real, draw.fake, mask) for mask in (m, m2))
    verdict = D(
        torch.cat([mixed, mixed2, draw.real, draw.fake]),
        torch.cat([m, m2, m, m]),
        torch.cat([draw.label, draw.label, draw.label, draw.asked]),
    )
    of_mixed, of_mixed2, of_real, of_fake = verdict.features.chunk(4)
    if weights.consistency > 0:
        terms["consistency"] = weights.consistency * feature_distance(of_mixed, of_mixed2)
    if weights.contrast > 0:
        loss = contrastive(of_real, of_mixed, of_fake, weights.margin)
        terms["contrast"] = weights.contrast * loss
    if weights.identification > 0:
        terms["identification"] = weights.identification * F.softplus(-verdict.logits[: len(mixed)])
    return terms


def generator_terms(
    D: nn.Module, C: nn.Module, fake: Tensor, asked: Tensor, weights: Weights
) -> dict[str, Tensor]:
    """Loss terms (B,) of the generator (eq. 6 to 8), the adversarial one non-saturating."""
    terms = {"adversarial": F.softplus(-D(fake, _looks(fake), asked).logits)}
    if weights.recognition > 0:
        loss = F.cross_entropy(C(fake), asked, reduction="none")
        terms["recognition"] = weights.recognition * loss
    return terms


def classifier_terms(C: nn.Module, draw: Draw) -> dict[str, Tensor]:
    """Loss terms (B,) of the classifier (eq. 10): labelled samples mixed with the two others.

    Points are not mixed; either sample of a pair then counts half, the mean share of a box.
    """
    terms = {}
    others = {"fake": (draw.fake, draw.asked), "unlabelled": (draw.unlabelled, draw.guess)}
    for name, (sample, classes) in others.items():
        if draw.images:
            B, _, height, width = draw.real.shape
            mask = box_masks(mixing_boxes(B, height, width), height, width).to(sample.device)
            share = 1 - mask.mean((1, 2, 3))
            logits = C(mix(draw.real, sample, mask))
            terms[name] = mixed_cross_entropy(logits, draw.label, classes, share)
        else:
            pair = torch.cat([draw.real, sample]), torch.cat([draw.label, classes])
            loss = F.cross_entropy(C(pair[0]), pair[1], reduction="none")
            terms[name] = loss.view(2, -1).mean(0)
    return terms


def _looks(samples: Tensor) -> Tensor | None:
    """Masks of large boxes for images, None for points."""
    return looking_masks(samples) if samples.ndim == 4 else None
