import numpy as np
import pytest
import torch

from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample
from synthaug.segmenters.contract import Item
from synthaug.segmenters.semantic import (
    SemanticLearner,
    build_segmenter,
    collate,
    optimise,
    predict,
    segmentation_loss,
)
from synthaug.weights import efficientnet_lite0_state

CLASSES = ClassMap((0, 3))


def disc(seed: int, height: int = 48, width: int = 64) -> Sample:
    """A bright disc on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.uniform(14, height - 14), rng.uniform(14, width - 14)
    inside = (y - cy) ** 2 + (x - cx) ** 2 < 100
    image = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
    image[inside] += 120
    return Sample(image, np.where(inside, 3, 0).astype(np.uint8))


@pytest.mark.parametrize("arch", ["unet", "fpn", "deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize("size", [(33, 61), (64, 96)])
def test_any_size_goes_in_and_comes_out(arch: str, size: tuple[int, int]) -> None:
    model = build_segmenter(arch, 3).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


def test_encoder_starts_from_the_bundled_weights() -> None:
    encoder = build_segmenter("unet", 2).net.encoder.model
    state = efficientnet_lite0_state()
    assert torch.equal(encoder.conv_stem.weight.contiguous(), state["conv_stem.weight"])
    last = "blocks.6.0.conv_pwl.weight"
    assert torch.equal(encoder.state_dict()[last].contiguous(), state[last])


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="unknown architecture"):
        build_segmenter("linear", 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="another encoder"):
        build_segmenter("unet", 2, "no-such-encoder")


def test_learns_and_repeats_exactly() -> None:
    batches = Batches(*(item(seed) for seed in range(4)), steps=12)
    runs = []
    for _ in range(2):
        model = build_segmenter("unet", 2, seed=1)
        losses = optimise(model, batches, CLASSES, seed=1)
        runs.append((losses, predict(model, [disc(99).image])[0]))
    assert runs[0][0] == runs[1][0]
    assert np.array_equal(runs[0][1], runs[1][1])
    assert np.mean(runs[0][0][-3:]) < 0.7 * runs[0][0][0]
    truth = CLASSES.encode(disc(99).mask)
    both = ((truth == 1) & (runs[0][1] == 1)).sum()
    assert both / ((truth == 1) | (runs[0][1] == 1)).sum() > 0.6


@pytest.mark.parametrize("arch", ["deeplabv3", "deeplabv3plus"])
def test_deeplab_trains_from_one_sample(arch: str) -> None:
    model = build_segmenter(arch, 2)  # type: ignore[arg-type]
    losses = optimise(model, Batches(item(0), steps=1), CLASSES)
    assert np.isfinite(losses).all()


def test_items_of_different_sizes_are_refused() -> None:
    other = disc(1, 40, 64)
    batches = Batches(item(0), Item(other.image, other.mask), steps=1)
    with pytest.raises(InputError, match="sizes"):
        optimise(build_segmenter("unet", 2), batches, CLASSES)


def test_ignored_pixels_have_no_influence() -> None:
    logits = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    target[0, :2] = 1
    target[0, 3] = -1
    changed = logits.clone()
    changed[..., 3, :] = 50
    assert segmentation_loss(logits, target) == pytest.approx(
        float(segmentation_loss(changed, target))
    )
    assert float(segmentation_loss(logits, torch.full_like(target, -1))) == 0


def test_collate_stacks_images_and_class_channels() -> None:
    sample = disc(0)
    mask = sample.mask.copy()
    mask[0] = 255
    images, masks = collate([item(0), Item(sample.image, mask)], CLASSES)
    assert images.shape == (2, 3, 48, 64)
    assert float(images.max()) <= 1
    assert set(masks[1].unique().tolist()) == {-1, 0, 1}


def test_predict_keeps_order_across_sizes() -> None:
    model = build_segmenter("unet", 2)
    images = [disc(0).image, disc(1, 40, 64).image, disc(2).image]
    together = predict(model, images)
    assert [m.shape for m in together] == [(48, 64), (40, 64), (48, 64)]
    assert np.array_equal(together[2], predict(model, [images[2]])[0])


class Batches:
    """The given batch in every step."""

    def __init__(self, *items: Item, steps: int = 3) -> None:
        self.items = list(items)
        self.steps = steps

    def batch(self, step: int) -> list[Item]:
        return self.items


def item(seed: int, weight: float = 1.0) -> Item:
    return Item(disc(seed).image, disc(seed).mask, weight)


def learn(stream: Batches, size: tuple[int, int] | None = None) -> tuple[list[float], torch.Tensor]:
    learner = SemanticLearner(build_segmenter("fpn", 2, seed=3), size=size)
    losses = learner.learn(stream, CLASSES, seed=3)
    return losses, learner.network.net.segmentation_head[0].weight.detach()


def test_weights_decide_how_much_an_item_teaches() -> None:
    alone, weights = learn(Batches(item(0), item(1)))
    ignored, same = learn(Batches(item(0), item(5, 0.0), item(1), item(6, 0.0)))
    assert ignored == alone
    assert torch.equal(weights, same)
    scaled, _ = learn(Batches(item(0, 0.5), item(1, 0.5)))
    assert scaled == pytest.approx(alone, rel=1e-4)
    less, _ = learn(Batches(item(0), item(1, 0.3)))
    assert less[0] != pytest.approx(alone[0], rel=1e-4)


def test_one_item_and_none_are_batches_too() -> None:
    losses, _ = learn(Batches(item(0), steps=2))
    assert np.isfinite(losses).all()
    assert learn(Batches(item(0, 0.0), steps=2))[0] == [0.0, 0.0]


def test_losses_are_per_item() -> None:
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    both = segmentation_loss(logits, target)
    assert both.shape == (2,)
    for index in range(2):
        one = segmentation_loss(logits[index : index + 1], target[index : index + 1])
        torch.testing.assert_close(both[index : index + 1], one)


def test_learner_works_at_its_size_and_answers_at_the_images() -> None:
    small = [item(seed) for seed in range(4)]
    large = [
        Item(i.image.repeat(2, 0).repeat(2, 1), i.mask.repeat(2, 0).repeat(2, 1)) for i in small
    ]
    assert learn(Batches(*large), size=(48, 64))[0] == learn(Batches(*small))[0]
    learner = SemanticLearner(build_segmenter("fpn", 2, seed=3), size=(48, 64))
    learner.learn(Batches(*small, *large, steps=15), CLASSES, seed=3)
    held_out = disc(99)
    found = learner.segment([held_out.image.repeat(2, 0).repeat(2, 1), held_out.image])
    assert [m.shape for m in found] == [(96, 128), (48, 64)]
    truth = CLASSES.encode(held_out.mask)
    for channels in (found[0][::2, ::2], found[1]):
        assert ((channels == 1) & (truth == 1)).sum() / ((channels == 1) | (truth == 1)).sum() > 0.6
