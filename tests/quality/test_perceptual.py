import pytest
import torch
import torch.nn.functional as F
from skimage import data

from synthaug.quality.features import load_feature_net
from synthaug.quality.perceptual import (
    PerceptualSpace,
    TrainingSet,
    intra_diversity,
    nearest_reals,
    pairwise_diversity,
)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return torch.from_numpy(data.chelsea()[::2, ::2].copy()).permute(2, 0, 1).float() / 255


def shifted(image: torch.Tensor, step: int) -> torch.Tensor:
    return F.pad(image[None], (step, 0, 0, 0), mode="reflect")[0, :, :, : image.shape[-1]]


def by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    net = load_feature_net("efficientnet_lite0")
    with torch.no_grad():
        taps = zip(net(a[None]), net(b[None]), strict=True)
    parts = []
    for x, y in taps:
        x = x / x.norm(dim=1, keepdim=True)
        y = y / y.norm(dim=1, keepdim=True)
        parts.append(((x - y) ** 2).sum(1).mean())
    return float(torch.stack(parts).mean())


def test_distance_is_the_definition(photo: torch.Tensor) -> None:
    other = shifted(photo, 8)
    expected = by_hand(photo, other)
    vectors = PerceptualSpace(*photo.shape[-2:]).embed(torch.stack([photo, other]))
    assert float((vectors[0] - vectors[1]).square().sum()) == pytest.approx(expected, rel=1e-4)


def test_diversity_is_the_mean_over_pairs(photo: torch.Tensor) -> None:
    images = torch.stack([shifted(photo, step) for step in (1, 5, 9, 20, 33)])
    pairs = [by_hand(images[i], images[j]) for i in range(5) for j in range(i)]
    assert pairwise_diversity(images) == pytest.approx(sum(pairs) / 10, rel=1e-4)


def test_identical_images_have_no_diversity(photo: torch.Tensor) -> None:
    assert pairwise_diversity(photo.expand(3, -1, -1, -1)) == pytest.approx(0, abs=1e-6)
    assert pairwise_diversity(photo[None]) != pairwise_diversity(photo[None])  # NaN: no pair


def nearest(fakes: torch.Tensor, reals: list[torch.Tensor]) -> torch.Tensor:
    space = PerceptualSpace(*fakes.shape[-2:])
    return TrainingSet(reals, space).distance(space.embed(fakes))


def test_copies_and_mirror_images_are_near(photo: torch.Tensor) -> None:
    fakes = torch.stack([photo, photo.flip(-1), shifted(photo, 30)])
    distance = nearest(fakes, [photo])
    assert float(distance[:2].max()) < 1e-6
    assert distance[2] > 0.3


def test_several_training_images_count_the_nearest(photo: torch.Tensor) -> None:
    other = shifted(photo, 40)
    distance = nearest(other[None], [photo, other])
    assert float(distance) == pytest.approx(0, abs=1e-6)


def test_near_copy_threshold_parts_copies_from_variation(photo: torch.Tensor) -> None:
    space = PerceptualSpace(*photo.shape[-2:])
    training = TrainingSet([photo], space)
    threshold = training.near_copy_threshold()
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    copies = torch.stack([photo, (photo * 1.05).clamp(0, 1), (photo + noise).clamp(0, 1)])
    variation = torch.stack([shifted(photo, 12), shifted(photo, 30).flip(-1)])
    assert (training.distance(space.embed(copies)) < threshold).all()
    assert (training.distance(space.embed(variation)) > threshold).all()


def test_long_side_is_capped() -> None:
    space = PerceptualSpace(480, 960)
    assert space.size == (128, 256)
    assert PerceptualSpace(100, 200).size == (100, 200)
    assert space.embed(torch.zeros(1, 3, 480, 960)).shape[0] == 1


def around(fakes: torch.Tensor, reals: list[torch.Tensor]) -> float:
    return intra_diversity(*nearest_reals(fakes, reals, PerceptualSpace(64, 64)))


def test_intra_diversity_is_that_within_the_clusters_of_training_images(photo):
    reals = [photo[:, :64, :64], 1 - photo[:, 60:124, 100:164]]
    near = [[shifted(real, step)[:, :64, :64] for step in (1, 2, 5)] for real in reals]
    space = PerceptualSpace(64, 64)
    expected = [pairwise_diversity(torch.stack(cluster), space) for cluster in near]
    mixed = torch.stack([image for pair in zip(*near, strict=True) for image in pair])
    assert around(mixed, reals) == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert around(mixed, reals) < pairwise_diversity(mixed, space) / 2
    copies = torch.stack(reals * 3)
    assert around(copies, reals) == pytest.approx(0, abs=1e-5)
    single = torch.stack([*near[0], reals[1]])  # a cluster of one has no pairs
    assert around(single, reals) == pytest.approx(expected[0], rel=1e-4)


def test_intra_diversity_without_pairs_is_unknown(photo):
    real = photo[:, :64, :64]
    assert around(real[None], [real]) != around(real[None], [real])
