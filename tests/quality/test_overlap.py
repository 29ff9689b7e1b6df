import numpy as np
import pytest

from synthaug.quality.overlap import confusion_matrix, iou_per_class, mean_iou


def test_hand_counted_example() -> None:
    target = np.array([[0, 0, 1], [1, 2, -1]])
    prediction = np.array([[0, 1, 1], [1, 0, 2]])
    confusion = confusion_matrix(target, prediction, 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert iou_per_class(confusion) == pytest.approx([1 / 3, 2 / 3, 0])
    assert mean_iou(confusion) == pytest.approx(1 / 3)
    assert mean_iou(confusion, background=False) == pytest.approx(1 / 3)


def test_absent_classes_are_excluded() -> None:
    target = np.array([0, 0, 1, 1])
    confusion = confusion_matrix(target, target, 5)
    assert mean_iou(confusion) == 1
    assert np.isnan(iou_per_class(confusion)[2:]).all()


def test_nothing_to_compare_is_nan() -> None:
    confusion = confusion_matrix(np.full(4, -1), np.zeros(4, int), 2)
    assert np.isnan(mean_iou(confusion))


def test_ignored_pixels_do_not_count() -> None:
    target = np.array([0, 1, 255, -1])
    prediction = np.array([0, 1, 0, 1])
    assert confusion_matrix(target, prediction, 2).sum() == 2


def test_equals_sets_of_pixels_on_random_maps() -> None:
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(0, 4, (2, 50, 60))
    values = iou_per_class(confusion_matrix(target, prediction, 4))
    for c in range(4):
        both = ((target == c) & (prediction == c)).sum()
        either = ((target == c) | (prediction == c)).sum()
        assert values[c] == pytest.approx(both / either)
