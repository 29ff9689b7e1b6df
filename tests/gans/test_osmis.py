from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from gan_contract import GANContract
from states import same

from synthaug.gans.contract import PairBatch
from synthaug.gans.osmis import (
    Judgement,
    LossWeights,
    OsmisDiscriminator,
    OsmisGenerator,
    OsmisOptions,
    build_paper,
    losses,
    size_rule,
    straight_through_mask,
)
from synthaug.gans.osmis.feature_augmentation import (
    Pairs,
    Rearrangement,
    augment_content,
    augment_layout,
)
from synthaug.gans.osmis.networks import SpectralConv2d


class TestOsmis(GANContract):
    without_gradient = ("heads.0", "heads.1", "heads.2")
    without_verdict = ("layout_heads.", *(f"layout.{i}.shortcut" for i in (1, 2, 3)))
    # from one channel to one: spectral norm leaves nothing of such a weight but its sign

    def build(self):
        return build_paper(*self.size, self.num_classes, max_size=64, base=8)


class TestSivGan(TestOsmis):
    num_classes = None


class TestOneClass(TestOsmis):
    num_classes = 1
    without_gradient = (*TestOsmis.without_gradient, "mask_head")


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: OsmisGenerator(3, 5, 7, None), 5_886_581),
        (lambda: OsmisDiscriminator(3, 4, None), 1_256_497),
        (lambda: OsmisGenerator(3, 5, 8, 2), 7_139_770),
        (lambda: OsmisDiscriminator(4, 3, 2), 3_243_680),
        (lambda: OsmisDiscriminator(3, 4, 2), 2_441_785),
    ],
)
def test_the_networks_have_the_published_parameters(network, parameters):
    assert sum(p.numel() for p in network().parameters()) == parameters


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((384, 640, 640), (3, 5, 8, 4, 3)),
        ((220, 330, 330), (3, 5, 7, 3, 4)),
        ((480, 854, 854), (4, 7, 8, 4, 3)),
    ],
)
def test_the_size_rule_gives_the_published_sizes(image, size):
    assert size_rule(*image) == size


def test_the_size_rule_holds_for_every_size():
    sides = [32, 33, 47, 48, 63, 64, 100, 113, 200, 400, 1000, 1793, 2000]
    for height in sides:
        for width in sides:
            for cap in (64, 330, 640, 2000):
                size = size_rule(height, width, cap)
                assert min(size.h0, size.w0) >= 2
                assert size.branch_blocks >= 1
                halvings = size.low_blocks + size.branch_blocks
                assert min(size.height, size.width) >> halvings >= 1
                assert max(size.height, size.width) <= 1.2 * max(cap, 64)


@pytest.mark.parametrize("image", [(32, 32), (33, 400), (300, 40)])
def test_small_and_slender_images_train(image):
    gan = build_paper(*image, 2, max_size=160, base=8)
    fake = gan.generator(gan.latent(2))
    size = size_rule(*image, 160)
    assert fake.images[0].shape == (2, 3, size.height, size.width)
    judged = gan.discriminator(fake, real=False, step=0)
    assert len(judged.low) == size.low_blocks == len(fake.images)
    assert len(judged.content) == len(judged.layout) == size.branch_blocks


def test_patch_logits_have_the_published_grids():
    gan = build_paper(192, 320, 2, max_size=320, base=8)
    with torch.no_grad():
        judged = gan.discriminator(gan.generator(gan.latent(1)), real=False, step=0)
    assert [tuple(m.shape[2:]) for m in judged.layout] == [(12, 20), (6, 10), (3, 5), (1, 2)]
    assert [tuple(m.shape) for m in judged.content] == [(2, 1, 3)] * 4


@pytest.mark.parametrize("resample", ["up", "down", None])
@pytest.mark.parametrize("kernel", [1, 3])
def test_folded_resampling_equals_the_plain_computation(kernel, resample):
    torch.manual_seed(0)
    conv = SpectralConv2d(4, 6, kernel, resample=resample).eval()
    x = torch.randn(2, 4, 7, 10)
    plain = F.interpolate(x, scale_factor=2.0) if resample == "up" else x
    plain = F.conv2d(plain, conv.weight, conv.bias, padding=kernel // 2)
    plain = F.avg_pool2d(plain, 2) if resample == "down" else plain
    assert torch.allclose(conv(x), plain, atol=1e-5)


def test_spectral_norm_brings_the_largest_singular_value_to_one():
    conv = SpectralConv2d(4, 6, 3)
    for _ in range(50):
        conv(torch.zeros(1, 4, 3, 3))
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)


def test_the_straight_through_mask_is_hard_forward_and_soft_backward():
    soft = torch.randn(2, 3, 4, 5).softmax(1).requires_grad_()
    hard = straight_through_mask(soft, step=10, warmup_steps=10)
    assert torch.equal(hard.argmax(1), soft.argmax(1))
    assert torch.equal(
        hard.detach().sort(1).values,
        torch.tensor([0.0, 0, 1])[None, :, None, None].expand(2, 3, 4, 5),
    )
    weight = torch.randn_like(hard)
    (hard * weight).sum().backward()
    assert torch.equal(soft.grad, weight)


def test_the_mask_is_random_in_the_warm_up():
    torch.manual_seed(0)
    soft = torch.full((1, 2, 100, 100), 0.5)
    drawn = straight_through_mask(soft, step=9, warmup_steps=10)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert set(drawn.sum(1).unique().tolist()) == {0.0, 1.0, 2.0}
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)


def judgement(N, B=5, masks=True):
    K = N + 1 if masks else 1
    presence = torch.rand(N, B) > 0.3
    presence[0] = True
    return Judgement(
        low=[torch.randn(B, 1, 4, 6), torch.randn(B, 1, 2, 3)],
        content=[torch.randn(N, B, K) for _ in range(3)],
        layout=[torch.randn(B, 1, 3, 3), torch.randn(B, 1, 1, 1)],
        presence=presence if masks else None,
        areas=torch.rand(N, B) * presence if masks else None,
    )


def binary(layers, target):
    return sum(F.binary_cross_entropy_with_logits(x, torch.full_like(x, target)) for x in layers)


def slow_object_loss(judged, target, alpha, exclude):
    total = 0.0
    N, B = judged.presence.shape
    for layer in judged.content:
        for i in range(N):
            samples = [b for b in range(B) if judged.presence[i, b] or not exclude]
            if samples:
                losses_ = [-layer[i, b].log_softmax(0)[target(i)] for b in samples]
                total += alpha[i] * sum(losses_) / len(losses_)
    return total


def slow_alpha(judged):
    area = judged.areas.sum(1).tolist()
    inverse = [1 / a if a > 0 else 0.0 for a in area]
    return [x / sum(inverse) for x in inverse]


@pytest.mark.parametrize("options", [OsmisOptions(), OsmisOptions.paper_code()])
def test_the_losses_equal_the_equations(options):
    torch.manual_seed(0)
    N, B = 4, 5
    real, fake = judgement(N), judgement(N)
    real.presence[2], real.areas[2] = False, 0.0
    terms = losses.discriminator_terms(real, fake, LossWeights(), options)
    means = {name: term.mean() for name, term in terms.items()}
    layers = 2 + 3
    assert torch.isclose(means["low_real"], binary(real.low, 1.0) / layers)
    assert torch.isclose(means["low_fake"], binary(fake.low, 0.0) / layers)
    assert torch.isclose(means["layout_real"], 0.5 * binary(real.layout, 1.0) / layers)
    assert torch.isclose(means["layout_fake"], 0.5 * binary(fake.layout, 0.0) / layers)
    exclude = options.exclude_absent
    expected = slow_object_loss(real, lambda i: i, slow_alpha(real), exclude)
    assert torch.isclose(means["content_real"], 0.5 * expected / layers)
    rows = [
        -layer[i, b].log_softmax(0)[N]
        for layer in fake.content
        for i in range(N)
        for b in range(B)
        if fake.presence[i, b] or not exclude
    ]
    expected = 3 * torch.stack(rows).mean()
    assert torch.isclose(means["content_fake"], 0.5 * expected / layers)
    means = {k: t.mean() for k, t in losses.generator_terms(fake, LossWeights(), options).items()}
    assert torch.isclose(means["low"], binary(fake.low, 1.0) / layers)
    assert torch.isclose(means["layout"], 0.5 * binary(fake.layout, 1.0) / layers)
    expected = slow_object_loss(fake, lambda i: i, slow_alpha(fake), False)
    assert torch.isclose(means["content"], 0.5 * expected / layers)


def test_without_masks_the_content_loss_is_binary():
    torch.manual_seed(0)
    real, fake = judgement(1, masks=False), judgement(1, masks=False)
    terms = losses.discriminator_terms(real, fake)
    assert torch.isclose(terms["content_real"].mean(), 0.1 * binary(real.content, 1.0))
    assert torch.isclose(terms["content_fake"].mean(), 0.1 * binary(fake.content, 0.0))
    content = losses.generator_terms(fake)["content"]
    assert torch.isclose(content.mean(), 0.1 * binary(fake.content, 1.0))


def test_class_weights_are_inverse_areas_and_skip_absent_classes():
    weights = losses.class_weights(torch.tensor([[90.0, 80], [10, 20], [0, 0]]))
    assert torch.allclose(weights, torch.tensor([30 / 200, 170 / 200, 0.0]))


def test_absent_pairs_leave_the_discriminator_but_not_the_generator():
    torch.manual_seed(0)
    for keep, terms in (
        (False, lambda j: losses.discriminator_terms(j, j)),
        (True, losses.generator_terms),
    ):
        judged = judgement(3)
        judged.presence[1, 2] = False
        judged.content = [layer.requires_grad_() for layer in judged.content]
        sum(t.sum() for n, t in terms(judged).items() if n.startswith("content")).backward()
        assert all(bool(layer.grad[1, 2].abs().sum() > 0) is keep for layer in judged.content)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_features_of_real_pairs_alone_are_augmented(num_classes):
    options = OsmisOptions(augment_features=1.0)
    gan = build_paper(32, 48, num_classes, max_size=64, base=8, options=options)
    pair = gan.generator(gan.latent(4))
    if num_classes:
        background = torch.eye(num_classes)[:1, :, None, None].expand_as(pair.mask)
        pair = pair.with_pair(pair.images, background)
    for real in (True, False):
        judged = []
        for seed in range(2):
            discriminator = copy.deepcopy(gan.discriminator)  # a pass in training iterates norms
            torch.manual_seed(seed)
            judged.append(discriminator(pair, real=real, step=20_000))
        assert same(judged[0].low, judged[1].low)
        assert same(judged[0].content, judged[1].content) is not real
        assert same(judged[0].layout, judged[1].layout) is not real


@pytest.mark.parametrize("real", [True, False])
def test_objects_are_the_mean_over_all_positions_under_a_mask_hard_if_generated(real):
    torch.manual_seed(0)
    discriminator = build_paper(32, 48, 3, max_size=64, base=8, bernoulli_steps=0).discriminator
    seen = {}
    discriminator.focus.register_forward_hook(lambda *call: seen.update(features=call[-1]))
    discriminator.content[0].register_forward_pre_hook(lambda _, x: seen.update(objects=x[0]))
    images = tuple(torch.randn(2, 3, 32 >> i, 48 >> i) for i in range(len(discriminator.low)))
    soft = torch.randn(2, 3, 32, 48).softmax(1)
    discriminator.eval()(PairBatch(images, soft), real=real, step=0)
    mask = soft if real else F.one_hot(soft.argmax(1), 3).permute(0, 3, 1, 2)
    mask = F.interpolate(mask.float(), seen["features"].shape[2:])
    dense = [(seen["features"] * mask[:, n : n + 1]).mean((2, 3)) for n in range(3)]
    assert torch.allclose(seen["objects"], torch.stack(dense), atol=1e-6)


def test_many_classes():
    gan = build_paper(32, 48, 64, max_size=64, base=8)
    labels = torch.arange(64).repeat(5, 1)[:, :, None].repeat(1, 1, 24).view(5, 32, 48)
    masks = F.one_hot(labels, 64).permute(0, 3, 1, 2).float()
    real = gan.prepare(torch.zeros(5, 3, 32, 48), masks)
    terms = gan.discriminator_terms(real, gan.generator(gan.latent(5)), 0)
    assert all(term.isfinite().all() for term in terms.values())


def test_content_augmentation_swaps_and_drops_channels_of_the_first_row():
    torch.manual_seed(0)
    vectors = torch.arange(1.0, 1 + 2 * 4 * 50).view(2, 4, 50)
    for _ in range(20):
        out = augment_content(vectors, p=1.0)
        assert torch.equal(out[1], vectors[1])
        dropped = (out[0] == 0).sum(1)
        assert ((dropped >= 5) & (dropped <= 15)).all()
        came_from = ((out[0] - 1) // 50)[out[0] > 0]
        kept = ((out[0] - 1) // 50 == torch.arange(4)[:, None])[out[0] > 0]
        assert 0.05 < 1 - kept.float().mean() < 0.35
        assert set(came_from.tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert torch.equal(augment_content(vectors, p=0.0), vectors)


def test_a_swap_loses_no_channel():
    torch.manual_seed(0)
    vectors = torch.randn(1, 2, 40)
    two_way = augment_content(vectors, p=1.0)[0]
    one_way = augment_content(vectors, p=1.0, per_sample=False, swap=False)[0]
    nonzero = (two_way != 0).all(0)
    assert torch.equal(two_way[:, nonzero].sort(0).values, vectors[0][:, nonzero].sort(0).values)
    assert ((one_way[1] == vectors[0, 1]) | (one_way[1] == 0)).all()


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 9), (5, 12, 20)])
@pytest.mark.parametrize("N", [None, 1, 2, 5])
def test_layout_augmentation_keeps_shapes_and_rearranges(N, shape, per_sample):
    torch.manual_seed(0)
    B, h, w = shape
    features = torch.arange(1.0 * B * h * w).view(B, 1, h, w).repeat(1, 3, 1, 1)
    mask = None
    if N is not None:
        labels = torch.randint(0, N, (B, 2 * h, 2 * w)) * (torch.rand(B, 2 * h, 2 * w) > 0.9)
        mask = F.one_hot(labels, N).permute(0, 3, 1, 2).float()
    out, mask_out = augment_layout(features, mask, p=1.0, per_sample=per_sample)
    assert out.shape == features.shape
    assert torch.equal(out[:, 0], out[:, 2])
    if mask is not None:
        small = F.interpolate(mask, (h, w)).permute(0, 2, 3, 1).reshape(-1, N)
        assert torch.equal(mask_out.permute(0, 2, 3, 1), small[out[:, 0].long()])
    same, _ = augment_layout(features, mask, p=0.0, per_sample=per_sample)
    assert torch.equal(same, features)


def two_objects(B=2, size=16):
    mask = torch.zeros(B, 2, size, size)
    mask[:, 1, 4:8, 5:8] = 1
    mask[:, 0] = 1 - mask[:, 1]
    return mask


def rearrangement(mask, seed):
    torch.manual_seed(seed)
    B, _, h, w = mask.shape
    pairs = Pairs.draw(B, True, mask.device)
    return Rearrangement(mask, pairs, 1.0, True), torch.arange(B * h * w).view(B, h, w)


def test_background_copies_never_touch_an_object():
    mask = two_objects()
    moved = 0
    for seed in range(30):
        operations, source = rearrangement(mask, seed)
        for operation in (operations.copy_background, operations.swap_background):
            after = operation(source)
            changed = after != source
            moved += int(changed.sum())
            assert not (changed & mask[:, 1].bool()).any()
            assert mask[:, 0].flatten()[after[changed]].all()
    assert moved > 0


def test_objects_are_pasted_duplicated_and_moved_whole():
    mask = two_objects()
    mask[1] = torch.stack([torch.ones(16, 16), torch.zeros(16, 16)])
    counts = set()
    for seed in range(40):
        operations, source = rearrangement(mask, seed)
        pasted = operations.paste_object(source)
        areas = mask[:, 1].flatten()[pasted].sum((1, 2)).tolist()
        assert areas in ([12.0, 0.0], [12.0, 12.0])
        counts.add(tuple(areas))
        operations.p = 0.5
        moved = mask[:, 1].flatten()[operations.move_objects(source)].sum((1, 2)).tolist()
        assert moved[1] == 0
        assert moved[0] in (0.0, 12.0, 24.0)
        counts.add(moved[0])
    assert counts == {(12.0, 0.0), (12.0, 12.0), 0.0, 12.0, 24.0}
