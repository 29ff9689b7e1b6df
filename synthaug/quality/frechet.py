"""Exact Frechet distances between Gaussians of feature sets: FID and SIFID.

d^2 = |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2)   (Heusel et al. 2017, arXiv:1706.08500)

With any factors S = F^T F the last trace is the nuclear norm of F1 F2^T. A set of n positions with
d channels therefore needs only a min(n, d)-row factor: the centred features themselves when
positions are fewer than channels, a d x d root otherwise. No d x d matrix root of a product is
ever taken, and the real image's factor is computed once for all fakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.errors import InputError
from synthaug.quality.features import FeatureNet, split_batches


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance factor of one feature set, all float64.

    Attributes:
        mean: (d,).
        trace: trace of the unbiased covariance, ().
        factor: (r, d) with factor^T factor = covariance and r = min(n, d).
    """

    mean: Tensor
    trace: Tensor
    factor: Tensor

    @classmethod
    def from_features(cls, features: Tensor) -> GaussianStatistics:
        """Describe features (n, d); one single row has zero covariance."""
        mean, centred = _centre(features[None])
        n, d = features.shape
        rows = centred[0]
        if n >= d:
            values, vectors = torch.linalg.eigh(rows.T @ rows)
            rows = values.clamp(min=0).sqrt()[:, None] * vectors.T  # (d, d)
        return cls(mean[0], rows.square().sum(), rows)


def frechet_distance(real: GaussianStatistics, features: Tensor) -> Tensor:
    """Distance of every feature set of a batch to the real one.

    Args:
        real: statistics of d channels.
        features: (B, n, d), any float dtype; computed in float64.

    Returns:
        (B,) float64, at least 0.
    """
    return frechet_distances([real], features)[0]


def frechet_distances(reals: Sequence[GaussianStatistics], features: Tensor) -> Tensor:
    """Distances to several real sets, as `frechet_distance`; the batch is described once.

    Returns:
        (R, B) float64, at least 0.
    """
    mean, centred = _centre(features)
    n, d = features.shape[1:]
    covariance = centred.transpose(1, 2) @ centred if n >= d else None  # (B, d, d)
    spread = centred.square().sum((1, 2))
    rows = []
    for real in reals:
        if covariance is not None:
            inner = real.factor @ covariance @ real.factor.T
            root = torch.linalg.eigvalsh(inner).clamp(min=0).sqrt().sum(-1)
        else:
            root = torch.linalg.svdvals(centred @ real.factor.T).sum(-1)
        shift = (mean - real.mean).square().sum(-1)
        rows.append(torch.clamp(shift + (real.trace + spread) - 2 * root, min=0))
    return torch.stack(rows)


def fid(features: Tensor, reference: Tensor) -> float:
    """Frechet distance between two feature sets.

    Args:
        features: (n, d), for example pooled features of n generated images.
        reference: (m, d) of the real ones.
    """
    return float(frechet_distance(GaussianStatistics.from_features(reference), features[None])[0])


class SifidReference:
    """The real side of SIFID, computed once: per real image and tap, over all positions.

    Single-image FID (Shaham et al. 2019, arXiv:1905.01164) takes the positions of one image's
    feature map as the samples of a Gaussian. SIFID-1 to SIFID-4 are the four taps of the network.
    The published protocol compares with the first real image; with several training pairs this
    one takes, tap by tap, the nearest of them, which is the same for one pair.

    Args:
        reals: real images, each (3, H, W) float in [0, 1]; sizes may differ.
        net: the feature network.

    Raises:
        InputError: no real image is given.
    """

    def __init__(self, reals: Sequence[Tensor], net: FeatureNet) -> None:
        if not reals:
            raise InputError("SIFID needs at least one real image: the bank names no pair")
        with torch.inference_mode():
            self.statistics = [
                [GaussianStatistics.from_features(positions(tap)[0]) for tap in net(real[None])]
                for real in reals
            ]

    def score(self, maps: Sequence[Tensor]) -> Tensor:
        """SIFID of a batch from its feature maps, four of (B, C, h, w) -> (B, 4) float64."""
        columns = []
        for tap, features in enumerate(maps):
            sets = positions(features).double()
            distances = frechet_distances([real[tap] for real in self.statistics], sets)
            columns.append(distances.amin(0))
        return torch.stack(columns, 1)


def sifid(fakes: Tensor, reals: Sequence[Tensor], net: FeatureNet) -> Tensor:
    """SIFID-1 to SIFID-4 of every fake image.

    Args:
        fakes: (n, 3, H, W) float in [0, 1].
        reals: as `SifidReference`, which also says how several real images count.
        net: the feature network; its name belongs beside the numbers.

    Returns:
        (n, 4) float64.
    """
    reference = SifidReference(reals, net)
    with torch.inference_mode():
        return torch.cat([reference.score(net(batch)) for batch in split_batches(fakes)])


def positions(maps: Tensor) -> Tensor:
    """Take the positions of feature maps for the samples of a set."""
    return maps.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h*w, C)


def _centre(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (B, d) and centred rows (B, n, d) over sqrt(n - 1), float64."""
    features = features.double()
    mean = features.mean(1)
    return mean, (features - mean[:, None]) / max(features.shape[1] - 1, 1) ** 0.5
