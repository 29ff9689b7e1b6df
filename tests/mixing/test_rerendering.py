"""SynthAugment over a generator that paints masks."""

from __future__ import annotations

import json

import albumentations as A
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import tv_tensors

from synthaug import files, gans
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.mixing import SynthAugment
from synthaug.mixing.torchvision import SynthReplace
from synthaug.sample import Sample

SPEC = {"name": "oasis", "preset": "fast", "height": 32, "width": 48, "num_classes": 2}


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A folder with an untrained painter of the ids 3 and 7 that was told to ignore 11."""
    path = tmp_path_factory.mktemp("painter")
    torch.manual_seed(0)
    generator = gans.build(SPEC | {"pretrained": False}).generator
    with torch.no_grad():
        generator.image.weight.mul_(5)
    save_file(generator.state_dict(), path / "snapshot.safetensors")
    pair = Sample(np.zeros((32, 48, 3), np.uint8), _mask(), "scene")
    manifest = {
        "format": "synthaug-generator-1",
        "gan": SPEC | {"pretrained": False},
        "classes": {"ids": [3, 7], "names": ["road", "car"]},
        "pairs": [{"id": pair.id, **folder.write_pair(path / "pairs", pair.id, pair)}],
        "size": [32, 48],
        "grey": False,
        "snapshot": "snapshot.safetensors",
        "snapshot_sha256": files.sha256_file(path / "snapshot.safetensors"),
        "config": {"ignore": [11]},
        "seed": 0,
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def _mask():
    mask = np.full((32, 48), 3, np.uint8)
    mask[8:20, 10:30] = 7
    mask[:2], mask[-2:] = 11, 255
    return mask


def test_torchvisions_transform_paints_the_mask_too(painter):
    mask = tv_tensors.Mask(torch.from_numpy(_mask())[None])
    image = tv_tensors.Image(torch.full((3, 32, 48), 90, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[10.0, 8, 30, 20]]), format="XYXY", canvas_size=(32, 48)
    )
    target = {"mask": mask, "boxes": boxes, "labels": torch.tensor([7]), "area": torch.ones(1)}
    transform = SynthReplace(painter, p=1.0)
    shown, told = transform(image, target)
    assert torch.equal(told["mask"], mask)
    assert torch.equal(told["boxes"], boxes)
    assert told["labels"].tolist() == [7]
    assert isinstance(shown, tv_tensors.Image)
    assert (shown.shape, shown.dtype) == (image.shape, image.dtype)
    assert shown.float().std() > 1
    assert not torch.equal(transform(image, target)[0], shown)
    void = tv_tensors.Mask(torch.full((32, 48), 11, dtype=torch.uint8))
    assert transform(image, void)[0] is image
    with pytest.raises(InputError, match=r"paints masks: pass one Mask of class ids.* not 0"):
        transform(image, {"masks": mask})


def test_the_image_is_new_and_all_labels_stay(painter):
    pipeline = A.Compose(
        [A.HorizontalFlip(p=1.0), SynthAugment(painter, p=1.0)],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"]),
        keypoint_params=A.KeypointParams("xy"),
    )
    image = np.full((32, 48, 3), 90, np.uint8)
    data = {"mask": _mask(), "bboxes": np.array([[10.0, 8, 30, 20]]), "labels": ["car"]}
    data["keypoints"] = [(10, 8)]
    result = pipeline(image=image, **data)
    flipped = _mask()[:, ::-1]
    assert np.array_equal(result["mask"], flipped)
    assert result["bboxes"] == pytest.approx(np.array([[18, 8, 38, 20]]), abs=1e-4)
    assert list(result["labels"]) == ["car"]
    assert result["keypoints"] == [pytest.approx((37, 8))]
    assert result["image"].shape == image.shape
    assert result["image"].std() > 1
    again = pipeline(image=image, **data)
    assert not np.array_equal(result["image"], again["image"])


def test_the_seed_decides(painter):
    pictures = []
    for seed in (1, 1, 2):
        pipeline = A.Compose([SynthAugment(painter, p=1.0)], seed=seed)
        pictures.append(pipeline(image=np.zeros((32, 48, 3), np.uint8), mask=_mask())["image"])
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_crops_and_float_images_are_painted_as_they_come(painter):
    transform = SynthAugment(painter, p=1.0)
    mask = _mask()[:20, :27, None].astype(np.int32)
    result = transform(image=np.zeros((20, 27, 3), np.float32), mask=mask)
    assert result["image"].dtype == np.float32
    assert result["image"].shape == (20, 27, 3)
    assert 0 <= result["image"].min() < result["image"].max() <= 1
    assert result["mask"] is mask or np.array_equal(result["mask"], mask)


def _shares(image, mask):
    """Share of kept pixels (grey 90) deep inside road and car."""
    kept = image.reshape(*mask.shape, -1).max(2) == 90
    return kept[22:28, 34:44].mean(), kept[12:16, 16:24].mean()


@pytest.mark.parametrize("shape", [(32, 48, 3), (32, 48)])
def test_labelmix_keeps_some_classes_of_the_image(painter, shape):
    pipeline = A.Compose([SynthAugment(painter, p=1.0, labelmix=0.5)], seed=1)
    image = np.full(shape, 90, np.uint8)
    seen = set()
    for _ in range(24):
        result = pipeline(image=image, mask=_mask())
        assert (result["image"].shape, result["image"].dtype) == (shape, np.uint8)
        shares = _shares(result["image"], _mask())
        assert all(share == 1 or share < 0.5 for share in shares)
        seen.add(tuple(share == 1 for share in shares))
    assert len(seen) == 4  # both are kept where what is unlabelled is painted


def test_labelmix_of_float_images_stays_between_both(painter):
    image = np.full((32, 48, 3), 90 / 255, np.float32)
    for share in (0.0, 0.5, 0.95):
        mixed = A.Compose([SynthAugment(painter, p=1.0, labelmix=share)], seed=1)
        shown = mixed(image=image, mask=_mask())["image"]
        assert shown.dtype == np.float32
        plain = A.Compose([SynthAugment(painter, p=1.0)], seed=1)(image=image, mask=_mask())
        assert (shown >= np.minimum(image, plain["image"]) - 1e-6).all()
        assert (shown <= np.maximum(image, plain["image"]) + 1e-6).all()
        assert np.array_equal(shown, plain["image"]) == (share == 0)


def test_labelmix_in_torchvisions_transform(painter):
    transform = SynthReplace(painter, p=1.0, labelmix=0.5)
    mask = tv_tensors.Mask(torch.from_numpy(_mask())[None])
    image = tv_tensors.Image(torch.full((3, 32, 48), 90, dtype=torch.uint8))
    torch.manual_seed(0)
    seen = set()
    for _ in range(24):
        shown, _told = transform(image, mask)
        assert isinstance(shown, tv_tensors.Image)
        assert (shown.shape, shown.dtype) == (image.shape, image.dtype)
        seen.add(tuple(s == 1 for s in _shares(shown.permute(1, 2, 0).numpy(), _mask())))
    assert len(seen) == 4
    with pytest.raises(InputError, match="take a share from 0 to below 1"):
        SynthReplace(painter, labelmix=1.0)


@pytest.mark.parametrize("keep", [["car"], "car", 7])
def test_named_classes_keep_the_pixels_of_the_image(keep, painter):
    image = np.full((32, 48, 3), 90, np.uint8)
    mixed = A.Compose([SynthAugment(painter, p=1.0, keep=keep)])
    road, car = _shares(mixed(image=image, mask=_mask())["image"], _mask())
    assert car == 1
    assert road < 0.5
    mask = tv_tensors.Mask(torch.from_numpy(_mask())[None])
    shown = SynthReplace(painter, p=1.0, keep=keep)(
        tv_tensors.Image(torch.full((3, 32, 48), 90, dtype=torch.uint8)), mask
    )[0]
    road, car = _shares(shown.permute(1, 2, 0).numpy(), _mask())
    assert car == 1
    assert road < 0.5
    loaded = A.from_dict(A.to_dict(SynthAugment(painter, keep=keep)))
    assert tuple(loaded.keep) == (7 if keep == 7 else "car",)


def test_labelmix_over_whole_pairs_is_refused(bank):
    image, mask = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8)
    with pytest.raises(InputError, match="labelmix or keep is for a generator that paints masks"):
        SynthAugment(bank.path, p=1.0, labelmix=0.5)(image=image, mask=mask)
    shown = tv_tensors.Image(torch.zeros((3, 32, 48), dtype=torch.uint8))
    with pytest.raises(InputError, match="labelmix or keep is for a generator that paints masks"):
        SynthReplace(bank.path, p=1.0, labelmix=0.5)(shown)


def test_a_crop_without_a_label_stays_as_it_is(painter):
    transform = SynthAugment(painter, p=1.0)
    image = np.full((20, 27, 3), 90, np.uint8)
    for mask in (np.full((20, 27), 255, np.uint8), np.full((20, 27, 1), 11, np.int64)):
        result = transform(image=image, mask=mask)
        assert np.array_equal(result["image"], image)
        assert np.array_equal(result["mask"], mask)


def test_what_cannot_be_painted_is_refused(painter):
    transform = SynthAugment(painter, p=1.0)
    image = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(InputError, match=r"pass mask="):
        transform(image=image)
    with pytest.raises(InputError, match=r"ids \[0\] that"):
        transform(image=image, mask=np.zeros((32, 48), np.uint8))
    with pytest.raises(InputError, match="dtype bool"):
        transform(image=image, mask=_mask() == 7)


@pytest.mark.parametrize("step", [1, 2])
def test_a_mask_of_another_size_than_the_image_is_refused(step, painter):
    image, mask = np.zeros((32, 48, 3), np.uint8), _mask()[::2, ::step]
    pipeline = A.Compose([SynthAugment(painter, p=1.0, keep=[7])], is_check_shapes=False)
    told = r"image of shape \(32, 48\) cannot be painted for a mask of shape \(16, "
    with pytest.raises(InputError, match=told):
        pipeline(image=image, mask=mask)
    shown = tv_tensors.Image(torch.zeros((3, 32, 48), dtype=torch.uint8))
    with pytest.raises(InputError, match=told):
        SynthReplace(painter, p=1.0)(shown, tv_tensors.Mask(torch.from_numpy(mask.copy())))
