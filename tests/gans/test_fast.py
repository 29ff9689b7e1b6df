from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gan_contract import GANContract, total
from states import same

from synthaug import gans
from synthaug.gans.osmis.fast import FastOSMIS
from synthaug.gans.osmis.fast_networks import LATENT_DIM, fast_size


def labelled(size, num_classes, num_pairs=1):
    """Pairs (P, 3, H, W), (P, N, H, W) with one box per class."""
    images = torch.rand(num_pairs, 3, *size) * 2 - 1
    labels = torch.zeros(num_pairs, *size, dtype=torch.long)
    columns = max(1, size[1] // 8)
    for label in range(1, num_classes):
        row, column = divmod(label - 1, columns)
        top, left = (6 * row + 2) % (size[0] - 5), 8 * column + 1
        labels[:, top : top + 5, left : left + 6] = label
    return images, F.one_hot(labels, num_classes).permute(0, 3, 1, 2).float()


def fast(size=(32, 48), num_classes=3, num_pairs=1, **settings):
    gan = FastOSMIS(*size, num_classes, num_pairs, pretrained=False, **settings)
    twice = (2 * size[0], 2 * size[1])
    images, masks = labelled(twice, num_classes or 1, num_pairs)
    gan.initialise(images, masks if num_classes else None)
    return gan


class TestFast(GANContract):
    def build(self):
        return fast(self.size, self.num_classes)


class TestFastWithoutMasks(TestFast):
    num_classes = None


def test_latents_choose_layout_and_texture():
    gan = fast()
    z = gan.latent(6)
    with torch.no_grad():
        pairs = gan.generator(z)
        z[:, :64] = z[0, :64]
        layouts = gan.generator(z)
        z = z[:1].repeat(2, 1)
        z[1, :64] += 1
        textures = gan.generator(z)
    image, mask = pairs.layout
    assert image.shape == (6, 3, 64, 96)
    assert mask.shape == (6, 3, 64, 96)
    for one in range(6):
        for other in range(one):
            assert (mask[one] - mask[other]).abs().mean() > 0.003
            assert (layouts.images[0][one] - layouts.images[0][other]).abs().mean() > 0.01
    assert torch.equal(textures.layout[1][0], textures.layout[1][1])
    assert not torch.allclose(textures.images[0][0], textures.images[0][1], atol=1e-3)


def test_smooth_texture_has_no_borders_of_cells():
    jumps = []
    for smooth in (False, True):
        gan = fast((64, 96), smooth_texture=smooth)
        with torch.no_grad():
            features = gan.generator(gan.latent(8)).features[0]  # cells of 8 px are two wide here
        steps = (features[..., 1:] - features[..., :-1]).abs().mean((0, 1, 2))
        jumps.append(steps[1::2].mean() / steps[::2].mean())
    assert jumps[1] < 2 < jumps[0]


def test_the_first_samples_already_look_like_their_layouts():
    pair = fast().generator(torch.randn(4, LATENT_DIM))
    image, mask = (F.avg_pool2d(part, 2) for part in pair.layout)
    assert torch.allclose(pair.mask.sum(1), torch.ones(4, 32, 48), atol=1e-5)
    coarse = F.avg_pool2d(pair.images[0], 8) - F.avg_pool2d(image, 8)
    assert coarse.abs().mean() < 0.25
    assert (pair.mask.argmax(1) == mask.argmax(1)).float().mean() > 0.8


def test_the_picture_follows_the_mask_and_does_not_pull_at_it():
    gan = fast()
    pair = gan.generator(gan.latent(2))
    of_image, of_mask = (
        torch.autograd.grad(part.square().sum(), gan.generator.head.weight, retain_graph=True)[0]
        for part in (pair.images[0], pair.mask)
    )
    assert of_image[:9].abs().sum() > 0
    assert of_image[9:].abs().sum() == 0
    assert of_mask[9:].abs().sum() > 0


def test_a_lost_class_leaves_the_losses_finite_and_is_called_back():
    gan = fast()
    fake = gan.generator(gan.latent(2))
    lost = fake.mask.detach().clone()
    lost[:, 2], lost[:, 0] = 0, lost[:, 0] + lost[:, 2]
    lost.requires_grad_()
    absent = fake.with_pair([fake.images[0].detach()], lost)
    terms = gan.layout_terms(absent)
    total(terms | gan.generator_terms(absent, 0)).backward()
    assert lost.grad.isfinite().all()
    inside = F.avg_pool2d(fake.layout[1], 2)[:, 2] > 0.9
    assert (lost.grad[:, 2][inside] < lost.grad[:, 0][inside]).float().mean() > 0.9


def test_sixty_four_classes():
    gan = fast((48, 96), 64)
    fake = gan.generator(gan.latent(2))
    assert fake.mask.shape == (2, 64, 48, 96)
    real = gan.look(gan.prepare(*labelled((96, 192), 64)), 0)
    for terms in (gan.discriminator_terms(real, gan.look(fake, 0), 0), gan.pretrain_terms(fake)):
        assert total(terms).isfinite()


@pytest.mark.parametrize("num_pairs", [1, 3])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_description_and_the_weights_bring_the_samples_back(num_classes, num_pairs):
    spec = {
        "name": "osmis",
        "preset": "fast",
        "height": 32,
        "width": 48,
        "num_classes": num_classes,
        "num_pairs": num_pairs,
        "flip": False,
        "pretrain_steps": 2,
        "bernoulli_steps": 4,
        "pretrained": False,
    }
    gan, other = gans.build(spec), gans.build(spec)
    images, masks = labelled((64, 96), 3, num_pairs)
    gan.initialise(images, masks if num_classes else None)
    other.generator.load_state_dict(gan.generator.state_dict(), strict=True)
    z = gan.latent(4)
    with torch.no_grad():
        one, two = gan.generator(z), other.generator(z)
    assert torch.equal(one.images[0], two.images[0])
    if num_classes:
        assert torch.equal(one.mask, two.mask)


def test_every_pair_is_drawn_about_equally_often():
    gan = fast(num_pairs=2)
    with torch.no_grad():
        gan.generator.composition.backgrounds[0, :3] = -0.8
        gan.generator.composition.backgrounds[1, :3] = 0.8
    image, _ = gan.generator.compose(gan.latent(32))
    first = image.flatten(1).median(1).values < 0
    assert 8 <= first.sum() <= 24


def test_frozen_features_are_no_part_of_the_model():
    gan = fast()
    names = [name for name, _ in gan.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"generator", "discriminator"}


def test_looking_brings_real_pairs_to_size_and_hardens_generated_masks():
    gan = fast(bernoulli_steps=0)
    real = gan.look(gan.prepare(*labelled((64, 96), 3)), 5)
    assert real.images[0].shape == (1, 3, 32, 48)
    assert real.mask.shape == (1, 3, 32, 48)
    assert len(real.seen) == 4
    fake = gan.look(gan.generator(gan.latent(2)), 5)
    assert set(fake.mask.unique().round(decimals=4).tolist()) <= {0.0, 1.0}


def test_features_of_real_pairs_alone_are_augmented():
    gan = fast((64, 96), bernoulli_steps=0)
    gan.discriminator.augment_features = 1.0
    pair = gan.look(gan.generator(gan.latent(4)), 0)
    for real in (True, False):
        judged = []
        for seed in range(2):
            torch.manual_seed(seed)
            judged.append(gan.discriminator(pair, real=real, step=0))
        assert same(judged[0].low, judged[1].low)
        assert same(judged[0].content, judged[1].content) is not real
        assert same(judged[0].layout, judged[1].layout) is not real


@pytest.mark.parametrize(
    ("picture", "max_size", "size"),
    [
        ((384, 640), None, (128, 216)),
        ((240, 427), None, (128, 224)),
        ((48, 64), 32, (32, 32)),
        ((40, 200), 160, (32, 160)),
        ((2000, 1000), 128, (128, 64)),
    ],
)
def test_the_training_size(picture, max_size, size):
    assert fast_size(*picture, max_size) == size


def test_the_training_size_is_a_multiple_of_eight_everywhere():
    for height in (32, 61, 113, 400, 3000):
        for width in (32, 107, 640, 4000):
            sides = fast_size(height, width)
            assert all(side >= 32 and side % 8 == 0 for side in sides)


def test_rendering_doubles_the_size_and_adds_detail_where_layout_and_sample_agree():
    gan = fast()
    with torch.no_grad():
        pair = gan.generator(gan.latent(4))
        full, full_mask = pair.layout
        faithful = pair.with_pair([F.avg_pool2d(full, 2)], F.avg_pool2d(full_mask, 2))
        exact = gan.render(faithful)
        free = gan.render(pair.with_pair([-F.avg_pool2d(full, 2).sign()], pair.mask))
    assert exact.images[0].shape == (4, 3, 64, 96)
    assert torch.allclose(exact.images[0], full.clamp(-1, 1), atol=1e-4)
    assert torch.allclose(exact.mask, full_mask, atol=1e-4)
    assert free.images[0].abs().max() <= 1
    assert (free.images[0] - full).abs().mean() > 0.5
