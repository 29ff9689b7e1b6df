from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from synthaug.config.arms import ARMS
from synthaug.errors import InputError
from synthaug.formats.splits import Unit
from synthaug.gain import runs
from synthaug.gain.runs import Settings, kept_indices, measure, run
from synthaug.mixing.source import working_size
from synthaug.quality.overlap import jf
from synthaug.sample import ClassMap, Sample


class Recorded:
    """Answers with maps prepared in advance and remembers how it was asked."""

    def __init__(self, maps: list[NDArray[np.int64]]) -> None:
        self.maps = maps
        self.asked: list[int] = []

    def segment(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
        start = sum(self.asked)
        self.asked.append(len(images))
        return self.maps[start : start + len(images)]


def unit_of(masks: list[NDArray[np.uint8]], kind: str, ids: tuple[int, ...]) -> Unit:
    samples = [Sample(np.zeros((*m.shape, 3), np.uint8), m, str(i)) for i, m in enumerate(masks)]
    return Unit("toy", samples[:1], samples, ClassMap(ids), kind)  # type: ignore[arg-type]


def random_maps(
    count: int, ids: tuple[int, ...]
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.int64]]]:
    rng = np.random.default_rng(0)
    masks = [np.asarray(ids, np.uint8)[rng.integers(0, len(ids), (40, 50))] for _ in range(count)]
    for mask in masks:
        mask[:3] = 255
        mask[3, 0] = 77  # a class that training did not show
    return masks, [rng.integers(0, len(ids), (40, 50)) for _ in range(count)]


@pytest.mark.parametrize(("in_order", "calls"), [(True, [18]), (False, [16, 2])])
def test_a_video_is_measured_per_frame_and_whole_where_order_counts(
    in_order: bool, calls: list[int]
) -> None:
    masks, maps = random_maps(18, (0, 4, 9))
    unit, learner = unit_of(masks, "video", (0, 4, 9)), Recorded(maps)
    result = measure(learner, unit, in_order=in_order)  # type: ignore[arg-type]
    assert learner.asked == calls
    frames = [jf(unit.classes.encode(m), p, 3) for m, p in zip(masks, maps, strict=True)]
    assert result["measures"]["J"] == pytest.approx(np.mean([f.j for f in frames]))
    assert result["measures"]["F"] == pytest.approx(np.mean([f.f for f in frames]))
    assert result["measures"]["J&F"] == pytest.approx(np.mean([f.mean for f in frames]))
    assert [i["J&F"] for i in result["per_image"]] == pytest.approx([f.mean for f in frames])


def test_frames_without_a_label_do_not_count() -> None:
    """An object that neither map shows would count 1 there, whatever is predicted elsewhere."""
    mask = np.zeros((40, 50), np.uint8)
    mask[:20] = 1
    void = np.full_like(mask, 255)
    nothing = np.zeros((40, 50), np.int64)
    unit = unit_of([mask, void, void], "video", (0, 1))
    result = measure(Recorded([nothing] * 3), unit)  # type: ignore[arg-type]
    assert result["measures"]["J&F"] == 0
    assert [line["J&F"] for line in result["per_image"]] == [0, None, None]
    alone = measure(Recorded([nothing]), unit_of([mask], "video", (0, 1)))  # type: ignore[arg-type]
    assert result["measures"] == alone["measures"]


def test_images_come_in_chunks_and_miou_is_of_the_whole_set() -> None:
    ids = (0, 4, 9, 12)
    masks, maps = random_maps(18, ids)
    masks = [np.where(mask == 12, np.uint8(0), mask) for mask in masks]  # class 12 is nowhere
    maps = [np.where(m == 3, 0, m) for m in maps]
    learner = Recorded(maps)
    result = measure(learner, unit_of(masks, "images", ids))  # type: ignore[arg-type]
    assert sum(learner.asked) == 18
    assert max(learner.asked) <= 16
    truth, found = np.stack(masks), np.asarray(ids)[np.stack(maps)]
    known = np.isin(truth, ids)
    ious = {
        i: np.sum((truth == i) & (found == i)) / np.sum(((truth == i) | (found == i)) & known)
        for i in ids[:3]
    }
    assert result["per_class"] == {
        **{str(i): pytest.approx(v) for i, v in ious.items()},
        "12": None,
    }
    assert result["measures"] == {"mIoU": pytest.approx(np.mean(list(ious.values())))}


def test_a_class_that_no_test_mask_holds_has_no_iou_even_where_it_is_predicted() -> None:
    """Else it would be called hardly learned, which nobody can know."""
    mask = np.zeros((40, 50), np.uint8)
    mask[:20] = 4
    predicted = np.zeros((40, 50), np.int64)
    predicted[:20], predicted[30:] = 1, 2  # channel 2 is class 9
    unit = unit_of([mask], "images", (0, 4, 9))
    result = measure(Recorded([predicted]), unit)  # type: ignore[arg-type]
    assert result["per_class"] == {"0": 0.5, "4": 1.0, "9": None}
    assert result["measures"]["mIoU"] == 0.75  # the mean of these


def test_pictures_that_are_no_video_do_not_influence_each_other(
    make_unit: Callable[..., Unit],
) -> None:
    unit = make_unit(kind="images", tests=5)
    settings = Settings("matching", steps=1, batch_size=2, side_px=64)
    scores = []
    for test in (unit.test, unit.test[::-1]):
        found = run(replace(unit, test=test), ARMS["none"], 0, {}, settings)
        scores.append({line["id"]: line["mIoU"] for line in found["per_image"]})
    assert scores[0] == scores[1]


def test_a_training_that_diverged_is_no_result(
    make_unit: Callable[..., Unit], monkeypatch: pytest.MonkeyPatch, quick: list[int]
) -> None:
    learner = runs.build_learner("x", 2)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(learner), "learn", lambda self, *_, **__: [0.7, float("nan")])
    with pytest.raises(InputError, match=r"training none on toy \(seed 3\) diverged.* than 0.5"):
        run(make_unit(), ARMS["none"], 3, {}, Settings(steps=2, lr=0.5))


def test_a_test_set_without_labels_is_refused() -> None:
    masks = [np.full((40, 50), 255, np.uint8)]
    learner = Recorded([np.zeros((40, 50), np.int64)])
    with pytest.raises(InputError, match="labelled pixel"):
        measure(learner, unit_of(masks, "video", (0, 1)))  # type: ignore[arg-type]


def test_kept_images_are_spread_evenly() -> None:
    assert kept_indices(1) == {0}
    assert kept_indices(5) == {0, 1, 2, 3, 4}
    kept = sorted(kept_indices(70))
    assert len(kept) == 8
    assert (kept[0], kept[-1]) == (0, 69)
    assert np.ptp(np.diff(kept)) <= 1


def test_the_working_size_keeps_the_shape_and_never_grows() -> None:
    assert working_size((240, 427), 256) == (144, 256)
    assert working_size((427, 240), 256) == (256, 144)
    assert working_size((48, 64), 256) == (48, 64)
    assert working_size((100, 2000), 256) == (32, 256)
