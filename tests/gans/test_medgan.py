from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.special import betainc
from torch import nn

from synthaug.errors import InputError
from synthaug.gans.medgan.losses import (
    Draw,
    Weights,
    classifier_terms,
    discriminator_terms,
    generator_terms,
    mixed_cross_entropy,
    same_class_partners,
)
from synthaug.gans.medgan.networks import (
    ImageGenerator,
    ImageTrunk,
    MaskEmbedding,
    MedDiscriminator,
    PointGenerator,
    Verdict,
    image_classifier,
    mlp,
)
from synthaug.gans.medgan.training import Players, Settings, train
from synthaug.gans.regions import (
    LEAST_AREA,
    box_masks,
    contrastive,
    feature_distance,
    jitter_boxes,
    looking_boxes,
    mix,
    mixing_boxes,
)

OFF = Weights().without_regularisers()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def draw_of(shape, classes=3, batch=4):
    samples = [torch.randn(batch, *shape) for _ in range(3)]
    labels = [torch.randint(classes, (batch,)) for _ in range(3)]
    return Draw(*(part for pair in zip(samples, labels, strict=True) for part in pair))


def image_players(classes=3, embed_masks=True):
    trunk = ImageTrunk(16, 8)
    return Players(
        ImageGenerator(16, classes, 8, 6),
        MedDiscriminator(trunk, trunk.channels, classes, embed_masks=embed_masks),
        image_classifier(classes, 8),
        6,
        classes,
    )


def few_images():
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return (images[:6], torch.arange(6) % 3), images[6:]


def _mean_of_beta_above(least, alpha):
    """E[x | x >= least], from x Beta(a, a) = Beta(a + 1, a) / 2."""
    return 0.5 * (1 - betainc(alpha + 1, alpha, least)) / (1 - betainc(alpha, alpha, least))


class TestBoxes:
    def test_looking_boxes_cover_three_quarters_to_all_of_the_picture(self):
        boxes = looking_boxes(2000, 64, 64)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= 64).all()
        sides = (boxes[:, 2:] - boxes[:, :2]).float() / 64
        area = sides.prod(1)
        assert area.min() > 0.72  # sides are whole pixels
        assert area.mean() == pytest.approx(0.875, abs=0.01)
        ratio = sides[:, 0] / sides[:, 1]
        assert ratio.min() >= 0.73
        assert ratio.max() <= 1.37

    def test_mixing_boxes_keep_the_share_that_they_were_drawn_for(self):
        boxes = mixing_boxes(4000, 64, 64)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= 64).all()
        area = box_masks(boxes, 64, 64).mean((1, 2, 3))
        assert area.min() >= LEAST_AREA - 1e-6
        # Cut off at the border it would be 0.15, whatever lambda says.
        expected = _mean_of_beta_above(LEAST_AREA, 0.2)
        assert float(area.mean()) == pytest.approx(expected, abs=0.02)

    def test_small_mixing_boxes_lie_everywhere_alike(self):
        boxes = mixing_boxes(6000, 16, 16)
        small = boxes[(boxes[:, 2] - boxes[:, 0]) == 4]
        tops = torch.bincount(small[:, 0], minlength=13)
        assert len(tops) == 13
        assert tops.min() > 0.4 * tops.float().mean()

    def test_jittered_boxes_differ_little(self):
        boxes = mixing_boxes(500, 32, 32)
        moved = jitter_boxes(boxes, 32, 32)
        flipped = (box_masks(boxes, 32, 32) != box_masks(moved, 32, 32)).float().mean((1, 2, 3))
        assert flipped.max() <= 0.1
        assert (flipped > 0).float().mean() > 0.3
        assert (moved[:, 2:] > moved[:, :2]).all()
        assert (moved >= 0).all()
        assert (moved <= 32).all()

    def test_masks_are_one_inside(self):
        mask = box_masks(torch.tensor([[1, 0, 3, 2]]), 4, 3)
        assert mask[0, 0].tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]


class TestLosses:
    def test_mixing_takes_the_inside_from_the_first(self):
        mask = box_masks(torch.tensor([[0, 0, 1, 2]]), 2, 2)
        mixed = mix(torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), -1.0), mask)
        assert mixed[0, 0].tolist() == [[3, 3], [-1, -1]]

    def test_distances_are_of_directions(self):
        first = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
        second = torch.tensor([[0.0, 7.0], [5.0, 5.0], [0.0, -1.0]])
        assert feature_distance(first, second).tolist() == pytest.approx([2, 0, 4], abs=1e-6)
        maps = [part.view(3, 2, 1, 1) for part in (first, second)]
        assert torch.equal(feature_distance(*maps), feature_distance(first, second))

    def test_contrast_wants_the_margin(self):
        x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        assert contrastive(x, x, y, 0.5).item() == 0  # 0 - 2 + 0.5
        assert contrastive(x, x, x, 0.5).item() == 0.5
        assert contrastive(x, y, x, 0.5).item() == pytest.approx(2.5)
        lean = F.normalize(torch.tensor([[1.0, 0.5]]))
        far = 2 - 2 * 2 / math.sqrt(5)  # 0.211
        assert contrastive(x, x, lean, 0.5).item() == pytest.approx(0.5 - far, abs=1e-6)

    def test_mixed_cross_entropy_weighs_by_area(self):
        logits = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)]])
        loss = mixed_cross_entropy(
            logits, torch.tensor([0]), torch.tensor([2]), torch.tensor([0.25])
        )
        assert loss.item() == pytest.approx(-0.75 * math.log(0.7) - 0.25 * math.log(0.1))

    def test_partners_share_the_class(self):
        labels = torch.tensor([0, 1, 0, 2, 0])
        picked = set()
        for _ in range(40):
            partner, found = same_class_partners(labels)
            assert found.tolist() == [True, False, True, False, True]
            assert (labels[partner] == labels)[found].all()
            assert (partner != torch.arange(5))[found].all()
            picked.add(int(partner[0]))
        assert picked == {2, 4}

    def test_discriminator_terms_of_points_by_hand(self):
        class D(nn.Module):
            """The first coordinate plus the class is the logit; points are the features."""

            def forward(self, x, mask, y):
                assert mask is None
                return Verdict(x[:, 0] + y, x)

        real, fake = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        unlabelled = torch.tensor([[0.0, 2.0], [0.0, 5.0]])
        classes = torch.tensor([0, 1])
        draw = Draw(real, classes, unlabelled, torch.tensor([0, 1]), fake, classes)
        terms = discriminator_terms(D(), draw, Weights(contrast=2.0))
        soft = [math.log1p(math.exp(v)) for v in (-1, -1, 0, -1, 1, 0)]
        assert terms.keys() == {"real", "unlabelled", "fake", "contrast"}
        assert terms["real"].tolist() == pytest.approx(soft[:2])
        assert terms["unlabelled"].tolist() == pytest.approx(soft[2:4])
        assert terms["fake"].tolist() == pytest.approx(soft[4:])
        # Anchor, partner, fake as directions: (x y x), (y y -x), (y x x), (y y -x) and margin 0.5.
        first = ((2 - 0 + 0.5) + (2 - 2 + 0.5)) / 2
        assert terms["contrast"].tolist() == pytest.approx([2 * first, 0], abs=1e-6)
        assert discriminator_terms(D(), draw, OFF).keys() == {"real", "unlabelled", "fake"}

    def test_mixed_pictures_count_as_real_ones(self):
        class D(nn.Module):
            def forward(self, x, mask, y):
                inside = (x * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
                return Verdict(inside, x)

        ones = torch.ones(3, 1, 16, 16)
        labels = torch.zeros(3, dtype=torch.long)
        draw = Draw(ones, labels, ones, labels, -ones, labels)
        terms = discriminator_terms(D(), draw, Weights())
        alike = math.log1p(math.exp(-1))  # inside its box a mixed picture is the real one
        assert terms["identification"].tolist() == pytest.approx([0.1 * alike] * 3)
        assert terms["fake"].tolist() == pytest.approx([alike] * 3)
        assert (terms["consistency"] >= 0).all()
        # Real against generated differ by 4, the mixed one lies in between.
        assert (terms["contrast"] <= 0.5).all()

    def test_the_generator_is_told_its_class(self):
        players = image_players()
        fake = torch.randn(4, 3, 16, 16)
        asked = torch.tensor([0, 1, 2, 0])
        D, C = players.discriminator, players.classifier
        terms = generator_terms(D, C, fake, asked, Weights(recognition=3.0))
        expected = 3 * F.cross_entropy(C(fake), asked, reduction="none")
        assert torch.allclose(terms["recognition"], expected)
        assert (terms["adversarial"] > 0).all()
        plain = generator_terms(D, C, fake, asked, Weights(recognition=0.0))
        assert plain.keys() == {"adversarial"}

    def test_the_classifier_sees_points_in_halves(self):
        draw = draw_of((2,))
        C = mlp(2, 8, 3)
        terms = classifier_terms(C, draw)
        losses = [
            F.cross_entropy(C(x), y, reduction="none")
            for x, y in ((draw.real, draw.label), (draw.fake, draw.asked))
        ]
        assert torch.allclose(terms["fake"], (losses[0] + losses[1]) / 2)
        assert terms["unlabelled"].shape == (4,)

    def test_the_classifier_is_right_where_all_pictures_are_of_one_class(self):
        labels = torch.ones(4, dtype=torch.long)
        picture = torch.randn(4, 3, 16, 16)
        draw = Draw(picture, labels, picture, labels, picture, labels)
        C = image_classifier(3, 8)
        expected = F.cross_entropy(C(picture), labels, reduction="none")
        for loss in classifier_terms(C, draw).values():
            assert torch.allclose(loss, expected, atol=1e-6)


class TestNetworks:
    def test_the_mask_has_no_say_before_training_and_a_gradient(self):
        embed = MaskEmbedding(6, 4)
        mask = box_masks(mixing_boxes(2, 32, 32), 32, 32)
        weights = embed(mask, (4, 4))
        assert weights.shape == (2, 6, 4, 4)
        assert not weights.any()
        weights.sum().backward()
        assert embed.gain.grad.abs().max() > 0

    def test_features_are_weighted_by_one_plus_the_embedding(self):
        D = MedDiscriminator(nn.Identity(), 3, 2).eval()
        nn.init.ones_(D.embed_mask.gain)
        x, mask = torch.randn(2, 3, 4, 4), box_masks(mixing_boxes(2, 16, 16), 16, 16)
        y = torch.tensor([1, 0])
        verdict = D(x, mask, y)
        expected = x * (1 + D.embed_mask(mask, (4, 4)))
        assert torch.allclose(verdict.features, expected)
        pooled = expected.sum((2, 3)) * (1 + D.embed_label.weight[y])
        assert torch.allclose(verdict.logits, D.head(pooled)[:, 0])
        without = MedDiscriminator(nn.Identity(), 3, 2, embed_masks=False)
        assert torch.equal(without(x, mask, y).features, x)

    def test_shapes(self):
        players = image_players()
        y = torch.tensor([0, 2])
        image = players.generator(torch.randn(2, 6), y)
        assert image.shape == (2, 3, 16, 16)
        assert image.abs().max() <= 1
        assert players.discriminator(image, None, y).features.shape == (2, 16, 4, 4)
        assert players.classifier(image).shape == (2, 3)
        assert PointGenerator(3, 8, 5)(torch.randn(2, 5), y).shape == (2, 2)


class TestTraining:
    def test_players_have_rates_of_their_own(self):
        players = image_players()
        nets = players.generator, players.discriminator, players.classifier
        before = [[p.detach().clone() for p in net.parameters()] for net in nets]
        train(players, *few_images(), Settings(2, 4, lr_generator=0.0, lr_discriminator=0.0))
        moved = [
            any(not torch.equal(a, b) for a, b in zip(net.parameters(), old, strict=True))
            for net, old in zip(nets, before, strict=True)
        ]
        assert moved == [False, False, True]

    def test_every_player_learns_and_the_same_seed_gives_the_same_weights(self):
        ends = []
        for _ in range(2):
            torch.manual_seed(1)
            players = image_players()
            nets = (players.generator, players.discriminator, players.classifier)
            starts = [[p.detach().clone() for p in net.parameters()] for net in nets]
            seen = {}
            train(players, *few_images(), Settings(3, 4, supervised_steps=2), seen.__setitem__)
            for net, start in zip(nets, starts, strict=True):
                moved = [
                    not torch.equal(p, q) for p, q in zip(net.parameters(), start, strict=True)
                ]
                assert sum(moved) > 0.8 * len(moved)
                assert all(p.requires_grad for p in net.parameters())
            ends.append([p.detach().clone() for net in nets for p in net.parameters()])
            assert list(seen) == [1, 2, 3, 4, 5]
            assert seen[2].keys() == {"c/labelled"}
            assert {"d/consistency", "d/contrast", "d/identification"} <= seen[3].keys()
            assert all(term.isfinite() for terms in seen.values() for term in terms.values())
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))

    def test_classes_out_of_range_and_empty_sets_are_refused(self):
        (images, labels), unlabelled = few_images()
        with pytest.raises(InputError, match="0 to 2"):
            train(image_players(), (images, labels + 1), unlabelled, Settings(1, 2))
        with pytest.raises(InputError, match="some of both"):
            train(image_players(), (images, labels), unlabelled[:0], Settings(1, 2))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"images": lambda x: x.byte()}, "uint8 and torch.float32: give floats"),
            ({"unlabelled": lambda x: x.byte()}, "float32 and torch.uint8: give floats"),
            ({"unlabelled": lambda x: x[..., :8]}, r"shapes \(3, 16, 16\) and \(3, 16, 8\): bring"),
            ({"labels": lambda y: y[:4]}, r"classes are \(4,\) torch.int64: give \(6,\)"),
            ({"labels": lambda y: y.repeat(2)}, r"classes are \(12,\)"),
            ({"labels": lambda y: y.int()}, "torch.int32: give .* torch.int64"),
            ({"settings": {"steps": -3}}, "-3 steps after 0 supervised ones"),
            ({"settings": {"steps": 0}}, "there must be some of both"),
            ({"settings": {"supervised_steps": -1}}, "after -1 supervised"),
            ({"settings": {"batch_size": 0}}, "in batches of 0"),
        ],
    )
    def test_data_and_settings_of_another_kind_are_refused(self, change, words):
        (images, labels), unlabelled = few_images()
        given = {"images": images, "labels": labels, "unlabelled": unlabelled}
        data = {name: change.get(name, lambda x: x)(tensor) for name, tensor in given.items()}
        settings = Settings(**{"steps": 1, "batch_size": 2} | change.get("settings", {}))
        labelled = data["images"], data["labels"]
        with pytest.raises(InputError, match=words):
            train(image_players(), labelled, data["unlabelled"], settings)


@pytest.mark.parametrize("size", [0, 4, 12, 48])
def test_sizes_that_no_doubling_reaches_are_refused(size):
    for build in (lambda: ImageGenerator(size, 3), lambda: ImageTrunk(size)):
        with pytest.raises(InputError, match=f"no images of {size} px a side: use 8, 16"):
            build()
