from __future__ import annotations

import torch

from synthaug import gans
from synthaug.gans.contract import PairBatch
from synthaug.gans.oasis.appearance import AppearanceCodes, class_colours


def scenes(count, seed=0):
    """Pictures of two classes and a strip without a label; light and layout vary."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, 24, 32, dtype=torch.long)
    for number in range(count):
        left = int(torch.randint(2, 14, (1,), generator=stream))
        labels[number, 6:18, left : left + 12] = 1
    labels[:, :2] = -1
    light = torch.rand(count, 1, 1, 1, generator=stream) - 0.5
    colours = torch.tensor([[-0.3, 0.0, 0.2], [0.4, -0.2, 0.1]])
    images = colours[labels.clamp_min(0)].permute(0, 3, 1, 2) + light
    return images + 0.02 * torch.randn(images.shape, generator=stream), labels


def test_codes_are_distributed_like_noise():
    images, labels = scenes(40)
    codes = AppearanceCodes()
    codes.measure(images, labels, 3)  # the third class is nowhere
    found = codes(images, labels)
    assert found.shape == (40, codes.length)
    assert 1 <= codes.length <= 16
    assert torch.allclose(found.mean(0), torch.zeros(codes.length), atol=0.05)
    covariance = found.T @ found / 39
    assert torch.allclose(covariance, torch.eye(codes.length), atol=0.15)


def test_codes_tell_light_and_not_layout():
    images, labels = scenes(12)
    codes = AppearanceCodes()
    codes.measure(images, labels, 2)
    one = codes(images[:1], labels[:1])
    moved = codes(images[:1].roll(3, 3), labels[:1].roll(3, 2))
    lit = codes(images[:1] + 0.2, labels[:1])
    assert torch.allclose(one, moved, atol=0.02)
    assert (lit - one).abs().max() > 0.3


def test_one_picture_has_no_code():
    images, labels = scenes(1)
    codes = AppearanceCodes()
    codes.measure(images, labels, 2)
    assert codes(images, labels).shape == (1, 0)


def test_colours_of_a_class_are_those_of_its_pixels():
    images, labels = scenes(2)
    found, shares = class_colours(images, labels, 3)
    inside = images[1][:, labels[1] == 1]
    assert torch.allclose(found[1, 1, :3], inside.mean(1), atol=1e-5)
    assert torch.allclose(found[1, 1, 3:], inside.std(1, unbiased=False), atol=1e-3)
    assert shares[1, 1] == (labels[1] == 1).float().mean()
    assert found[:, 2].isnan().all()


def test_one_map_is_painted_in_the_looks_of_its_pictures():
    """Pictures of one map in four lights: without their looks the painter could learn but one."""
    torch.manual_seed(0)
    spec = {"name": "oasis", "preset": "fast", "height": 32, "width": 48, "num_classes": 2}
    gan = gans.build(spec | {"pretrained": False})
    lights = torch.tensor([-0.8, -0.3, 0.2, 0.7])[:, None, None, None]
    images = lights.expand(-1, 3, 32, 48)
    labels = torch.zeros(4, 32, 48, dtype=torch.long)
    labels[:, 8:20, 10:30] = 1
    gan.initialise(images, labels)
    optimizer = torch.optim.Adam(gan.generator.parameters(), lr=1e-3)
    real = PairBatch((images,), labels)
    losses = []
    for _ in range(60):
        fake = gan.generator(gan.latent_for(real, 0), labels)
        loss = (fake.images[0] - images).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.4  # the best single picture is 0.5 away; through noise alone 0.47
