"""OASIS' losses: class-balanced (N + 1)-way cross-entropy per pixel, and LabelMix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FAKE = 0
FIRST_CLASS = 2
"""Logit of class 0; between it and the fake one lies the logit that is never a target."""
NO_TARGET = -100


def class_weights(labels: Tensor, num_classes: int, largest: float | None = None) -> Tensor:
    """Return each class's weight: its share of the pixels, inverted, over the number of classes.

    A class of n pixels out of B H W gets B H W / (K n), K the classes present, so that every one
    of them moves the mean over all pixels alike. The paper's alpha (eq. 2) lacks the 1 / K and is
    taken over the whole batch; this is over the batch of one process, as in the released code.

    Args:
        labels: (B, H, W) int64 in [0, N), -1 without a label.
        num_classes: N.
        largest: cap of the weights; None as published. A handful of pixels of a rare class would
            otherwise outweigh thousands of others.

    Returns:
        (N,) float; 0 for absent classes, and for all of them where nothing is labelled.
    """
    slots = labels.flatten() + 1
    count = torch.zeros(num_classes + 1, dtype=torch.int64, device=labels.device)
    count = count.scatter_add_(0, slots, torch.ones_like(slots))[1:].float()  # no wait for a GPU
    present = count > 0
    weights = labels.numel() / (present.sum().clamp_min(1) * count.clamp_min(1)) * present
    return weights if largest is None else weights.clamp_max(largest)


def balanced_cross_entropy(
    logits: Tensor, labels: Tensor, largest: float | None = None, *, balance: bool = True
) -> Tensor:
    """Cross-entropy of the labelled classes, balanced over the batch.

    Args:
        logits: (B, N + 2, H, W).
        labels: (B, H, W) int64 in [0, N), -1 without a label: such pixels count nothing.
        largest: see `class_weights`.
        balance: False weighs every labelled pixel 1.

    Returns:
        (B,); its mean is (1 / K) x the sum over the K classes present of the mean cross-entropy
        of their pixels.
    """
    target = torch.where(labels < 0, NO_TARGET, labels + FIRST_CLASS)
    loss = F.cross_entropy(logits, target, ignore_index=NO_TARGET, reduction="none")
    if balance:
        weights = class_weights(labels, logits.shape[1] - FIRST_CLASS, largest)
        loss = loss * weights[labels.clamp_min(0)]
    return loss.mean((1, 2))


def fake_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy (B,) of calling every pixel of (B, N + 2, H, W) fake, labelled or not."""
    return torch.logsumexp(logits, 1).sub(logits[:, FAKE]).mean((1, 2))


@torch.no_grad()
def realness(logits: Tensor) -> Tensor:
    """Return one score (B,) per picture: the mean over pixels of "any class" against "fake"."""
    classes = torch.logsumexp(logits[:, FIRST_CLASS:].float(), 1)
    return classes.sub(logits[:, FAKE]).mean((1, 2))


def labelmix_mask(labels: Tensor, num_classes: int) -> Tensor:
    """Toss a fair coin for every class of every picture: real pixels or fake ones?

    The paper's reading (section 3.1, figure 4). The released code tosses once per class for the
    whole batch, and where the labels 0 and 1 both occur its relabelling in place makes class 0
    real in a quarter of the cases only.

    Args:
        labels: (B, H, W) int64 in [0, N), -1 without a label, which is tossed for like a class.
        num_classes: N.

    Returns:
        (B, 1, H, W) float, 1 where the real picture shows.
    """
    B, H, W = labels.shape
    coins = (torch.rand(B, num_classes + 1, device=labels.device) < 0.5).float()
    return coins.gather(1, (labels + 1).flatten(1)).view(B, 1, H, W)


def mixing_loss(mixed: Tensor, real: Tensor, fake: Tensor, mask: Tensor) -> Tensor:
    """LabelMix consistency (B,): mean squared distance to the mixture of the two judgements.

    The paper (eq. 4) takes the squared norm, the released code the mean over elements as here.

    Args:
        mixed: logits (B, N + 2, H, W) of the mixed pictures.
        real: logits of the real ones.
        fake: logits of the fake ones.
        mask: (B, 1, H, W), 1 where the real picture shows.
    """
    return (mixed - torch.lerp(fake, real, mask)).square().mean((1, 2, 3))
