from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.mixing import SynthReplace

H, W = 36, 48


def picture(dtype: torch.dtype = torch.uint8, channels: int = 3) -> tv_tensors.Image:
    return tv_tensors.Image(torch.ones((channels, H, W), dtype=dtype))


def target(box_format: str = "XYWH") -> dict[str, Any]:
    boxes = torch.tensor([[1.0, 1, 5, 5]] * 4)
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format=box_format, canvas_size=(H, W)),
        "masks": tv_tensors.Mask(torch.zeros((4, H, W), dtype=torch.bool)),
        "labels": torch.tensor([9, 9, 9, 9]),
        "image_id": torch.tensor([17]),
    }


@pytest.mark.parametrize("shape", [(H, W), (1, H, W)])
def test_image_and_mask_become_a_sample_of_the_bank(bank: Bank, shape: tuple[int, ...]) -> None:
    stored = {s.image.tobytes(): s.mask for s in bank}
    mask = tv_tensors.Mask(torch.zeros(shape, dtype=torch.int64))
    for _ in range(8):
        image, ids = SynthReplace(bank.path, p=1.0)(picture(), mask)
        assert isinstance(image, tv_tensors.Image)
        assert isinstance(ids, tv_tensors.Mask)
        assert ids.dtype == torch.int64
        assert ids.shape == shape
        expected = stored[np.ascontiguousarray(image.numpy().transpose(1, 2, 0)).tobytes()]
        assert np.array_equal(ids.numpy().reshape(H, W), expected)
    assert (mask == 0).all()


def test_a_relative_source_is_that_of_where_it_was_named(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.path.parent)
    transform = SynthReplace(bank.path.name, p=1.0)
    monkeypatch.chdir(tmp_path)
    assert transform(picture()).shape == (3, H, W)


@pytest.mark.parametrize("box_format", ["XYXY", "XYWH", "CXCYWH"])
@pytest.mark.parametrize("objects", ["id", "component"])
def test_boxes_masks_and_labels_agree(bank: Bank, box_format: str, objects: str) -> None:
    pipeline = v2.Compose(
        [SynthReplace(bank.path, p=1.0, objects=objects), v2.SanitizeBoundingBoxes()]
    )
    _, given = pipeline(picture(), target(box_format))
    assert given["boxes"].format == tv_tensors.BoundingBoxFormat[box_format]
    corners = v2.functional.convert_bounding_box_format(given["boxes"], new_format="XYXY")
    assert len(corners) == len(given["masks"]) == len(given["labels"]) > 0
    assert set(given["labels"].tolist()) <= {1, 3}
    assert given["masks"].dtype == torch.bool
    assert given["image_id"].item() == 17
    for mask, box in zip(given["masks"], corners, strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == [int(b) for b in bounds]


def test_p_and_pytorchs_seed_decide(bank: Bank) -> None:
    transform = SynthReplace(bank.path, p=0.4)

    def run(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return [int(transform(picture())[0, -1, 0]) for _ in range(100)]

    assert run(1) == run(1) != run(2)
    assert sum(value > 1 for value in run(1)) == pytest.approx(40, abs=15)
    image = picture()
    assert SynthReplace("no/such/bank", p=0.0)(image) is image


def test_dtype_channels_and_size_follow_the_image(bank: Bank) -> None:
    transform = SynthReplace(bank.path, p=1.0)
    image = transform(picture(torch.float32))
    assert image.dtype == torch.float32
    assert 0.5 < float(image.max()) <= 1
    assert transform(picture(channels=1)).shape == (1, H, W)
    large = {"image": tv_tensors.Image(torch.zeros((3, 60, 80), dtype=torch.uint8)), "name": "x"}
    result = transform(large)
    assert result["image"].shape == (3, 60, 80)
    assert result["name"] == "x"


def test_other_parts_and_banks_without_masks_are_refused(bank: Bank, maskless: Bank) -> None:
    transform = SynthReplace(bank.path, p=1.0)
    if hasattr(tv_tensors, "KeyPoints"):  # from torchvision 0.23
        points = tv_tensors.KeyPoints(torch.ones((2, 2)), canvas_size=(H, W))
        with pytest.raises(InputError, match="cannot replace KeyPoints"):
            transform({"image": picture(), "points": points})
    video = tv_tensors.Video(torch.zeros((2, 3, H, W), dtype=torch.uint8))
    with pytest.raises(InputError, match="cannot replace Video"):
        transform({"image": picture(), "clip": video})
    turned = tv_tensors.BoundingBoxes(torch.ones((1, 5)), format="XYWHR", canvas_size=(H, W))
    with pytest.raises(InputError, match=r"cannot replace BoundingBoxes of shape \(1, 5\)"):
        transform({"image": picture(), "boxes": turned})
    with pytest.raises(InputError, match="shape"):
        transform(tv_tensors.Image(torch.zeros((4, 1, H, W), dtype=torch.uint8)))
    alone = SynthReplace(maskless.path, p=1.0)
    assert alone(picture()).max() > 1
    with pytest.raises(InputError, match="pictures without masks"):
        alone(picture(), target())


def test_ignored_pixels_stay_so_in_masks_of_every_dtype(bank: Bank) -> None:
    transform = SynthReplace(bank, p=1.0)
    torch.manual_seed(0)
    ids = transform(picture(), tv_tensors.Mask(torch.zeros(H, W, dtype=torch.uint8)))[1]
    torch.manual_seed(0)
    objects = transform(picture(), tv_tensors.Mask(torch.zeros(H, W, dtype=torch.bool)))[1]
    assert (ids == 255).any()
    assert torch.equal(objects, (ids > 0) & (ids < 255))
    with pytest.raises(InputError, match=r"255 does not fit .* torch\.int8"):
        transform(picture(), tv_tensors.Mask(torch.zeros(H, W, dtype=torch.int8)))


def test_named_tuples_stay_such(bank: Bank) -> None:
    class Item(NamedTuple):
        image: Any
        name: str

    result = SynthReplace(bank.path, p=1.0)(Item(picture(), "x"))
    assert isinstance(result, Item)
    assert result.image.max() > 1
    assert result.name == "x"


def test_what_would_go_stale_or_is_unclear_is_refused(bank: Bank) -> None:
    transform = SynthReplace(bank.path, p=1.0)
    for stale in (torch.ones(4), torch.ones(3)):  # whatever number of objects there is
        with pytest.raises(InputError, match="'area'"):
            transform(picture(), {**target(), "area": stale})
    bare = {k: v for k, v in target().items() if k != "labels"}
    for labels in ([9, 9], [], np.array([9]), ["cat"]):
        with pytest.raises(InputError, match="'labels' would still describe"):
            transform(picture(), {**bare, "labels": labels})
    with pytest.raises(InputError, match="'labels' would still describe"):
        transform({"image": picture(), "target": bare, "labels": torch.tensor([9])})
    with pytest.raises(InputError, match="a Tensor without a name would still describe"):
        transform(picture(), target()["boxes"], torch.tensor([9, 9, 9, 9]))
    with pytest.raises(InputError, match="'area' would still describe"):
        transform(picture(), {**target(), "area": [1.0, 2.0]})
    with pytest.raises(InputError, match="as one tv_tensors"):
        transform(picture(), {**target(), "masks": list(target()["masks"])})
    listed = [tv_tensors.Mask(mask) for mask in target()["masks"]]
    with pytest.raises(InputError, match="as one Mask"):
        transform(picture(), {**target(), "masks": listed})
    with pytest.raises(InputError, match=r"uint16 .*: pass uint8"):
        transform(picture(torch.uint16))
    with pytest.raises(InputError, match=r"float32 from 200 to 200: pass .* in \[0, 1\]"):
        transform(tv_tensors.Image(torch.full((3, H, W), 200.0)))
    with pytest.raises(InputError, match=r"from -1 to -1: .* before what normalises it"):
        transform(tv_tensors.Image(torch.full((3, H, W), -1.0)))
    words = transform(picture(), tv_tensors.Mask(torch.zeros(H, W)), "a caption", [1, 2])
    assert words[2:] == ("a caption", [1, 2])  # no objects, nothing of theirs
    for number in (1, 2):
        few = {k: tv_tensors.wrap(v[:number], like=v) for k, v in target().items()}
        kept = transform(picture(), {**few, "orig_size": torch.tensor([480, 640])})
        assert kept[1]["orig_size"].tolist() == [480, 640]
    with pytest.raises(InputError, match="found 0"):
        transform(torch.zeros(3, H, W), target())
    with pytest.raises(InputError, match="under the key 'masks'"):
        transform(picture(), tv_tensors.Mask(torch.zeros(3, H, W)))
    with pytest.raises(InputError, match="shape"):
        transform(picture(channels=4))
    with pytest.raises(InputError, match="p=2"):
        SynthReplace(bank.path, p=2)


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros((H, W)),
        np.zeros((H, W), np.uint8),
        PIL.Image.new("L", (W, H)),
    ],
)
def test_a_plain_mask_is_refused(bank: Bank, mask: Any) -> None:
    transform = SynthReplace(bank.path, p=1.0)
    kind = type(mask).__name__
    with pytest.raises(InputError, match=f"the input holds a plain {kind} that would still"):
        transform(picture(), mask)
    for key, told in (("mask", "Mask"), ("labels", "drop it, or add"), ("segmentation", "Mask")):
        with pytest.raises(InputError, match=f"entry '{key}' is a plain {kind} .*{told}"):
            transform({"image": picture(), key: mask})
    assert SynthReplace(bank.path, p=0.0)(picture(), mask)[1] is mask


def test_plain_boxes_are_refused(bank: Bank) -> None:
    transform = SynthReplace(bank.path, p=1.0)
    for boxes in (torch.ones((2, 4)), [[1, 1, 5, 5]], torch.ones(4)):
        for key in ("boxes", "bboxes"):
            with pytest.raises(InputError, match=rf"'{key}' is a plain .* tv_tensors\.Bounding"):
                transform({"image": picture(), key: boxes, "labels": torch.ones(2)})
    stays = {"image": picture(), "labels": torch.tensor(3), "weights": torch.ones(5), "mask": None}
    assert transform(stays)["weights"] is stays["weights"]


@pytest.mark.parametrize(
    "target",
    [
        [{"bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 5, 5, 1, 5]], "category_id": 1}],
        {"annotation": {"object": [{"name": "a", "bndbox": {"xmin": "1", "ymin": "1"}}]}},
        {"bbox": torch.ones(4)},
        {"landmarks": [3.0, 4.0]},
        {"polygon": [[1, 2], [3, 4]]},
        [[1, 1, 5, 5], [2, 2, 6, 6]],
    ],
)
def test_targets_of_other_libraries_are_refused(bank: Bank, target: Any) -> None:
    with pytest.raises(InputError, match=r"still describe .*wrap_dataset_for_transforms_v2"):
        SynthReplace(bank.path, p=1.0)(picture(), target)


def test_targets_that_tell_nothing_of_places_stay(bank: Bank) -> None:
    target = {"names": [["a", "b"], ["c"]], "size": [H, W], "ids": [1, 2], "file": "x.png"}
    assert SynthReplace(bank.path, p=1.0)(picture(), target)[1] == target


def test_boxes_keep_how_they_are_clamped_and_round(bank: Bank) -> None:
    boxes = torch.tensor([[20, 10, 8, 5]])
    given = tv_tensors.BoundingBoxes(boxes, format="CXCYWH", canvas_size=(H, W))
    if hasattr(given, "clamping_mode"):
        given.clamping_mode = "hard"
    made = {"boxes": given, "exact": tv_tensors.wrap(boxes.float(), like=given)}
    for _ in range(6):
        found = SynthReplace(bank.path, p=1.0)(picture(), made)[1]
        assert found["boxes"].dtype == torch.int64
        assert torch.equal(found["boxes"], found["exact"].round().long())
        assert getattr(found["boxes"], "clamping_mode", "hard") == "hard"


def test_masks_of_other_ids_are_warned_of(bank: Bank, tmp_path: Path) -> None:
    copy = shutil.copytree(bank.path, tmp_path / "bank")
    mask = tv_tensors.Mask(torch.full((H, W), 200, dtype=torch.uint8))
    with pytest.warns(UserWarning, match=r"holds ids \[200\]"):
        SynthReplace(copy, p=1.0)(picture(), mask)


def test_boxes_of_other_labels_are_warned_of(bank: Bank, tmp_path: Path) -> None:
    copy = shutil.copytree(bank.path, tmp_path / "bank")
    replace = SynthReplace(copy, p=1.0)
    for _ in range(7):
        replace(picture(), target())
    with pytest.warns(UserWarning, match="labelled 9, those of .* 1, 3: .* bring them to its ids"):
        replace(picture(), target())
