from __future__ import annotations

import pytest
import torch

from synthaug.gans.contract import PairBatch
from synthaug.plugins.diversity import Diversity


def fakes(B, L):
    features = [torch.randn(B, 4 + i, 3 + i, 5).requires_grad_() for i in range(L)]
    return PairBatch((torch.zeros(B, 3, 8, 8),), None, tuple(features))


@pytest.mark.parametrize(("B", "L"), [(2, 1), (3, 2), (5, 6)])
@pytest.mark.parametrize("normalisation", ["code", "thesis"])
def test_the_term_equals_the_double_loop(B, L, normalisation):
    torch.manual_seed(0)
    fake = fakes(B, L)
    total, pairs = 0.0, B * (B - 1) / 2
    for feature in fake.features:
        for k in range(B):
            for m in range(k):
                total = total + (feature[k].tanh() - feature[m].tanh()).abs().mean()
    scale = 1 / (L * pairs) if normalisation == "thesis" else 2 / (L * max(1, L - 1))
    expected = -0.15 * scale * total
    term = Diversity(0.15, normalisation).generator_terms(fake)["diversity"]
    assert term.shape == (B,)
    assert torch.allclose(term.mean(), expected)
    slow = torch.autograd.grad(expected, fake.features, retain_graph=True)
    fast = torch.autograd.grad(term.mean(), fake.features)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(slow, fast, strict=True))


def test_equal_samples_and_single_samples_earn_nothing():
    same = PairBatch((torch.zeros(3, 3, 8, 8),), None, (torch.ones(3, 2, 4, 4),))
    assert torch.equal(Diversity().generator_terms(same)["diversity"], torch.zeros(3))
    assert torch.equal(Diversity().generator_terms(fakes(1, 3))["diversity"], torch.zeros(1))
