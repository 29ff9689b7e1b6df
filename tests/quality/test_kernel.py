from __future__ import annotations

import numpy as np
import pytest
import torch

from synthaug.errors import InputError
from synthaug.quality.kernel import kid, squared_mmd


def draw(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_discrepancy_is_the_mean_over_pairs_of_different_images() -> None:
    x, y = draw(7, 5, 0).double().numpy(), draw(4, 5, 1, 0.5).double().numpy()

    def mean(a: np.ndarray, b: np.ndarray, *, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return float(np.mean([(a[i] @ b[j] / 5 + 1) ** 3 for i, j in pairs]))

    expected = mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)
    assert float(squared_mmd(torch.tensor(x), torch.tensor(y))) == pytest.approx(expected)


def test_constant_features_have_a_closed_form() -> None:
    x, y = torch.full((6, 3), 2.0), torch.full((8, 3), 1.0)
    found = kid(x, y)
    assert found.value == pytest.approx(5**3 + 2**3 - 2 * 3**3)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_one_distribution_is_zero_within_the_error_and_does_not_depend_on_the_number() -> None:
    values = [kid(draw(n, 8, 2 * s), draw(50, 8, 2 * s + 1)) for s in range(30) for n in (20, 80)]
    mean = np.mean([found.value for found in values])
    assert abs(mean) < 3 * np.std([found.value for found in values]) / len(values) ** 0.5


def test_the_error_is_that_of_repeated_measurements() -> None:
    found = [kid(draw(60, 8, 2 * s, 0.6), draw(90, 8, 2 * s + 1), seed=s) for s in range(60)]
    spread = np.std([f.value for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.35)


def test_seeded_and_refused() -> None:
    x, y = draw(30, 4, 0), draw(20, 4, 1)
    assert kid(x, y, seed=3) == kid(x, y, seed=3)
    assert kid(x, y, seed=3) != kid(x, y, seed=4)
    with pytest.raises(InputError, match="KID of 3 and 20 images"):
        kid(x[:3], y)
