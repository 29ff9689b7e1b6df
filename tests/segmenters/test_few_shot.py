import numpy as np
import pytest
from numpy.typing import NDArray

from synthaug.errors import InputError
from synthaug.sample import ClassMap
from synthaug.segmenters.contract import Item
from synthaug.segmenters.few_shot import RegionProportionLearner, _logits
from synthaug.segmenters.pixel_features import flat

CLASSES = ClassMap((0, 1, 2))


class Items:
    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.steps = 2

    def batch(self, step: int) -> list[Item]:
        return self.items


def scene(seed: int, weight: float = 1.0) -> Item:
    """A red rectangle (1) and a green one (2) somewhere on grey noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 130, (96, 128, 3)).astype(np.uint8)
    mask = np.zeros((96, 128), np.uint8)
    for number, colour in ((1, (220, 30, 30)), (2, (30, 200, 30))):
        top, left = int(rng.integers(0, 56)), int(rng.integers(0, 24)) + 64 * (number - 1)
        mask[top : top + 40, left : left + 40] = number
        image[top : top + 40, left : left + 40] = colour
    return Item(image, mask, weight)


def segment(items: list[Item], query: Item, **settings: int) -> NDArray[np.int64]:
    learner = RegionProportionLearner(3, **settings)  # type: ignore[arg-type]
    losses = learner.learn(Items(items), CLASSES, seed=0)
    assert losses[-1] < losses[0]
    return learner.segment([query.image])[0]


def lowest_iou(channels: NDArray[np.int64], query: Item) -> float:
    truth = CLASSES.encode(query.mask)
    return min(
        float(((channels == c) & (truth == c)).sum() / ((channels == c) | (truth == c)).sum())
        for c in range(3)
    )


def test_segments_held_out_images_and_repeats() -> None:
    support, query = [scene(0), scene(1)], scene(7)
    found = segment(support, query)
    assert lowest_iou(found, query) > 0.6
    assert np.array_equal(found, segment(support, query))


def test_each_query_is_adapted_to_alone() -> None:
    learner = RegionProportionLearner(3, steps=20)
    learner.learn(Items([scene(0)]), CLASSES, seed=0)
    images = [scene(5).image, scene(6).image]
    assert np.array_equal(learner.segment(images)[1], learner.segment(images[1:])[0])


def test_query_steps_make_predictions_surer() -> None:
    found = []
    for steps in (0, 30):
        learner = RegionProportionLearner(3, query_steps=steps)
        learner.learn(Items([scene(0)]), CLASSES, seed=0)
        query = flat(learner._net.of_image(scene(8).image, learner.size)).detach()
        shares = _logits(query, *learner._adapt(query)).softmax(1).detach()
        found.append(float(-(shares * shares.clamp_min(1e-9).log()).sum(1).mean()))
    assert found[1] < 0.6 * found[0]


def test_items_without_weight_do_not_matter() -> None:
    query = scene(7)
    wrong = Item(scene(3).image, (2 - scene(3).mask).astype(np.uint8), 0.0)
    assert np.array_equal(segment([scene(0), wrong], query), segment([scene(0)], query))
    shown = wrong._replace(weight=1.0)
    assert not np.array_equal(segment([scene(0), shown], query), segment([scene(0)], query))


def test_size_and_unusable_support() -> None:
    learner = RegionProportionLearner(3, size=(96, 128), steps=20)
    large = scene(0)
    large = Item(large.image.repeat(2, 0).repeat(2, 1), large.mask.repeat(2, 0).repeat(2, 1))
    learner.learn(Items([large]), CLASSES, seed=0)
    assert learner.segment([scene(4).image[:50, :70]])[0].shape == (50, 70)
    with pytest.raises(InputError, match="weight"):
        learner.learn(Items([scene(0, 0.0)]), CLASSES, seed=0)
    blank = Item(large.image, np.full_like(large.mask, 255))
    with pytest.raises(InputError, match="labelled"):
        learner.learn(Items([blank]), CLASSES, seed=0)
