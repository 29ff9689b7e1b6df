"""Reading what a fit learns from, out of folders as they are found on real disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.fitting.training_pairs import (
    bring_to_usual_size,
    class_folders,
    lost_classes,
    read_class_crops,
    read_square_crops,
    read_training_pairs,
)
from synthaug.sample import IGNORE_ID, ClassMap, Sample


@pytest.fixture
def photographs(tmp_path):
    """Two classes of one photograph each, and what macOS leaves beside them."""
    root = tmp_path / "photographs"
    for name in ("cat", "dog.png"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (40, 32)).save(root / name / "a.png")
        (root / name / "._a.png").write_bytes(b"not a picture")
    (root / "._cat.png").write_bytes(b"not a picture")
    return root


def test_hidden_files_are_no_pictures_and_folders_are_classes(photographs):
    folders = class_folders(photographs)
    assert [path.name for path in folders] == ["cat", "dog.png"]
    assert read_class_crops(folders, 32, 0)[0][0].size == (32, 32)
    ([pair], white) = read_training_pairs(None, None, photographs / "cat", None)
    assert not white
    assert (pair.id, np.unique(pair.mask).tolist()) == ("a", [255])


def test_pictures_beside_classes_are_refused(photographs):
    Image.new("RGB", (40, 32)).save(photographs / "stray.png")
    with pytest.raises(InputError, match=r"such as stray\.png, beside .* such as cat, .*: move"):
        class_folders(photographs)
    for path in (photographs / "cat").iterdir():
        path.unlink()
    assert class_folders(photographs) == []  # one folder would be no classes anyway


def test_crops_of_classes_whose_names_meet_have_ids_of_their_own(tmp_path):
    for name in ("cat/big-1.png", "cat-big/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (40, 32)).save(tmp_path / name)
    crops, _ = read_class_crops(class_folders(tmp_path), 32, 0)
    assert len({crop.id for crop in crops}) == len(crops)


def test_pictures_without_masks_have_names_of_their_own(photographs):
    Image.new("RGB", (40, 32)).save(photographs / "cat" / "a.jpg")
    with pytest.raises(InputError, match="cat holds several pictures named a: keep one"):
        read_training_pairs(None, None, photographs / "cat", None)
    with pytest.raises(InputError, match="cat holds several pictures named a: keep one"):
        read_square_crops(photographs / "cat", 32, 0)


def test_masks_of_0_and_255_alone_are_binary(tmp_path):
    def masks(*white):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        for number, value in enumerate(white):
            mask = np.zeros((40, 50), np.uint8)
            mask[5:15, 5:15] = value
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "images" / f"{number}.png")
        return tmp_path / "images", tmp_path / "masks"

    def ids(*folders, ignore=()):
        pairs, _ = read_training_pairs(None, None, *folders, ignore)
        return [np.unique(pair.mask).tolist() for pair in pairs]

    assert ids(*masks(255, 0, 255)) == [[0, 1], [0], [0, 1]]
    assert ids(*masks(255, 0, 255), ignore=[255]) == [[0, 255], [0], [0, 255]]
    with pytest.warns(UserWarning, match="id.s. 9 to be ignored are in no mask: they hold 0, 3"):
        ids(*masks(3, 3, 3), ignore=[9])
    masks(255, 0, 255)
    files = tmp_path / "images" / "0.png", tmp_path / "masks" / "0.png", None, None
    ([one], white) = read_training_pairs(*files)
    assert (np.unique(one.mask).tolist(), white) == ([0, 1], True)
    ([one], white) = read_training_pairs(*files, white=False)
    assert (np.unique(one.mask).tolist(), white) == ([0, 255], False)
    with pytest.warns(UserWarning, match=r"1 of 3 masks hold 0 and 255 alone \(1\), the others"):
        assert ids(*masks(1, 255, 2)) == [[0, 1], [0, 255], [0, 2]]


def test_one_grey_file_does_not_make_all_grey(photographs):
    folder = photographs / "cat"
    for name in ("0.png", "1.png"):
        Image.new("L", (40, 32)).save(folder / name)
    assert [pair.grey for pair in read_training_pairs(None, None, folder, None)[0]] == [False] * 3
    assert not any(crop.grey for crop in read_square_crops(folder, 32, 0)[0])
    assert not any(crop.grey for crop in read_class_crops(class_folders(photographs), 32, 0)[0])
    (folder / "a.png").unlink()
    assert [pair.grey for pair in read_training_pairs(None, None, folder, None)[0]] == [True] * 2
    assert all(crop.grey for crop in read_square_crops(folder, 32, 0)[0])


def test_a_large_class_does_not_multiply_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.fitting.training_pairs.CROPS", 4)
    for name, count in (("many", 10), ("few", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (40, 32), (20 * number,) * 3).save(tmp_path / name / f"{number}.png")
    crops, photographs = read_class_crops(class_folders(tmp_path), 32, 0)
    few, many = crops[::2], crops[1::2]
    assert len(few) == len(many) == 6  # 12 pictures in all
    assert sorted({int(crop.image[0, 0, 0]) // 20 for crop in many}) == [0, 1, 3, 5, 6, 8]
    read = {Path(path).relative_to(tmp_path).as_posix() for path in photographs.values()}
    assert read == {f"many/{n}.png" for n in (0, 1, 3, 5, 6, 8)}  # the few are the same as two


def disc(size, row, column, radius=8):
    """A pair whose image is red where its mask has id 3, and blue elsewhere."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.where((rows - row) ** 2 + (columns - column) ** 2 < radius**2, 3, 0).astype(np.uint8)
    image = np.where(mask[..., None] == 3, (250, 0, 0), (0, 0, 250)).astype(np.uint8)
    return Sample(image, mask, f"{size}")


def test_pictures_come_to_their_usual_size_with_their_masks():
    pairs = [disc((40, 50), 20, 20), disc((40, 50), 20, 30), disc((80, 100), 30, 40, 16)]
    given = list(pairs)
    originals, words = bring_to_usual_size(pairs, "crop")
    assert words == "1 of 3 images resized to 50x40 px"
    assert len(originals) == 1
    assert pairs[:2] == given[:2]
    small = disc((40, 50), 14.75, 19.75)
    assert (pairs[2].id, pairs[2].size) == (given[2].id, (40, 50))
    assert set(np.unique(pairs[2].mask)) == {0, 3}
    assert (pairs[2].mask != small.mask).mean() < 0.01
    assert np.abs(pairs[2].image.astype(int) - small.image).mean() < 3


@pytest.mark.parametrize("size", [(40, 200), (200, 50)])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_picture_of_much_other_shape_is_cropped_around_its_object(size, place):
    row, column = (int(side * place) if side == 200 else 20 for side in size)
    usual = disc((40, 50), 20, 25)
    cropped, stretched = ([usual, usual, disc(size, row, column)] for _ in range(2))
    _, words = bring_to_usual_size(cropped, "crop")
    assert words.endswith("resized to 50x40 px, 1 of them cropped first")
    assert bring_to_usual_size(stretched, "stretch")[1].endswith("resized to 50x40 px")
    for pairs, stretch in ((cropped, 1.5), (stretched, max(size) / (50 if size[1] == 200 else 40))):
        sides = [np.ptp(found) + 1 for found in np.nonzero(pairs[2].mask)]
        assert pairs[2].size == (40, 50)
        assert sorted(sides) == [round(15 / stretch), 15]


def test_without_objects_the_middle_is_kept():
    wide = disc((40, 201), 20, 100)
    blank = [Sample(s.image, np.full(s.size, 255, np.uint8), s.id) for s in (wide,) * 3]
    narrow = Sample(np.zeros((40, 50, 3), np.uint8), np.full((40, 50), 255, np.uint8), "narrow")
    pairs = [narrow, narrow, narrow, blank[0]]
    bring_to_usual_size(pairs, "crop")
    columns = np.nonzero(pairs[3].image[20, :, 0] > 128)[0]
    assert columns.mean() == pytest.approx(24.5, abs=1)


def test_a_class_that_a_crop_would_lose_is_named():
    wide = np.zeros((64, 400), np.uint8)
    wide[20:40, :40], wide[20:30, 390:] = 1, 2
    masks = [np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8), wide]
    pairs = [Sample(np.zeros((*m.shape, 3), np.uint8), m, str(i)) for i, m in enumerate(masks)]
    with pytest.raises(InputError, match=r"no image shows class 2 any more: .*resize: stretch"):
        bring_to_usual_size(list(pairs), "crop")
    bring_to_usual_size(pairs, "stretch")


def dots(**sides):
    """A pair of 400x600 px with a square of some side per class id."""
    mask = np.zeros((400, 600), np.uint8)
    mask[0, :300] = IGNORE_ID
    for place, (name, side) in enumerate(sides.items()):
        mask[200 : 200 + side, 100 * place + 50 : 100 * place + 50 + side] = int(name[1:])
    return Sample(np.zeros((400, 600, 3), np.uint8), mask, "dots")


def test_classes_too_small_for_the_training_size_are_told():
    classes = ClassMap((0, 1, 2, 7), ("ground", "scratch", "dot", "hole"))
    pairs = [dots(_1=40, _2=3, _7=3), dots(_7=20)]
    assert lost_classes(pairs, classes, (100, 150)) == ["dot"]
    assert lost_classes(pairs, classes, (400, 600)) == []
    full = np.ones((400, 600), np.uint8)
    full[:, ::30] = 0
    cells = Sample(pairs[0].image, full, "cells")
    assert lost_classes([cells], ClassMap((0, 1)), (100, 150)) == []
