from __future__ import annotations

import json
import multiprocessing
import pickle
import random
import re
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations as A
import numpy as np
import PIL.Image
import pytest
import torch

from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.mixing import SynthAugment
from synthaug.sample import ClassMap, Sample

H, W = 60, 80


def real_pair(dtype: Any = np.uint8) -> dict[str, np.ndarray]:
    image = np.full((H, W, 3), 255, np.uint8)
    mask = np.zeros((H, W), np.uint8)
    mask[10:20, 10:20] = 1
    return {"image": image if dtype == np.uint8 else image.astype(dtype) / 255, "mask": mask}


def always(bank: Bank, **settings: Any) -> SynthAugment:
    return SynthAugment(str(bank.path), p=1.0, **settings)


def which(image: np.ndarray) -> int:
    """Index of the bank sample behind an image."""
    return (int(image[-1, 0, 0]) - 10) // 20


def test_the_pair_becomes_one_of_the_kept_samples_at_its_own_size(bank: Bank) -> None:
    transform = always(bank, resize=False)
    stored = {s.image.tobytes(): s.mask for s in bank}
    drawn = [transform(**real_pair()) for _ in range(80)]
    for result in drawn:
        assert np.array_equal(stored[result["image"].tobytes()], result["mask"])
    assert {which(r["image"]) for r in drawn} == {0, 1, 3, 4, 5, 6, 7}  # 2 was dropped


def test_the_pair_comes_back_at_the_incoming_size_with_only_known_ids(bank: Bank) -> None:
    result = always(bank)(**real_pair())
    assert result["image"].shape == (H, W, 3)
    assert set(np.unique(result["mask"])) <= {0, 1, 3, 255}
    red = (result["image"][..., 0] > 150) & (result["image"][..., 1] < 100)
    cat = result["mask"] == 1
    assert (red & cat).sum() / (red | cat).sum() > 0.85


def test_p_is_the_share_of_replaced_pairs(bank: Bank) -> None:
    transform = SynthAugment(str(bank.path), p=0.3)
    transform.set_random_seed(0)
    hits = sum(int(transform(**real_pair())["image"].min()) < 255 for _ in range(200))
    assert hits == pytest.approx(60, abs=20)
    untouched = real_pair()
    result = SynthAugment("no/such/bank", p=0.0)(**untouched)  # never opened
    assert result["image"] is untouched["image"]


def test_the_input_is_not_changed_and_the_output_is_contiguous(bank: Bank) -> None:
    wide = np.full((H, 2 * W, 3), 255, np.uint8)
    image, mask = wide[:, ::2], np.zeros((W, H), np.uint8).T
    for transform in (always(bank), A.Compose([always(bank)])):
        result = transform(image=image, mask=mask, masks=[mask, mask])
        assert (wide == 255).all()
        assert (mask == 0).all()
        assert result["image"].flags.c_contiguous
        assert result["mask"].flags.c_contiguous
        assert all(m.flags.c_contiguous for m in result["masks"])
        result["image"][:] = 1  # writable, and nobody else's


@pytest.mark.parametrize("shape", [(H, W), (H, W, 1), (H, W, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_shape_and_dtype_are_kept(bank: Bank, shape: tuple[int, ...], dtype: Any) -> None:
    result = always(bank)(image=np.ones(shape, dtype), mask=np.zeros((H, W), np.uint8))
    assert result["image"].shape == shape
    assert result["image"].dtype == dtype
    assert result["image"].max() <= (255 if dtype == np.uint8 else 1.0)
    assert result["image"].max() > (60 if dtype == np.uint8 else 0.3)


def test_uint8_and_float32_show_the_same_picture(bank: Bank) -> None:
    pictures = []
    for dtype in (np.uint8, np.float32):
        transform = always(bank)
        transform.set_random_seed(4)
        pictures.append(transform(**real_pair(dtype))["image"].astype(np.float64))
    assert np.abs(pictures[0] / 255 - pictures[1]).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.int64])
def test_mask_dtype_is_kept(bank: Bank, dtype: Any) -> None:
    pair = real_pair()
    result = always(bank)(image=pair["image"], mask=pair["mask"][..., None].astype(dtype))
    assert result["mask"].dtype == dtype
    assert result["mask"].shape == (H, W, 1)
    assert 1 in result["mask"]


def test_a_bool_mask_is_true_on_objects_only(bank: Bank) -> None:
    transform = always(bank, resize=False)
    pair = real_pair()
    result = transform(image=pair["image"], mask=pair["mask"].astype(bool))
    ids = bank[[0, 1, 3, 4, 5, 6, 7].index(which(result["image"]))].mask
    assert np.array_equal(result["mask"], (ids == 1) | (ids == 3))


@pytest.mark.parametrize("masks", [[], [np.zeros((H, W), np.float32)] * 3])
@pytest.mark.parametrize("objects", ["id", "component"])
def test_masks_hold_one_object_each_in_the_order_of_the_boxes(
    bank: Bank, masks: list[np.ndarray], objects: Any
) -> None:
    pipeline = A.Compose(
        [always(bank, objects=objects), A.HorizontalFlip(p=1)],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["label"]),
    )
    pipeline.set_random_seed(0)
    counts = set()
    for _ in range(20):
        result = pipeline(**real_pair(), masks=masks, bboxes=[], label=[])
        assert isinstance(result["masks"], list)
        counts.add(len(result["masks"]))
        assert len(result["masks"]) == len(result["bboxes"]) == len(result["label"])
        for mask, box, label in zip(
            result["masks"], result["bboxes"], result["label"], strict=True
        ):
            assert mask.dtype == (masks[0].dtype if masks else np.uint8)
            assert set(np.unique(mask)) == {0, 1}
            rows, columns = np.nonzero(mask)
            bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == pytest.approx(bounds, abs=1e-3)
            assert (result["mask"][mask == 1] == {"cat": 1, "dog": 3}[label]).all()
    assert counts == ({1, 2} if objects == "id" else {1, 3})


def test_masks_as_an_array_come_back_as_an_array(bank: Bank) -> None:
    result = always(bank)(**real_pair(), masks=np.zeros((5, H, W), np.uint8))
    assert isinstance(result["masks"], np.ndarray)
    assert result["masks"].shape[1:] == (H, W)


@pytest.mark.parametrize("box_format", ["pascal_voc", "coco", "yolo", "albumentations"])
def test_boxes_come_in_the_pipelines_format_with_labels_it_never_saw(
    bank: Bank, box_format: Any
) -> None:
    pipeline = A.Compose(
        [always(bank, resize=False)], bbox_params=A.BboxParams(box_format, label_fields=["label"])
    )
    start = [0.25, 0.25, 0.5, 0.5] if box_format in ("yolo", "albumentations") else [8, 8, 30, 30]
    result = pipeline(**real_pair(), bboxes=[start], label=["zebra"])
    assert result["label"][0] == "cat"
    assert set(result["label"]) <= {"cat", "dog"}
    right = 16 + which(result["image"])
    left, top, bottom, height, width = 6, 4, 14, 36, 48
    expected = {
        "pascal_voc": [left, top, right, bottom],
        "coco": [left, top, right - left, bottom - top],
        "yolo": [
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        ],
        "albumentations": [left / width, top / height, right / width, bottom / height],
    }[box_format]
    assert list(result["bboxes"][0]) == pytest.approx(expected, rel=1e-5)
    again = A.Compose(
        [SynthAugment(str(bank.path), p=0.0)], bbox_params=pipeline_params(box_format)
    )
    kept = again(**real_pair(), bboxes=[start], label=["zebra"])
    assert kept["label"] == ["zebra"]


def pipeline_params(box_format: Any) -> A.BboxParams:
    return A.BboxParams(box_format, label_fields=["label"])


@pytest.mark.parametrize("labels", ["id", "index"])
def test_number_labels_for_number_fields(bank: Bank, labels: Any) -> None:
    pipeline = A.Compose([always(bank, labels=labels)], bbox_params=pipeline_params("pascal_voc"))
    result = pipeline(**real_pair(), bboxes=[[1, 1, 5, 5]], label=[7])
    assert result["label"] == ([1, 3] if labels == "id" else [0, 1])[: len(result["label"])]
    strings = A.Compose([always(bank, labels=labels)], bbox_params=pipeline_params("pascal_voc"))
    result = strings(**real_pair(), bboxes=[[1, 1, 5, 5]], label=["900100000001"])
    assert set(result["label"]) <= {"1", "3", "0"}


def test_each_of_several_label_fields_gets_its_own(bank: Bank) -> None:
    params = A.BboxParams("coco", label_fields=["what", "box_id"])
    fields = {"bboxes": [[1, 1, 5, 5]], "what": ["zebra"], "box_id": [9]}
    pipeline = A.Compose([always(bank, labels={"what": "name", "box_id": "index"})], params)
    result = pipeline(**real_pair(), **fields)
    assert result["what"][0] == "cat"
    assert result["box_id"][0] == 0
    with pytest.raises(InputError, match="several label fields"):
        A.Compose([always(bank)], params)(**real_pair(), **fields)
    with pytest.raises(InputError, match="no entry for label field 'box_id'"):
        A.Compose([always(bank, labels={"what": "name"})], params)(**real_pair(), **fields)


def test_class_names_longer_than_the_given_ones_are_not_cut(bank: Bank) -> None:
    pipeline = A.Compose([always(bank)], bbox_params=pipeline_params("pascal_voc"))
    result = pipeline(**real_pair(), bboxes=np.array([[1.0, 1, 5, 5]]), label=np.array(["a"]))
    assert set(result["label"]) <= {"cat", "dog"}
    assert len(result["label"])


def test_a_bank_without_masks_replaces_pictures_alone(maskless: Bank) -> None:
    pair = real_pair()
    assert not np.array_equal(always(maskless)(image=pair["image"])["image"], pair["image"])
    with pytest.raises(InputError, match="pictures without masks"):
        always(maskless)(**pair)


def test_class_names_into_a_number_field_are_refused(bank: Bank) -> None:
    pipeline = A.Compose([always(bank)], bbox_params=pipeline_params("coco"))
    with pytest.raises(InputError, match="set labels='id'"):
        pipeline(**real_pair(), bboxes=[[1, 1, 5, 5]], label=[3])


def test_boxes_without_label_fields_carry_the_id_inline(bank: Bank) -> None:
    pipeline = A.Compose([always(bank)], bbox_params=A.BboxParams("pascal_voc"))
    result = pipeline(**real_pair(), bboxes=np.array([[1, 1, 5, 5, 9]], np.float32))
    assert result["bboxes"].shape[1] == 5
    assert result["bboxes"][0, 4] == 1
    assert pipeline(**real_pair(), bboxes=[[1, 1, 5, 5]])["bboxes"][0][4:] == []


def test_empty_boxes_in_and_out(bank: Bank, tmp_path: Path, monkeypatch: Any) -> None:
    pipeline = A.Compose([always(bank)], bbox_params=pipeline_params("pascal_voc"))
    result = pipeline(**real_pair(), bboxes=np.zeros((0, 4)), label=[])
    assert len(result["bboxes"]) in (1, 2)
    path = fake_generator(tmp_path, monkeypatch, empty=True)
    bare = A.Compose(
        [SynthAugment(path, p=1.0), A.HorizontalFlip(p=1)], bbox_params=pipeline_params("yolo")
    )
    given = {"bboxes": [[0.5, 0.5, 0.2, 0.2]], "label": ["cat"], "masks": [real_pair()["mask"]]}
    result = bare(**real_pair(), **given)
    assert len(result["bboxes"]) == len(result["label"]) == len(result["masks"]) == 0


@pytest.mark.parametrize("labels", ["id", "index"])
def test_a_hit_on_an_image_without_boxes_does_not_decide_what_a_field_holds(
    bank: Bank, labels: Any
) -> None:
    pipeline = A.Compose([SynthAugment(bank, labels=labels)], pipeline_params("coco"))
    transform = pipeline.transforms[0]

    def run(p: float, *given: Any) -> list[Any]:
        transform.p = p
        boxes = [[1, 1, 5, 5]] * len(given)
        return pipeline(**real_pair(), bboxes=boxes, label=list(given))["label"]

    assert set(run(1, *())) <= {0, 1, 3}
    assert run(0, "cat") == ["cat"]
    assert run(0, "3") == ["3"]
    assert set(run(1, "cat")) <= {"0", "1", "3"}  # a field of words gets words


def test_class_names_are_refused_when_numbers_come_after_a_hit_without_boxes(bank: Bank) -> None:
    pipeline = A.Compose([always(bank)], bbox_params=pipeline_params("coco"))
    assert set(pipeline(**real_pair(), bboxes=[], label=[])["label"]) <= {"cat", "dog"}
    with pytest.raises(InputError, match="set labels='id'"):
        pipeline(**real_pair(), bboxes=[[1, 1, 5, 5]], label=[3])


def test_a_float_picture_of_another_range_is_refused(bank: Bank) -> None:
    pair = real_pair()
    with pytest.raises(InputError, match=r"float32 from 0 to 200: pass uint8, or float32 in"):
        always(bank)(image=np.full(pair["image"].shape, 200, np.float32))
    normalised = np.full(pair["image"].shape, -0.9, np.float32)
    with pytest.raises(InputError, match=r"from -0\.9 to .* before what normalises it"):
        always(bank)(image=normalised, mask=pair["mask"])


def test_masks_of_other_ids_than_the_banks_are_warned_of_once(
    bank: Bank, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    def told() -> list[str]:
        return [line for w in recwarn.list if "holds ids" in (line := str(w.message))]

    transform = always(Bank(shutil.copytree(bank.path, tmp_path / "bank")))
    image, mask = real_pair().values()
    transform(image=image, mask=np.zeros_like(mask))  # background alone says nothing
    assert not told()
    white = np.full_like(mask, 255)
    for _ in range(4):  # a few may be not labelled
        transform(image=image, mask=white)
    assert not told()
    with pytest.warns(UserWarning, match=r"holds ids \[255\], .* has \[0, 1, 3\]"):
        transform(image=image, mask=white)
    transform(image=image, mask=white)
    assert not told()


@pytest.mark.parametrize(
    ("labels", "silent", "foreign", "told"),
    [
        ("name", ["dog", "zebra"], None, ""),
        ("name", None, ["penny"], "labelled penny, those of .* cat, dog: .* use its names"),
        ("id", [3, 4], None, ""),
        ("id", ["1"], [2], ""),  # a picture of another class alone, among others
        ("id", None, [2.0], r"labelled 2, those of .* 1, 3: .* its ids \(0 is the background\)"),
        ("id", [1], [0, 1], "labelled 0, 1, those of .* 1, 3: .*bring them to its ids"),
        ("index", [7], None, ""),
    ],
)
def test_boxes_of_other_labels_than_the_banks_are_warned_of_once(
    bank: Bank, tmp_path: Path, labels: Any, silent: Any, foreign: Any, told: str
) -> None:
    own = Bank(shutil.copytree(bank.path, tmp_path / "bank"))

    def run(given: list[Any]) -> None:
        pipeline = A.Compose([always(own, labels=labels)], pipeline_params("coco"))
        pipeline(**real_pair(), bboxes=[[1, 1, 5, 5]] * len(given), label=given)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run([])
        if silent is not None:
            run(silent)
        if foreign is not None and not told:
            run(foreign)
        for _ in range(7 if told and silent is None else 0):
            run(foreign)  # a few pictures may show other classes alone
    if not told:
        return
    with pytest.warns(UserWarning, match=told):
        run(foreign)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(foreign)


def test_a_fifth_column_of_other_ids_is_warned_of(bank: Bank, tmp_path: Path) -> None:
    own = Bank(shutil.copytree(bank.path, tmp_path / "bank"))
    pipeline = A.Compose([always(own)], A.BboxParams("coco"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(7):  # a few may show other classes alone
            pipeline(**real_pair(), bboxes=[[1, 1, 5, 5, 9]])
    with pytest.warns(UserWarning, match="labelled 9, those of .* 1, 3"):
        pipeline(**real_pair(), bboxes=[[1, 1, 5, 5, 9]])


@pytest.mark.parametrize("make", [PIL.Image.fromarray, torch.from_numpy])
def test_pictures_that_are_no_arrays_get_one_line(bank: Bank, make: Any) -> None:
    image, mask = real_pair().values()
    kind = type(make(mask)).__name__
    for key, value in {"image": make(image), "mask": make(mask), "masks": [make(mask)]}.items():
        with pytest.raises(InputError, match=rf"{key} of type {kind}: .* np\.asarray\(picture\)"):
            always(bank)(**{"image": image, key: value})


def test_a_soft_mask_is_warned_of_in_a_line(bank: Bank, tmp_path: Path) -> None:
    transform = always(Bank(shutil.copytree(bank.path, tmp_path / "bank")))
    image, mask = real_pair().values()
    soft = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    with pytest.warns(
        UserWarning, match=r"holds ids \[0\.0.*, \.\.\.\], .*: make whole ids"
    ) as told:
        transform(image=image, mask=soft)
    assert len(str(told[0].message)) < 400


def test_boxes_without_a_format_are_refused(bank: Bank) -> None:
    with pytest.raises(InputError, match=r"A.Compose\(bbox_params"):
        A.Compose([always(bank)])(**real_pair(), bboxes=[[1, 1, 5, 5]])


def fake_generator(tmp_path: Path, monkeypatch: Any, *, empty: bool = False) -> str:
    """A folder that opens as a generator: the image's value is the latent seed modulo 251."""

    def sample(seed: int) -> Sample:
        mask = np.zeros((40, 50), np.uint8)
        mask[10:20, 10:20] = 0 if empty else 1
        return Sample(np.full((40, 50, 3), seed % 251, np.uint8), mask, f"z{seed}")

    generator = SimpleNamespace(sample=sample, classes=ClassMap((0, 1)), size=(40, 50), manifest={})
    fake = SimpleNamespace(open_source=lambda path: generator)
    monkeypatch.setitem(sys.modules, "synthaug.generation", fake)
    folder = tmp_path / "generator"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": "synthaug-generator-1"}')
    return str(folder)


def test_pairs_are_generated_live_from_a_generator(tmp_path: Path, monkeypatch: Any) -> None:
    path = fake_generator(tmp_path, monkeypatch)
    pipeline = A.ReplayCompose([SynthAugment(path, p=1.0)])
    results = [pipeline(**real_pair()) for _ in range(6)]
    assert len({int(r["image"][0, 0, 0]) for r in results}) > 3
    seed = results[0]["replay"]["transforms"][0]["params"]["latent_seed"]
    assert int(results[0]["image"][0, 0, 0]) == seed % 251


def test_replay_is_exact_small_and_made_of_json(bank: Bank) -> None:
    pipeline = A.ReplayCompose(
        [SynthAugment(str(bank.path), p=0.7), A.HorizontalFlip(p=0.5)],
        bbox_params=pipeline_params("coco"),
    )
    boxes = {"bboxes": [[1, 1, 5, 5]], "label": ["zebra"]}
    for _ in range(12):
        result = pipeline(**real_pair(), **boxes)
        record = json.dumps(result["replay"])
        assert len(record) < 1500
        step = result["replay"]["transforms"][0]
        assert not step["applied"] or set(step["params"]) == {"sample_id"}
        again = A.ReplayCompose.replay(json.loads(record), **real_pair(), **boxes)
        for key in ("image", "mask"):
            assert np.array_equal(result[key], again[key])
        assert (result["bboxes"], result["label"]) == (again["bboxes"], again["label"])


def test_serialization_keeps_every_argument(bank: Bank) -> None:
    transform = SynthAugment(
        Path(bank.path),
        p=0.25,
        resize=False,
        objects="component",
        labels={"what": "id"},
        labelmix=0.5,
        keep=("cat",),
    )
    record = A.to_dict(transform)
    arguments = set(record["transform"]) - {"__class_fullname__"}
    assert arguments == set(SynthAugment.InitSchema.model_fields) - {"strict"}
    again = A.from_dict(json.loads(json.dumps(record)))
    assert isinstance(again, SynthAugment)
    assert A.to_dict(again) == record
    assert record["transform"]["source"] == str(bank.path)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_saved_pipeline_gives_the_same_pairs(bank: Bank, tmp_path: Path, form: Any) -> None:
    pipeline = A.Compose([SynthAugment(bank.path, p=0.5), A.RandomBrightnessContrast(p=0.5)])
    path = tmp_path / f"pipeline.{form}"
    A.save(pipeline, path, data_format=form)
    loaded = A.load(path, data_format=form)
    for one in (pipeline, loaded):
        one.set_random_state(np.random.default_rng(3), random.Random(3))
    for _ in range(10):
        first, second = pipeline(**real_pair()), loaded(**real_pair())
        assert np.array_equal(first["image"], second["image"])
        assert np.array_equal(first["mask"], second["mask"])


def test_a_relative_source_is_that_of_where_it_was_named(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.path.parent)
    transform = SynthAugment(bank.path.name, p=1.0)
    saved = A.to_dict(transform)
    monkeypatch.chdir(tmp_path)
    for one in (transform, pickle.loads(pickle.dumps(transform)), A.from_dict(saved)):
        assert which(one(**real_pair())["image"]) in range(8)


def test_a_worker_draws_the_same_wherever_the_bank_lies(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(bank.path, tmp_path / bank.path.name)
    drawn = []
    for path in (bank.path, moved):
        monkeypatch.setattr("synthaug.mixing.transform.worker_seed", lambda: 7)
        monkeypatch.setattr("synthaug.mixing.transform._started", Counter())
        transform = SynthAugment(path, p=1.0)
        transform._seeded_for = None
        drawn.append([which(transform(**real_pair())["image"]) for _ in range(8)])
    assert drawn[0] == drawn[1]


def test_schema_has_no_defaults_and_settings_are_validated(bank: Bank) -> None:
    assert all(f.is_required() for f in SynthAugment.InitSchema.model_fields.values())
    for wrong in ({"p": 1.5}, {"objects": "blob"}, {"labels": "colour"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SynthAugment(str(bank.path), **wrong)
    with pytest.raises(ValueError, match="source"):
        SynthAugment(7)  # type: ignore[arg-type]


def test_the_docstring_names_the_targets() -> None:
    section = re.search(r"Targets:\n\s+(.+)\n", SynthAugment.__doc__ or "")
    assert section is not None
    assert {t.strip() for t in section[1].split(",")} == set(SynthAugment("x").targets)
    assert {t.value.lower() for t in SynthAugment._targets} | {"masks"} == SynthAugment(
        "x"
    ).available_keys


@pytest.mark.parametrize("key", ["images", "keypoints", "volume", "volumes", "mask3d", "masks3d"])
def test_targets_without_a_synthetic_counterpart_are_refused(bank: Bank, key: str) -> None:
    with pytest.raises(InputError, match=f"cannot replace {key}"):
        SynthAugment(str(bank.path), p=0.0)(**real_pair(), **{key: np.zeros((1, H, W))})


def test_an_empty_list_of_keypoints_is_passed_on(bank: Bank) -> None:
    pipeline = A.Compose([always(bank)], keypoint_params=A.KeypointParams("xy"))
    assert len(pipeline(**real_pair(), keypoints=[])["keypoints"]) == 0


def test_additional_targets_are_refused_when_the_pipeline_is_built(bank: Bank) -> None:
    with pytest.raises(InputError, match="depth"):
        A.Compose([always(bank)], additional_targets={"depth": "mask"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": np.zeros((H, W, 4), np.uint8)}, "4 channels"),
        ({"image": np.zeros((H, W, 3), np.uint16)}, "dtype uint16"),
        ({"image": np.zeros((H, W, 3), np.uint8), "mask": np.zeros((H, W, 5))}, "mask of shape"),
        ({"image": np.zeros((H, W, 3), np.uint8), "mask": np.zeros((H, W), np.int8)}, "int8"),
        ({"image": np.zeros((H, W, 3), np.uint8), "masks": np.zeros((2, H, W, 4))}, "masks of"),
        ({"mask": np.zeros((H, W), np.uint8)}, "pass image="),
    ],
)
def test_unusual_arrays_get_one_clear_line(
    bank: Bank, data: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        always(bank)(**data)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_bank_is_named(empty_bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        SynthAugment(str(tmp_path / "nowhere"), p=1.0)(**real_pair())
    with pytest.raises(InputError, match="no kept sample"):
        always(empty_bank)(**real_pair())


def test_a_bank_that_was_filtered_again_is_read_anew(bank: Bank, tmp_path: Path) -> None:
    copy = Bank(shutil.copytree(bank.path, tmp_path / "copy"))
    transform = always(copy)
    transform(**real_pair())
    copy.rewrite([{**r, "kept": r["id"] == "00004"} for r in copy.all_records], filter={"drop": 1})
    assert {which(transform(**real_pair())["image"]) for _ in range(8)} == {4}


def test_draws_come_from_the_transforms_own_streams_only(bank: Bank) -> None:
    pipeline = A.Compose([always(bank)])

    def run(global_seed: int) -> list[int]:
        np.random.seed(global_seed)  # noqa: NPY002
        pipeline.set_random_state(np.random.default_rng(1), random.Random(1))
        return [which(pipeline(**real_pair())["image"]) for _ in range(10)]

    assert run(1) == run(2)


def test_nothing_opened_is_pickled_and_other_processes_can_run_it(bank: Bank) -> None:
    pipeline = A.Compose([always(bank, resize=False)])
    pipeline(**real_pair())
    assert len(pickle.dumps(pipeline.transforms[0])) < 10_000
    with multiprocessing.get_context("fork").Pool(1) as pool:
        (result,) = pool.map(_apply, [pipeline])
    assert result.shape == (36, 48, 3)


def _apply(pipeline: A.Compose) -> np.ndarray:
    image: np.ndarray = pipeline(**real_pair())["image"]
    return image


def test_masks_of_objects_are_as_white_as_they_came(bank: Bank) -> None:
    image, mask = real_pair()["image"], np.zeros((H, W), np.uint8)
    mask[3:9, 3:9] = 1
    for white in (1, 255):
        made = A.Compose([SynthAugment(bank.path, p=1.0)])(image=image, masks=[mask * white])
        assert {int(found.max()) for found in made["masks"]} == {white}
