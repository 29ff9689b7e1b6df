from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.metrics import structural_similarity

from synthaug.quality.structure import SCALE_WEIGHTS, ms_ssim, num_scales, pairwise_ms_ssim


def photo(height: int, width: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    image = data.chelsea()[40 : 40 + height, 60 : 60 + width] / 255
    image = image + noise * np.random.default_rng(seed).standard_normal(image.shape)
    return image.clip(0, 1)


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def reference(a: np.ndarray, b: np.ndarray, scales: int) -> float:
    """The paper's equation 7 channel by channel, with SciPy's Gaussian."""

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]

    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    values = []
    for x, y in zip(a.transpose(2, 0, 1), b.transpose(2, 0, 1), strict=True):
        value = 1.0
        for scale, weight in enumerate(weights):
            if scale:
                h, w = (side // 2 for side in x.shape)
                x, y = (p[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)) for p in (x, y))
            mx, my = blur(x), blur(y)
            vx, vy, cxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
            term = (2 * cxy + 0.03**2) / (vx + vy + 0.03**2)
            if scale == scales - 1:
                term = term * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
            value *= max(term.mean(), 0) ** weight
        values.append(value)
    return float(np.mean(values))


@pytest.mark.parametrize(("size", "scales"), [((192, 256), 5), ((96, 130), 4), ((45, 60), 3)])
def test_equals_the_papers_equation(size: tuple[int, int], scales: int) -> None:
    a, b = photo(*size), photo(*size, noise=0.1)
    assert num_scales(*size) == scales
    expected = reference(a, b, scales)
    assert 0.3 < expected < 0.99
    assert ms_ssim(tensor(a), tensor(b)).item() == pytest.approx(expected, abs=2e-4)


def test_one_scale_is_the_ssim_of_scikit_image() -> None:
    a, b = photo(20, 21), photo(20, 21, noise=0.1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    whole = structural_similarity(a, b, channel_axis=2, data_range=1.0, full=True, **options)[1]
    expected = whole[5:-5, 5:-5].mean((0, 1)).clip(0).mean()
    assert ms_ssim(tensor(a), tensor(b)).item() == pytest.approx(expected, abs=1e-4)


def test_equal_images_are_1_and_negatives_0() -> None:
    a = photo(176, 180)
    assert ms_ssim(tensor(a, a), tensor(a, 1 - a)).tolist() == pytest.approx([1, 0], abs=1e-5)


def test_number_of_scales() -> None:
    sides = (11, 21, 22, 44, 88, 175, 176, 4000)
    assert [num_scales(side, 5000) for side in sides] == [1, 1, 2, 3, 4, 4, 5, 5]


def test_pairs() -> None:
    images = [photo(48, 64, noise=0.1, seed=seed) for seed in range(7)]
    expected = np.mean([reference(a, b, 3) for a, b in combinations(images, 2)])
    assert pairwise_ms_ssim(tensor(*images)) == pytest.approx(expected, abs=2e-4)
