from __future__ import annotations

import contextlib
import errno
import io
import json
import os

import numpy as np
import pytest
from pycocotools.coco import COCO

from synthaug.errors import InputError
from synthaug.formats.coco import read_instances, read_names, read_objects, write_instances
from synthaug.sample import ClassMap, Sample

CLASSES = ClassMap((2, 7, 9), ("ground", "coin", "hand"))


@pytest.fixture
def samples():
    first = np.full((40, 56), 2, np.uint8)
    first[5:20, 6:30] = 7
    first[10:14, 12:18] = 2  # a hole
    first[25:35, 40:50] = 7  # a second component
    first[30:38, 2:9] = 9
    second = np.full((48, 32), 2, np.uint8)
    second[0, 0] = 9
    empty = np.full((33, 35), 2, np.uint8)
    return [
        Sample(np.zeros((*mask.shape, 3), np.uint8), mask, f"{i:05d}")
        for i, mask in enumerate((first, second, empty))
    ]


def test_masks_read_back_unchanged(samples, tmp_path):
    write_instances(samples, CLASSES, tmp_path / "instances.json")
    read = list(read_instances(tmp_path / "instances.json"))
    assert [name for name, _ in read] == [f"images/0000{i}.png" for i in range(3)]
    for (_, mask), sample in zip(read, samples, strict=True):
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, sample.mask)


def test_pycocotools_decodes_the_same_masks(samples, tmp_path):
    write_instances(samples, CLASSES, tmp_path / "instances.json")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "instances.json")
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {7: "coin", 9: "hand"}
    for image_id, sample in zip(coco.getImgIds(), samples, strict=True):
        image = coco.loadImgs(image_id)[0]
        assert (image["height"], image["width"]) == sample.size
        for class_id in (7, 9):
            found = np.zeros(sample.size, np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image_id, class_id)):
                decoded = coco.annToMask(annotation)
                assert annotation["area"] == decoded.sum()
                rows, columns = np.nonzero(decoded)
                x, y, w, h = annotation["bbox"]
                assert (x, y) == (columns.min(), rows.min())
                assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)
                found |= decoded
            assert np.array_equal(found, sample.mask == class_id)
    assert len(coco.getAnnIds(1, 7)) == 2


def test_polygons_crowds_and_plain_run_lengths_are_read(tmp_path):
    square = [10, 10, 20, 10, 20, 20, 10, 20]
    value = {
        "images": [{"id": 4, "file_name": "a.jpg", "height": 40, "width": 50}],
        "categories": [{"id": 3, "name": "x"}],
        "annotations": [
            {"image_id": 4, "category_id": 3, "segmentation": [square], "iscrowd": 0},
            {
                "image_id": 4,
                "category_id": 3,
                "segmentation": {"size": [40, 50], "counts": [0, 40, 1960]},
                "iscrowd": 1,
            },
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(value))
    [(name, mask)] = read_instances(tmp_path / "c.json")
    assert name == "a.jpg"
    assert (mask[:, 0] == 255).all()
    assert mask[15, 15] == 3
    assert (mask == 3).sum() == 100
    assert mask[30, 30] == 0


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "c.json"
    with pytest.raises(InputError, match="no COCO file"):
        list(read_instances(path))
    path.write_text("{")
    with pytest.raises(InputError, match=r"damaged COCO file .*; export it again$"):
        list(read_instances(path))
    path.write_text('{"images": []}')
    with pytest.raises(InputError, match=r"c.json is not a COCO instances file"):
        list(read_instances(path))
    path.write_text(
        '{"info": {"background_id": 300}, "annotations": [], "images": '
        '[{"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}]}'
    )
    with pytest.raises(InputError, match=r"c.json is not a COCO instances file"):
        list(read_instances(path))
    path.write_text("[]")
    with pytest.raises(InputError, match=r"c.json is not a COCO instances file"):
        list(read_instances(path))
    path.write_text('{"categories": [{"id": "x", "name": "x"}]}')
    with pytest.raises(InputError, match=r"c.json is not a COCO instances file"):
        read_names(path)


def _write(path, **changes):
    """Write a file of two images, 10x12 px; the second annotation, of the second, is changed."""
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": 10, "width": 12} for number in (4, 5)
    ]
    annotations = [
        {"id": 100 + image, "image_id": image, "category_id": 3, "segmentation": square}
        for image in (4, 5)
    ]
    sides = {key: changes.pop(key) for key in ("height", "width") if key in changes}
    images[1].update(sides)
    annotations[1].update(changes)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.mark.parametrize("read", [read_instances, read_objects])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"category_id": 0}, "has a category 0, which masks have for the background: renumber"),
        ({"category_id": 300}, "annotation 105 of 5.jpg has category id 300: renumber"),
        ({"category_id": 1.5}, "annotation 105 of 5.jpg has category id 1.5: renumber"),
        ({"category_id": "3"}, "annotation 105 of 5.jpg has category id '3': renumber"),
        ({"image_id": 6}, "annotation 105 is of image 6, which is not among"),
        ({"height": -3}, "says that 5.jpg is 12x-3 px"),
        ({"width": "12"}, "says that 5.jpg is '12'x10 px"),
        ({"segmentation": None}, "annotation 105 of 5.jpg has no outline"),
        ({"segmentation": "2 2 8 2 8 8"}, "annotation 105 of 5.jpg has no outline"),
        *(
            ({"segmentation": polygons}, "annotation 105 of 5.jpg has a polygon that is not x and")
            for polygons in (
                [[]],
                [[1, 2]],
                [[1, 2, 8, 9]],
                [[1, 2, 8, 2, 8, 9, 1]],
                [1, 2, 8, 2, 8, 9],
                [["1", "2", "8", "2", "8", "9"]],
                [[1, 2, 8, 2, 8, 1e9]],
                [[1, 2, 8, 2, 8, float("nan")]],
            )
        ),
        *(
            ({"segmentation": {"size": size, "counts": counts}}, f"annotation 105 of 5.jpg {said}")
            for size, counts, said in (
                ([12, 10], [120], r"has an RLE of size \[12, 10\], but the image is \[10, 12\]"),
                ([10, 12], [10, 20], "has an RLE of 30 pixels, not 120"),
                ([10, 12], "04", "has an RLE of 4 pixels, not 120"),
                ([10, 12], [-5, 125], "has a damaged RLE"),
                ([10, 12], [1.5, 118.5], "has a damaged RLE"),
                ([10, 12], "!!!!", "has a damaged RLE"),
                ([10, 12], "0o", "has a damaged RLE"),
                ([10, 12], None, "has a damaged RLE"),
            )
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(read, changes, told, tmp_path):
    with pytest.raises(InputError, match=f"c.json:? {told}"):
        list(read(_write(tmp_path / "c.json", **changes)))


@pytest.mark.parametrize("read", [read_instances, read_objects])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"images": [{"id": 4, "file_name": name, "height": 9, "width": 9} for name in "ab"]},
            "has two images of id 4, a and b: renumber them",
        ),
        (
            {"categories": [{"id": 3, "name": name} for name in ("car", "bus")]},
            "has two categories of id 3, car and bus: renumber them",
        ),
        ({"images": [{"id": 4}]}, r"image 4 has no file_name: add it \(LVIS: the last part"),
    ],
)
def test_what_merging_leaves_is_named(read, changes, told, tmp_path):
    path = _write(tmp_path / "c.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=f"c.json:? {told}"):
        list(read(path))


@pytest.mark.parametrize("about", [None, [], ""])
def test_info_that_holds_nothing_is_read(about, tmp_path):
    path = _write(tmp_path / "c.json")
    categories = [{"id": 3, "name": "cat"}] * 2
    value = json.loads(path.read_text()) | {"info": about, "categories": categories}
    path.write_text(json.dumps(value))
    assert [(mask == 3).sum() for _, mask in read_instances(path)] == [36, 36]
    assert read_names(path) == {0: "background", 3: "cat"}


def test_a_crowd_flag_may_be_a_string(tmp_path):
    path = _write(tmp_path / "c.json", iscrowd="0")
    assert [(mask == 3).sum() for _, mask in read_instances(path)] == [36, 36]
    assert [len(objects) for _, objects in read_objects(path)] == [1, 1]
    path = _write(tmp_path / "c.json", iscrowd="1")
    assert [(mask == 255).sum() for _, mask in read_instances(path)] == [0, 36]
    assert [len(objects) for _, objects in read_objects(path)] == [1, 0]


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ({"name": "money", "supercategory": "none"}, "background"),  # as Roboflow writes it
        ({"name": "penny", "supercategory": "none"}, "background"),
        ({"name": "table", "supercategory": "none"}, "table"),
    ],
)
def test_a_category_that_groups_the_others_is_no_background(first, name, tmp_path):
    path = _write(tmp_path / "c.json")
    penny = {"id": 3, "name": "penny", "supercategory": "money"}
    value = json.loads(path.read_text()) | {"categories": [{"id": 0, **first}, penny]}
    path.write_text(json.dumps(value))
    assert read_names(path) == {0: name, 3: "penny"}
    value["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="has a category 0, which masks have for the background"):
        read_names(path)


def test_annotations_without_polygons_are_left_out(tmp_path):
    path = _write(tmp_path / "c.json", segmentation=[])
    assert [len(objects) for _, objects in read_objects(path)] == [1, 0]
    assert [(mask == 3).sum() for _, mask in read_instances(path)] == [36, 0]


def test_full_disk_leaves_nothing(samples, tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="No space left"):
        write_instances(samples, CLASSES, tmp_path / "instances.json")
    assert list(tmp_path.iterdir()) == []


def test_objects_are_read_one_by_one_in_the_files_order(tmp_path):
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    wide = [[0, 4, 12, 4, 12, 6, 0, 6]]
    value = {
        "images": [{"id": 4, "file_name": "a.jpg", "height": 10, "width": 12}],
        "annotations": [
            {"image_id": 4, "category_id": 3, "segmentation": square},
            {"image_id": 4, "category_id": 3, "segmentation": wide},
            {"image_id": 4, "category_id": 5, "segmentation": wide, "iscrowd": 1},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(value))
    ((name, objects),) = read_objects(path)
    assert name == "a.jpg"
    assert [class_id for class_id, _ in objects] == [3, 3]
    first, second = (flags for _, flags in objects)
    assert first.shape == (10, 12)
    assert first.sum() == 36
    assert second.sum() == 24
    assert (first & second).sum() == 12  # what a later one hides is still there
    del value["images"]
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="is not a COCO instances file"):
        list(read_objects(path))
