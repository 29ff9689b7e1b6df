"""TRAIN: few-shot segmentation without training a network, after RePRI."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.errors import InputError
from synthaug.sample import ClassMap
from synthaug.segmenters.contract import Stream
from synthaug.segmenters.pixel_features import PixelFeatures, distinct_items, enlarged, flat

_SHARPNESS = 20.0  # the paper's temperature of the cosine classifier
_EPSILON = 1e-6


class RegionProportionLearner:
    """A pixel classifier fitted on the support items and adapted to every query image.

    Features are frozen. A pixel's logit is 0 for the background and 20 (cos(feature, prototype) -
    bias) for an object class, which for one object is the paper's sigmoid classifier. `learn`
    starts the prototypes at the classes' mean features and fits them by cross-entropy, every pixel
    weighted by its item's weight and the inverse frequency of its class: without that, small
    objects vanish while adapting. `segment` goes on from there for each image with the support's
    cross-entropy, the entropy of the query's pixels, and the divergence of the query's class
    proportions from an estimate, which is taken before the first step and again after a third.

    Source: Boudiaf et al. 2021, arXiv:2012.06166; class weights and several classes are ours.

    Args:
        num_classes: number of classes N, background (channel 0) included.
        size: (height, width) in px in which images are looked at; None = each image's own.
        steps: fitting steps on the support.
        query_steps: steps per query image.
        lr: learning rate of both.
        batches: batches of the stream that make the support.
        support: most support items.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: tuple[int, int] | None = None,
        steps: int = 100,
        query_steps: int = 30,
        lr: float = 0.01,
        batches: int = 4,
        support: int = 32,
    ) -> None:
        self.num_classes = num_classes
        self.size = size
        self.steps = steps
        self.query_steps = query_steps
        self.lr = lr
        self.batches = batches
        self.support = support
        self._net = PixelFeatures()
        self._shots = 1

    def learn(
        self,
        stream: Stream,
        classes: ClassMap,
        *,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """Fit the classifier on the stream's first batches; the seed has nothing to decide.

        Raises:
            InputError: none of those items has a weight and a labelled pixel.
        """
        items = distinct_items(stream, self.batches, self.support)
        if not items:
            raise InputError("the first batches have no item with a weight: give some weight > 0")
        with torch.no_grad():
            self._features, self._labels, self._weights = self._net.of_items(
                items, classes, self.size
            )
        if len(self._features) == 0:
            raise InputError("no pixel of the first batches is labelled: check the masks' ids")
        self._shots = len(items)
        share = self._labels * self._weights[:, None]  # (M, N)
        means = share.T @ self._features / share.sum(0).clamp(min=_EPSILON)[:, None]
        similar = self._features @ torch.nn.functional.normalize(means[1:], dim=1).T
        middle = (
            0.5
            * (  # halfway between the object's own and all other pixels
                (similar * share[:, 1:]).sum(0) / share[:, 1:].sum(0).clamp(min=_EPSILON)
                + (similar * (self._weights[:, None] - share[:, 1:])).sum(0)
                / (self._weights[:, None] - share[:, 1:]).sum(0).clamp(min=_EPSILON)
            )
        )
        self._start = (means[1:], middle)
        frequency = share.sum(0) / share.sum()
        self._balance = 1 / frequency.clamp(min=_EPSILON)
        losses = torch.zeros(self.steps, device=self._features.device)
        parameters = [p.clone().requires_grad_() for p in self._start]
        optimiser = torch.optim.Adam(parameters, lr=self.lr)
        for step in range(self.steps):
            loss = self._support_loss(*parameters)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses[step] = loss.detach()
            if progress is not None:
                progress(step + 1, self.steps)
        self._start = (parameters[0].detach(), parameters[1].detach())
        return losses.tolist()

    def segment(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
        """Adapt to each image alone; returns class channels (H, W) int64 at its own size."""
        maps = []
        for image in images:
            with torch.no_grad():
                features = self._net.of_image(image, self.size)
            parameters = self._adapt(flat(features))
            with torch.no_grad():
                logits = _logits(flat(features), *parameters)
                grid = (features.shape[2], features.shape[3])
                maps.append(enlarged(logits, grid, image).argmax(0).numpy())
        return maps

    def _adapt(self, query: Tensor) -> list[Tensor]:
        parameters = [p.clone().requires_grad_() for p in self._start]
        optimiser = torch.optim.Adam(parameters, lr=self.lr)
        proportion = torch.empty(0)
        weight = 1 / self._shots
        for step in range(self.query_steps):
            shares = _logits(query, *parameters).softmax(1)  # (P, N)
            if step in (0, self.query_steps // 3):
                proportion = shares.detach().mean(0)
            mean = shares.mean(0)
            entropy = -(shares * (shares + _EPSILON).log()).sum(1).mean()
            divergence = (mean * ((mean + _EPSILON) / (proportion + _EPSILON)).log()).sum()
            loss = self._support_loss(*parameters) + weight * (entropy + divergence)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return parameters

    def _support_loss(self, prototypes: Tensor, bias: Tensor) -> Tensor:
        log_shares = _logits(self._features, prototypes, bias).log_softmax(1)
        each = -(self._labels * self._balance * log_shares).sum(1)  # (M,)
        total = ((self._labels * self._balance).sum(1) * self._weights).sum()
        return (each * self._weights).sum() / total


def _logits(features: Tensor, prototypes: Tensor, bias: Tensor) -> Tensor:
    """Return (P, N) logits of unit-length features (P, C); the background's is 0."""
    similar = features @ torch.nn.functional.normalize(prototypes, dim=1).T  # (P, N - 1)
    objects = _SHARPNESS * (similar - bias)
    return torch.cat([torch.zeros_like(objects[:, :1]), objects], 1)
