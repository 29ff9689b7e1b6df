import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from synthaug.quality.features import InceptionFeatures, Lite0Features, load_feature_net
from synthaug.quality.frechet import GaussianStatistics, fid, frechet_distance, sifid


def reference_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Textbook formula in float64, independent of ours."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s1 @ s2)
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(shift + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real)


def draw(n: int, d: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return rows @ mixing * scale + torch.randn(d, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(500, 400, 24), (20, 30, 24), (12, 12, 48), (200, 9, 32), (9, 200, 32), (32, 32, 32)],
)
def test_fid_equals_scipy(n: int, m: int, d: int) -> None:
    a, b = draw(n, d, 1), draw(m, d, 2, 1.5)
    assert fid(a, b) == pytest.approx(reference_distance(a.numpy(), b.numpy()), rel=1e-4)


def test_fid_is_symmetric_and_zero_on_itself() -> None:
    a, b = draw(64, 16, 3), draw(40, 16, 4)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-8)
    assert fid(a, a) == pytest.approx(0, abs=1e-4)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_dead_channels_are_exact() -> None:
    a, b = draw(100, 12, 5), draw(100, 12, 6)
    a[:, 3:9] = 0
    b[:, 7] = b[:, 2]
    assert fid(a, b) == pytest.approx(reference_distance(a.numpy(), b.numpy()), rel=1e-4)


def test_batch_equals_one_by_one() -> None:
    real = GaussianStatistics.from_features(draw(50, 8, 0))
    sets = torch.stack([draw(30, 8, seed) for seed in range(1, 5)])
    together = frechet_distance(real, sets)
    alone = torch.cat([frechet_distance(real, one[None]) for one in sets])
    torch.testing.assert_close(together, alone)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize("kind", ["efficientnet_lite0", "inception_v3"])
def test_sifid_equals_scipy_on_random_weights(kind: str) -> None:
    net = (
        Lite0Features(pretrained=False, seed=3)
        if kind == "efficientnet_lite0"
        else InceptionFeatures(seed=3)
    )
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(3, 131, 107, generator=generator)
    fakes = torch.rand(2, 3, 131, 107, generator=generator) * 0.7 + 0.1
    ours = sifid(fakes, [real], net).numpy()
    assert ours.shape == (2, 4)
    with torch.no_grad():
        real_maps, fake_maps = net(real[None]), net(fakes)
    for tap in range(4):
        a = real_maps[tap][0].flatten(1).T
        for fake in range(2):
            b = fake_maps[tap][fake].flatten(1).T
            assert ours[fake, tap] == pytest.approx(fid(b, a), rel=1e-6)
            # scipy's sqrtm of 2048 x 2048 takes minutes: at most 200 of the channels
            part = slice(0, 200)
            expected = reference_distance(b[:, part].numpy(), a[:, part].numpy())
            assert fid(b[:, part], a[:, part]) == pytest.approx(expected, rel=1e-4)


def test_several_pairs_count_the_nearest() -> None:
    net = Lite0Features(pretrained=False)
    generator = torch.Generator().manual_seed(0)
    reals = [torch.rand(3, 64, 64, generator=generator) * scale for scale in (1.0, 0.2)]
    fake = reals[1][None]
    both = sifid(fake, reals, net)
    alone = torch.minimum(sifid(fake, reals[:1], net), sifid(fake, reals[1:], net))
    torch.testing.assert_close(both, alone)
    assert both.max() < 1e-3


def test_one_position_has_zero_covariance() -> None:
    net = InceptionFeatures(seed=0)
    images = torch.rand(1, 3, 75, 75, generator=torch.Generator().manual_seed(0))
    distances = sifid(images, [images[0] * 0.5], net)
    assert torch.isfinite(distances).all()


def test_bundled_features_tell_noise_from_the_photograph() -> None:
    from skimage import data

    net = load_feature_net("efficientnet_lite0")
    photo = torch.from_numpy(data.coffee()[::3, ::3].copy()).permute(2, 0, 1).float() / 255
    noise = torch.rand(photo.shape, generator=torch.Generator().manual_seed(0))
    scores = sifid(torch.stack([photo.flip(-1), noise]), [photo], net)
    assert (scores[0] < scores[1] / 5).all()
