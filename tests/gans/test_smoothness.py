from __future__ import annotations

import torch

from synthaug.gans.smoothness import project_jacobian, smoothness_similarity
from synthaug.gans.stylegan2.networks import StyleGenerator


def _features(seed):
    torch.manual_seed(seed)
    generator = StyleGenerator([4, 3], z_dim=5, w_dim=4, n_mlp=1).eval()
    return lambda z: generator.synthesise(generator.styles(z), taps=[8])[1][0]


def _jacobian(features, z):
    return torch.autograd.functional.jacobian(lambda z: features(z[None]).flatten(), z)


def test_the_product_is_that_of_the_whole_jacobian_for_every_sample():
    features = _features(0)
    z = torch.randn(3, 5, requires_grad=True)
    y = torch.randn(3, 3, 8, 8)
    product = project_jacobian(features(z), z, y)
    for n in range(3):
        assert torch.allclose(product[n], y[n].flatten() @ _jacobian(features, z[n]), atol=1e-4)


def test_the_estimate_over_many_directions_is_the_norm_of_the_jacobian():
    features = _features(0)
    z = torch.randn(1, 5)
    true = _jacobian(features, z[0]).square().sum()
    many = z.repeat(4000, 1).requires_grad_()
    product = project_jacobian(features(many), many, torch.randn(4000, 3, 8, 8))
    assert torch.isclose(product.square().sum(1).mean(), true, rtol=0.05)


def test_similarity_is_the_distance_of_the_products():
    source, target = _features(0), _features(1)
    z = torch.randn(3, 5)
    assert torch.equal(smoothness_similarity(source, source, z, 0.5), torch.zeros(3))
    torch.manual_seed(2)
    distance = smoothness_similarity(source, target, z, 0.5)
    torch.manual_seed(2)
    y = 0.5 * torch.randn(3, 3, 8, 8)
    for n in range(3):
        difference = _jacobian(source, z[n]) - _jacobian(target, z[n])
        assert torch.allclose(distance[n], (y[n].flatten() @ difference).norm(), rtol=1e-4)
