"""Masks for the images of a StyleGAN2: the head, its judge, and the second phase."""

from __future__ import annotations

import copy

import pytest
import torch

from synthaug import gans
from synthaug.engine import Engine
from synthaug.gans.contract import PairBatch
from synthaug.gans.stylegan2 import masks
from synthaug.training import LoopSettings, TrainingState, train

SPEC = {
    "name": "stylegan2",
    "size": 32,
    "channels": [8, 8, 8, 8],
    "z_dim": 8,
    "w_dim": 8,
    "n_mlp": 2,
    "num_classes": 3,
    "mask_from": 2,
    "bernoulli_steps": 1,
    "smoothness": 5.0,
    "block_heads": True,
}


def build(**options):
    torch.manual_seed(0)
    return gans.build(SPEC | options)


def real_pairs(n=4):
    images = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    one_hot = torch.zeros(n, 3, 32, 32)
    one_hot[:, 0] = 1
    one_hot[:, :, 8:20, 8:20] = 0
    one_hot[:, 1, 8:20, 8:20] = 1
    return images, one_hot  # the third class is never there


def trained(steps, **options):
    gan = build(**options)
    images, one_hot = real_pairs()
    gan.initialise(images, one_hot)
    settings = LoopSettings(steps, 2, 2e-3, 2e-3, 2e-3, (0.0, 0.99), 0.9, False, 0)
    state, lines = TrainingState(gan, [], settings), []

    def after_step(terms):
        lines.append((set(terms), copy.deepcopy(gan.state_dict()), state.ema.state_dict()))
        return False

    train(state, images, one_hot, Engine("cpu", 1, "32-true"), after_step)
    return state, lines


def test_samples_have_class_probabilities():
    gan = build()
    for mode in (True, False):
        pair = gan.generator.train(mode)(gan.latent(2))
        assert pair.mask.shape == (2, 3, 32, 32)
        torch.testing.assert_close(pair.mask.sum(1), torch.ones(2, 32, 32))
    assert build(num_classes=None).generator(gan.latent(2)).mask is None


def test_masks_begin_with_the_averaged_generator_and_leave_it_alone():
    state, lines = trained(4)
    images_only, both = lines[1], lines[3]
    assert not any("mask" in name for name in images_only[0])
    assert both[0] == {"d/real/mask", "d/fake/mask", "g/real/mask"}
    changed = {name for name, value in both[1].items() if not torch.equal(value, lines[2][1][name])}
    assert changed
    assert all("mask_head" in name or "mask_judge" in name for name in changed)
    averaged = state.ema.state_dict()
    for name, value in state.gan.generator.named_parameters():
        if "mask_head" not in name:
            torch.testing.assert_close(value, averaged[name])
    assert state.gan.presence.tolist() == [1, 1, 0]


def test_the_second_phase_gives_no_gradient_to_the_images():
    gan = build(mask_from=0)
    fake = gan.generator(gan.latent(2))
    terms = gan.generator_terms(fake, 5)
    sum(term.sum() for term in terms.values()).backward()
    got = {name for name, p in gan.generator.named_parameters() if p.grad is not None}
    assert got
    assert all(name.startswith("mask_head.") for name in got)
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.mask_head.parameters())
    assert terms.realness().shape == (2,)


def test_joint_masks_train_the_generator_beside_its_images():
    state, lines = trained(4, joint_masks=True)
    names, after, _ = lines[3]
    assert {"d/real/mask", "d/fake/mask", "g/real/mask"} <= names
    assert {"d/real/16px", "g/real/16px", "g/smoothness"} <= names
    assert not any("mask" in name for name in lines[1][0])
    before = lines[2][1]
    moved = {name for name, _ in state.gan.named_parameters() if "source" not in name}
    assert not [name for name in moved if torch.equal(before[name], after[name])]
    gan = build(mask_from=0, joint_masks=True)
    gan.generator_terms(gan.generator(gan.latent(2)), 5)["real/mask"].sum().backward()
    got = {name for name, p in gan.generator.named_parameters() if p.grad is not None}
    assert {"style.1.weight", "convs.5.conv.weight", "mask_head.convs.3.weight"} <= got
    assert not any(name.startswith("to_rgb") for name in got)


@pytest.mark.parametrize("joint", [False, True])
def test_masks_alone_begin_with_the_averaged_generator(joint):
    gan = build(joint_masks=joint)
    own, averaged = copy.deepcopy(gan.generator), copy.deepcopy(gan.generator)
    torch.nn.init.zeros_(averaged.input.input)
    gan.before_step(SPEC["mask_from"], averaged)
    expected = own if joint else averaged
    assert torch.equal(gan.generator.input.input, expected.input.input)


def test_the_judge_sees_what_lies_under_the_mask_alone():
    judge = masks.MaskJudge(4, 2)
    features = torch.randn(1, 4, 8, 8)
    mask = torch.zeros(1, 2, 16, 16)
    mask[:, 0, :8], mask[:, 1, 8:] = 1, 1
    elsewhere = features.clone()
    elsewhere[:, :, 4:] += 1
    before, after = judge(features, mask), judge(elsewhere, mask)
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


@pytest.mark.parametrize("draw", [True, False])
def test_straight_through_is_hard_and_passes_gradients(draw):
    soft = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).repeat(1, 1, 64, 64).requires_grad_()
    torch.manual_seed(0)
    hard = masks.straight_through(soft, draw=draw)
    share = float(hard[:, 0].detach().mean())
    assert share == pytest.approx(0.7 if draw else 1.0, abs=0.03)
    torch.testing.assert_close(hard.detach().amax(1), torch.ones(1, 64, 64))
    (2 * hard).sum().backward()
    torch.testing.assert_close(soft.grad, torch.full_like(soft, 2.0))


def test_content_is_called_its_class_or_generated():
    logits = torch.zeros(1, 2, 3)
    logits[0, 0, 0] = logits[0, 1, 2] = 20.0  # the first area its own class, the second generated
    weights = torch.tensor([[1.0, 0.0]])
    assert float(masks.content_loss(logits, weights, real=True)) == pytest.approx(0, abs=1e-4)
    assert float(masks.content_loss(logits, weights, real=False)) == pytest.approx(20, abs=1e-4)
    assert float(masks.content_loss(logits, weights.flip(1), real=False)) < 1e-4
    assert float(masks.content_score(logits, torch.ones(1, 2))) == pytest.approx(0)
    assert float(masks.content_score(logits, weights)) == pytest.approx(20)
    assert float(masks.content_loss(logits, weights * 0, real=True)) == 0


def test_masks_of_a_batch_without_a_class_are_no_reason_to_stop():
    gan = build(mask_from=0)
    images, one_hot = real_pairs(2)
    gan.initialise(images, one_hot)
    one_hot[:] = 0  # nothing is labelled
    terms = gan.discriminator_terms(PairBatch((images,), one_hot), gan.generator(gan.latent(2)), 0)
    assert all(torch.isfinite(term).all() for term in terms.values())
