import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from synthaug.bank import Bank, write_bank
from synthaug.errors import InputError
from synthaug.evaluation.bank_quality import evaluate, mask_agreement, mild_augmentation
from synthaug.filtering import filter_bank
from synthaug.mixing import standard_augmentation
from synthaug.sample import ClassMap, Sample

CLASSES = ClassMap((0, 5))


def pair() -> Sample:
    """A photographed cat with a painted disc."""
    image = cv2.resize(data.chelsea(), (96, 64), interpolation=cv2.INTER_AREA)
    mask = np.zeros((64, 96), np.uint8)
    cv2.ellipse(mask, (40, 30), (18, 14), 20, 0, 360, 5, -1)
    image[mask > 0] = image[mask > 0] // 3 + np.array([20, 60, 160], np.uint8)
    return Sample(image, mask, "cat")


def augmented(count: int, seed: int = 0) -> list[Sample]:
    augment = standard_augmentation(64, 96, seed)
    draws = [augment(image=pair().image, mask=pair().mask) for _ in range(count)]
    return [Sample(draw["image"], draw["mask"]) for draw in draws]


def make_bank(path: Path, samples: list[Sample]) -> Bank:
    return write_bank(path, [(sample, {}) for sample in samples], [pair()], CLASSES, {})


def test_shuffled_masks_fail_mask_agreement() -> None:
    samples = augmented(16)
    right = mask_agreement(samples, [pair()], CLASSES, steps=40, tests=16)
    masks = [np.roll(s.mask, (20 + 3 * i, 30 + 7 * i), (0, 1)) for i, s in enumerate(samples)]
    shuffled = [Sample(s.image, mask) for s, mask in zip(samples, masks, strict=True)]
    wrong = mask_agreement(shuffled, [pair()], CLASSES, steps=40, tests=16)
    assert right["foreground_iou"] >= 0.9
    assert wrong["foreground_iou"] < 0.5
    assert right["miou"] == pytest.approx(np.mean(list(right["iou"].values())))
    assert set(right["iou"]) == {"0", "5"}


def test_masks_shrink_in_step_with_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((256, 480), np.uint8)
    mask[40:-40, 101:-101] = 5  # symmetric: shrunk by 2.5, it must stay so
    sample, learned = Sample(np.repeat(mask[..., None], 3, 2), mask), []

    def train(model: object, batches: object, *_: object, **__: object) -> list[float]:
        learned.extend(batches.samples)  # type: ignore[attr-defined]
        return [0.0]

    monkeypatch.setattr("synthaug.evaluation.bank_quality.optimise", train)
    mask_agreement([sample], [sample], CLASSES, tests=1)
    assert learned[0].size == (102, 192)
    assert np.array_equal(learned[0].mask, learned[0].mask[:, ::-1])


def test_a_bank_of_augmented_copies_equals_standard_augmentation(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", augmented(40, seed=7))
    parts: dict[str, list[tuple[int, int]]] = {}

    def note(part: str, done: int, total: int) -> None:
        parts.setdefault(part, []).append((done, total))

    figures = evaluate(bank, agreement_steps=2, progress=note)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["samples"] == 40
    assert figures["network"] == "efficientnet_lite0"
    assert len(figures["sifid"]["bank"]) == 4
    for ours, theirs in zip(*figures["sifid"].values(), strict=True):
        assert ours == pytest.approx(theirs, rel=0.4)
    assert figures["diversity"]["ratio"] == pytest.approx(1, abs=0.15)
    assert figures["diversity"]["combined_ratio"] > 1
    nearest = figures["nearest_training_distance"]
    assert nearest["bank"]["mean"] == pytest.approx(nearest["standard"]["mean"], rel=0.3)
    assert 0 <= figures["mask_agreement"]["miou"] <= 1
    assert set(figures["seconds"]) == {"load", *parts}
    assert parts.pop("mask agreement") == [(1, 2), (2, 2)]
    assert list(parts) == ["bank", "standard augmentation", "bank and standard augmentation"]
    assert all(seen == [(i, 40) for i in range(1, 41)] for seen in parts.values())


def test_a_generator_that_repeats_the_pair_is_exposed(tmp_path: Path) -> None:
    make_bank(tmp_path / "bank", [pair() for _ in range(6)])
    figures = evaluate(tmp_path / "bank", agreement_steps=0)
    assert figures["memorised"]["bank"] == 6
    assert figures["diversity"]["bank"] == pytest.approx(0, abs=1e-5)
    assert figures["diversity"]["ratio"] < 0.01
    assert figures["nearest_training_distance"]["bank"]["mean"] < 1e-5
    assert max(figures["sifid"]["bank"]) < 1e-3
    assert figures["mask_agreement"] is None
    assert figures["memorised"]["filtered"] is None


def test_only_kept_samples_count(tmp_path: Path) -> None:
    make_bank(tmp_path / "bank", [*augmented(8, seed=3), pair(), pair()])
    filter_bank(tmp_path / "bank", network="efficientnet_lite0", drop=0)
    kept = len(Bank(tmp_path / "bank"))
    figures = evaluate(tmp_path / "bank", network="efficientnet_lite0", agreement_steps=0)
    assert figures["samples"] == kept < 9
    assert figures["memorised"]["bank"] == 0
    assert figures["memorised"]["filtered"] >= 2
    capped = evaluate(tmp_path / "bank", max_samples=3, agreement_steps=0)
    assert capped["samples"] == 3


def test_evaluation_repeats_under_its_seed(tmp_path: Path) -> None:
    make_bank(tmp_path / "bank", augmented(4))
    runs = [evaluate(tmp_path / "bank", seed=s, agreement_steps=0) for s in (1, 1, 2)]
    assert runs[0]["diversity"] == runs[1]["diversity"]
    assert runs[0]["diversity"] != runs[2]["diversity"]


def test_an_empty_bank_is_refused(tmp_path: Path) -> None:
    make_bank(tmp_path / "bank", [pair() for _ in range(3)])
    filter_bank(tmp_path / "bank", network="efficientnet_lite0")
    with pytest.raises(InputError, match="keeps 0"):
        evaluate(tmp_path / "bank")


def test_mild_augmentation_moves_image_and_mask_together() -> None:
    mask = pair().mask
    sample = Sample(np.repeat(mask[..., None], 3, 2), mask)
    stream = np.random.default_rng(0)
    seen = [mild_augmentation(sample, stream) for _ in range(40)]
    for out in seen:
        assert out.mask.shape == mask.shape
        assert np.array_equal(out.image[..., 0], out.mask)
    unchanged = sum(np.array_equal(out.mask, mask) for out in seen)
    assert 8 <= unchanged <= 28
    assert np.array_equal(sample.mask, pair().mask)


def test_pictures_alone_are_measured_without_mask_agreement(tmp_path: Path) -> None:
    image = cv2.resize(data.coffee(), (96, 64), interpolation=cv2.INTER_AREA)
    unlabelled = np.full((64, 96), 255, np.uint8)
    samples = [(Sample(np.roll(image, 9 * i, 1), unlabelled), {}) for i in range(3)]
    bank = write_bank(
        tmp_path / "bank", samples, [Sample(image, unlabelled)], ClassMap(()), {"seed": 0}
    )
    result = evaluate(bank)
    assert result["mask_agreement"] is None
    assert result["samples"] == 3
    with pytest.raises(InputError, match="max_samples is 1: give at least 2"):
        evaluate(bank, max_samples=1)


def test_pictures_of_one_colour_have_no_ratio(tmp_path: Path) -> None:
    black = Sample(np.zeros((64, 48, 3), np.uint8), pair().mask[:, :48], "black")
    write_bank(tmp_path / "bank", [(black, {})] * 4, [black], CLASSES, {})
    figures = evaluate(tmp_path / "bank", agreement_steps=0)
    assert figures["diversity"]["standard"] == 0
    assert figures["diversity"]["ratio"] is None
    assert figures["diversity"]["combined_ratio"] is None


def test_agreement_is_of_the_objects_and_repeats() -> None:
    one, same, other = (
        mask_agreement(augmented(4), [pair()], CLASSES, steps=2, tests=4, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == same != other
    assert one["foreground_iou"] == one["iou"]["5"]
