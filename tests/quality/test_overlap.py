import numpy as np
import pytest

from synthaug.quality.overlap import (
    boundary_measure,
    confusion_matrix,
    frequency_groups,
    iou_per_class,
    jf,
    mean_iou,
    mean_iou_by_group,
    region_similarity,
)


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


def test_a_stray_pixel_of_a_class_that_no_target_holds_costs_a_pixel() -> None:
    target = np.repeat([0, 1], 50)
    stray = target.copy()
    stray[0] = 2
    confusion = confusion_matrix(target, stray, 3)
    assert mean_iou(confusion) == pytest.approx((49 / 50 + 1) / 2)
    assert np.isnan(iou_per_class(confusion)[2])
    assert mean_iou_by_group(confusion, [[0, 1], [1, 2]]) == pytest.approx([0.99, 1])


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


def _slow_boundary(mask):
    """The benchmark's boundary map, pixel by pixel."""
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            near = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(v < height and u < width and mask[y, x] != mask[v, u] for v, u in near):
                found.append((y, x))
    return np.array(found, float).reshape(-1, 2)


def _slow_f(target, prediction, radius):
    """F from the distances of all pairs of boundary pixels."""
    distance = pytest.importorskip("scipy.spatial.distance")
    true, found = _slow_boundary(target), _slow_boundary(prediction)
    if not len(true) or not len(found):
        precision, recall = float(not len(found)), float(not len(true))
    else:
        pairs = distance.cdist(found, true, "sqeuclidean")
        precision = (pairs.min(1) <= radius**2).mean()
        recall = (pairs.min(0) <= radius**2).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _blobs(seed, shape=(60, 85), threshold=0.0):
    ndimage = pytest.importorskip("scipy.ndimage")
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    return [ndimage.gaussian_filter(plane, 4) > threshold for plane in noise]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bound", [0.0, 0.008, 0.03, 3])
def test_boundary_measure_equals_distances_of_all_pairs(seed, bound) -> None:
    target, prediction = _blobs(seed)
    if seed % 2:  # an outline close to the true one
        prediction = np.roll(target, (1, -2), (0, 1))
    radius = np.ceil(bound * np.hypot(*target.shape)) if bound < 1 else bound
    expected = _slow_f(target, prediction, radius)
    assert boundary_measure(target, prediction, bound) == pytest.approx(expected, abs=1e-12)


def test_boundary_measure_equals_dilation_with_the_disk_of_scikit_image() -> None:
    morphology = pytest.importorskip("skimage.morphology")
    target, prediction = (np.kron(m, np.ones((3, 3), bool)) for m in _blobs(9))
    prediction = target ^ (prediction & np.roll(target, 7, 0))
    maps = np.zeros((2, *target.shape), bool)
    for plane, mask in zip(maps, (target, prediction), strict=True):
        plane[tuple(_slow_boundary(mask).astype(int).T)] = True
    disk = morphology.disk(int(np.ceil(0.008 * np.linalg.norm(target.shape))))
    dilated = [morphology.dilation(plane, disk) for plane in maps]
    precision = (maps[1] & dilated[0]).sum() / maps[1].sum()
    recall = (maps[0] & dilated[1]).sum() / maps[0].sum()
    assert 0.3 < recall < 1
    assert boundary_measure(target, prediction) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


def test_tolerance_is_rounded_up_and_inclusive() -> None:
    # The diagonal of 240x427 is 489.8 px, 0.008 of it 3.92: 4 px count, 5 px do not.
    target = np.zeros((240, 427), bool)
    target[:, :200] = True
    shifted = np.zeros_like(target)
    shifted[:, :204] = True
    assert boundary_measure(target, shifted) == 1
    shifted[:, :205] = True
    assert boundary_measure(target, shifted) == 0


def test_empty_boundaries() -> None:
    empty, full = np.zeros((40, 50), bool), np.ones((40, 50), bool)
    some = empty.copy()
    some[10:20, 10:20] = True
    assert boundary_measure(empty, empty) == 1
    assert boundary_measure(full, empty) == 1  # the frame's edge is no boundary
    assert boundary_measure(some, empty) == 0
    assert boundary_measure(empty, some) == 0
    assert boundary_measure(some, full) == 0
    assert boundary_measure(some, some) == 1
    corner = empty.copy()
    corner[-1, -1] = True  # seen from its three neighbours
    assert boundary_measure(corner, corner) == 1
    assert boundary_measure(corner, empty) == 0


def test_region_similarity() -> None:
    target, prediction = _blobs(3)
    expected = (target & prediction).sum() / (target | prediction).sum()
    assert region_similarity(target, prediction) == pytest.approx(expected)
    empty = np.zeros((4, 5), bool)
    assert region_similarity(empty, empty) == 1
    assert region_similarity(empty, ~empty) == 0
    assert region_similarity(~empty, ~empty) == 1


def test_several_objects_are_averaged() -> None:
    first, second = _blobs(1, threshold=0.05)
    target = np.where(first, 1, np.where(second, 2, 0))
    prediction = np.roll(target, 2, 1)
    prediction[:30][prediction[:30] == 2] = 1
    score = jf(target, prediction, 3)
    objects = [(target == c, prediction == c) for c in (1, 2)]
    assert score.j == pytest.approx(np.mean([region_similarity(*o) for o in objects]))
    assert score.f == pytest.approx(np.mean([boundary_measure(*o) for o in objects]))
    assert score.mean == pytest.approx((score.j + score.f) / 2)
    assert jf(target, target, 3) == (1, 1)
    # A third object that is in neither map counts as right.
    assert jf(target, prediction, 4).j == pytest.approx((2 * score.j + 1) / 3)


@pytest.mark.parametrize("void", [-1, 255])
def test_void_pixels_belong_to_no_object(void) -> None:
    target = np.zeros((40, 50), np.int64)
    target[10:30, 10:30] = 1
    prediction = target.copy()
    prediction[:, 35:] = 1
    assert jf(target, prediction, 2).j < 1
    target[:, 35:] = void
    assert jf(target, prediction, 2) == (1, 1)


def test_classes_are_grouped_by_their_share_of_the_pixels() -> None:
    pixels = [10, 500, 0, 330, 120, 25, 15]
    assert frequency_groups(pixels) == [[1, 3], [4], [5, 6], [0, 2]]
    assert frequency_groups([95, 5]) == [[0], [1]]
    assert frequency_groups([3, 1, 2], shares=(1.0,)) == [[0, 2, 1]]


def test_mean_iou_by_group() -> None:
    confusion = np.diag([8, 6, 0, 1])
    confusion[0, 1] = 2
    values = mean_iou_by_group(confusion, [[0, 1], [3, 2], [2]])
    assert values[:2] == pytest.approx([(8 / 10 + 6 / 8) / 2, 1.0])
    assert np.isnan(values[2])
