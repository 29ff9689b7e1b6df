"""Losses of OSMIS (and of SIV-GAN, its mask-free form): what one judgement costs each player.

The terms follow the released implementation where it and the thesis (chapters 5 and 6) disagree;
`synthaug.gans.osmis` lists the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three parts of the discriminator.

    The loss of a part is the sum over its layers times ``weight / (low + content layers)``.
    """

    low: float = 1.0
    content: float = 0.5
    layout: float = 0.5


@dataclass(frozen=True)
class OsmisOptions:
    """Switches between our behaviour (the defaults) and that of the released implementation.

    Attributes:
        exclude_absent: leave (sample, class) pairs without a pixel out of the discriminator's
            object loss. Without it their all-zero vectors count as real examples of the class.
            The generator always keeps them: the gradient through the soft mask is what can bring
            a lost class back.
        generator_area_weights: weight classes by inverse area in the generator's loss as well
            (the released code); off: in the real loss only (the thesis).
        fire_per_sample: draw per sample or pair whether a feature augmentation fires; off: once
            per batch.
        swap_content: exchange content channels between the two samples of a pair; off: copy in
            one direction only.
        augment_features: probability of each feature augmentation.
    """

    exclude_absent: bool = True
    generator_area_weights: bool = True
    fire_per_sample: bool = True
    swap_content: bool = True
    augment_features: float = 0.4

    @classmethod
    def paper_code(cls) -> OsmisOptions:
        """Return the behaviour of the released implementation."""
        return cls(exclude_absent=False, fire_per_sample=False, swap_content=False)


@dataclass(eq=False)
class Judgement:
    """The logits of one discriminator pass over B pairs with N classes.

    Attributes:
        low: patch logits of the low-level blocks, each (B, 1, h, w).
        content: logits of the content or object branch, each (N, B, K). With masks K = N + 1:
            entry [i, b] classifies the features under class i of sample b, index N means fake.
            Without masks N = K = 1: one real/fake logit per sample.
        layout: logits of the layout branch, each (B, 1, h, w).
        presence: (N, B) bool, whether class i has a pixel in sample b of the mask as the
            discriminator used it; None without masks.
        areas: (N, B) float without gradient, pixel count of the classes (soft masks count
            fractions; any unit); None without masks.
    """

    low: Sequence[Tensor]
    content: Sequence[Tensor]
    layout: Sequence[Tensor]
    presence: Tensor | None = None
    areas: Tensor | None = None


def straight_through_mask(soft: Tensor, step: int, warmup_steps: int) -> Tensor:
    """Make a soft mask hard on the way forward and leave its gradient untouched.

    For the first ``warmup_steps`` steps every entry is a Bernoulli draw of its probability,
    independent across classes, so a pixel may show none or several; afterwards the one-hot argmax.

    Args:
        soft: (B, N, H, W) class probabilities.
        step: iteration of the training.
        warmup_steps: length of the Bernoulli phase in iterations.

    Returns:
        (B, N, H, W) with values in {0, 1} and the gradient of ``soft``.
    """
    probabilities = soft.detach()
    if step < warmup_steps:
        hard = torch.bernoulli(probabilities.clamp(0.001, 0.999))
    else:
        hard = torch.zeros_like(probabilities)
        hard.scatter_(1, probabilities.argmax(1, keepdim=True), 1.0)
    return hard + (soft - probabilities)


def class_weights(areas: Tensor) -> Tensor:
    """Return weights (N,) inverse to the classes' areas (N, B) over the batch; they sum to 1.

    A class without area in the whole batch gets 0.
    """
    area = areas.sum(1)
    inverse = torch.where(area > 0, area.sum() / area.clamp_min(1e-12), 0.0)
    return inverse / inverse.sum().clamp_min(1e-12)


def discriminator_terms(
    real: Judgement,
    fake: Judgement,
    weights: LossWeights = LossWeights(),
    options: OsmisOptions = OsmisOptions(),
) -> dict[str, Tensor]:
    """Return the discriminator's loss terms (B,): real towards real, fake towards fake.

    Args:
        real: judgement of B real pairs.
        fake: judgement of B generated pairs.
        weights: weights of the parts.
        options: behaviour switches.

    Returns:
        ``low_real low_fake content_real content_fake layout_real layout_fake``, each (B,).
    """
    low, content, layout = _layer_weights(real, weights)
    called = real_terms(real, weights, options)
    return {
        "low_real": called["low_real"],
        "low_fake": low * _binary(fake.low, -1),
        "content_real": called["content_real"],
        "content_fake": content * _objects_as_fake(fake, options.exclude_absent),
        "layout_real": called["layout_real"],
        "layout_fake": layout * _binary(fake.layout, -1),
    }


def real_terms(
    real: Judgement,
    weights: LossWeights = LossWeights(),
    options: OsmisOptions = OsmisOptions(),
) -> dict[str, Tensor]:
    """Return the discriminator's terms ``low_real content_real layout_real`` alone, each (B,)."""
    low, content, layout = _layer_weights(real, weights)
    return {
        "low_real": low * _binary(real.low, 1),
        "content_real": content * _objects_as_classes(real, options.exclude_absent, True),
        "layout_real": layout * _binary(real.layout, 1),
    }


def generator_terms(
    fake: Judgement,
    weights: LossWeights = LossWeights(),
    options: OsmisOptions = OsmisOptions(),
) -> dict[str, Tensor]:
    """Return the generator's non-saturating loss terms ``low content layout``, each (B,)."""
    low, content, layout = _layer_weights(fake, weights)
    return {
        "low": low * _binary(fake.low, 1),
        "content": content * _objects_as_classes(fake, False, options.generator_area_weights),
        "layout": layout * _binary(fake.layout, 1),
    }


@torch.no_grad()
def realness(judgement: Judgement, weights: LossWeights = LossWeights()) -> Tensor:
    """Return one score (B,) per sample: the mean of all heads' logits, weighted as in the loss.

    Patch logits are averaged over positions. The logit of an object is that of "one of the N
    classes" against "fake", averaged over the classes with a pixel.
    """

    def patches(layers: Sequence[Tensor]) -> Tensor:
        return torch.stack([layer.float().flatten(1).mean(1) for layer in layers]).sum(0)

    if judgement.presence is None:
        content = torch.stack([layer[0, :, 0].float() for layer in judgement.content]).sum(0)
    else:
        logits = torch.stack(list(judgement.content)).float()  # (L, N, B, N + 1)
        objects = (logits[..., :-1].logsumexp(3) - logits[..., -1]).sum(0)  # (N, B)
        present = judgement.presence.float()
        content = (objects * present).sum(0) / present.sum(0).clamp_min(1)
    total = weights.low * patches(judgement.low) + weights.content * content
    total = total + weights.layout * patches(judgement.layout)
    layers = weights.low * len(judgement.low) + weights.content * len(judgement.content)
    return total / (layers + weights.layout * len(judgement.layout))


def _layer_weights(judgement: Judgement, weights: LossWeights) -> tuple[float, float, float]:
    layers = len(judgement.low) + len(judgement.content)
    return weights.low / layers, weights.content / layers, weights.layout / layers


def _binary(layers: Sequence[Tensor], sign: int) -> Tensor:
    """Cross-entropy of logits with target real (+1) or fake (-1): mean inside, sum over layers."""
    return torch.stack([F.softplus(-sign * layer).flatten(1).mean(1) for layer in layers]).sum(0)


def _cross_entropy(judgement: Judgement, target: Tensor) -> Tensor:
    """Cross-entropy with one class per object row, (N, B), summed over layers."""
    rows = [
        -F.log_softmax(layer, 2).gather(2, target.expand(-1, layer.shape[1])[..., None])[..., 0]
        for layer in judgement.content
    ]
    return torch.stack(rows).sum(0)


def _objects_as_classes(judgement: Judgement, exclude_absent: bool, by_area: bool) -> Tensor:
    """Each object as its class: sum over classes of weight times mean over samples; (B,)."""
    if judgement.presence is None or judgement.areas is None:
        return torch.stack([F.softplus(-layer[0, :, 0]) for layer in judgement.content]).sum(0)
    N, B = judgement.presence.shape
    target = torch.arange(N, device=judgement.presence.device)[:, None]
    loss = _cross_entropy(judgement, target)  # (N, B)
    alpha = class_weights(judgement.areas) if by_area else loss.new_full((N,), 1 / N)
    if exclude_absent:
        present = judgement.presence.to(loss.dtype)
        loss = loss * present * (B / present.sum(1, keepdim=True).clamp_min(1))
    return (alpha[:, None] * loss).sum(0)


def _objects_as_fake(judgement: Judgement, exclude_absent: bool) -> Tensor:
    """Each object as fake: mean over classes and samples; (B,)."""
    if judgement.presence is None:
        return torch.stack([F.softplus(layer[0, :, 0]) for layer in judgement.content]).sum(0)
    N, B = judgement.presence.shape
    loss = _cross_entropy(
        judgement, torch.full_like(judgement.presence[:, :1], N, dtype=torch.long)
    )
    if not exclude_absent:
        return loss.mean(0)
    present = judgement.presence.to(loss.dtype)
    return (loss * present).sum(0) * (B / present.sum().clamp_min(1))
