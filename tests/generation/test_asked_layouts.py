"""Banks of new label maps, painted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scene_painter import quick
from typer.testing import CliRunner

from synthaug.bank import Bank, mask_key, pictures_behind
from synthaug.cli import app
from synthaug.errors import InputError
from synthaug.formats import coco
from synthaug.generation import Layouts, generate, load_generator
from synthaug.sample import resized


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return load_generator(quick(tmp_path_factory.mktemp("layouts"), iterations=2))


def masks(bank):
    return [sample.mask for sample in bank]


def is_one_of(mask, others):
    return any(np.array_equal(mask, other) for other in others)


@pytest.mark.parametrize("layouts", ["edited", "moved"])
def test_training_masks_are_changed_before_they_are_painted(layouts, painter, tmp_path):
    bank = generate(painter, tmp_path / "bank", n=6, seed=1, layouts=layouts)
    trained = [pair.mask for pair in painter.pairs]
    drawn = masks(bank)
    assert sum(is_one_of(mask, trained) for mask in drawn) <= 1
    assert all(mask.shape == (48, 64) and set(np.unique(mask)) <= {3, 7, 255} for mask in drawn)
    first = painter.paint(drawn[0], bank.records[0]["latent_seed"])
    assert np.array_equal(bank[0].image, first.image)
    assert bank.manifest["config"]["layouts"] == layouts
    assert bank.manifest["layouts"]["from"] == layouts
    again = generate(painter, tmp_path / "again", n=6, seed=1, layouts=layouts)
    assert again.content_hash == bank.content_hash


def test_without_layouts_nothing_changes(painter, tmp_path):
    bank = generate(painter, tmp_path / "bank", n=3, seed=1)
    for sample, record in zip(bank, bank.records, strict=True):
        expected = painter.sample(record["latent_seed"])
        assert np.array_equal(sample.image, expected.image)
        assert np.array_equal(sample.mask, expected.mask)
    assert "layouts" not in bank.manifest


def test_rare_classes_alone_choose_among_the_training_masks(painter, tmp_path):
    bank = generate(painter, tmp_path / "bank", n=4, rare="class_7")
    assert all(is_one_of(mask, [pair.mask for pair in painter.pairs]) for mask in masks(bank))
    assert bank.manifest["layouts"]["shares"] == {"7": 0.5}


def test_masks_of_a_folder_are_painted(painter, tmp_path):
    (tmp_path / "masks").mkdir()
    mask = np.full((96, 128), 3, np.uint8)  # twice the size
    mask[20:60, 40:100], mask[:10] = 7, 11
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    bank = generate(painter, tmp_path / "bank", n=2, layouts=tmp_path / "masks")
    expected = np.where(mask == 11, np.uint8(255), mask)[::2, ::2]
    assert all(np.array_equal(drawn, expected) for drawn in masks(bank))
    Image.fromarray(np.full((48, 64), 4, np.uint8)).save(tmp_path / "masks" / "b.png")
    with pytest.raises(InputError, match=r"b\.png holds ids \[4\] that .* known are \[3, 7\]"):
        generate(painter, tmp_path / "other", n=2, layouts=tmp_path / "masks")


def inner(mask):
    """Pixels that lie far enough from others' classes that a soft seam does not reach them."""
    around = np.ones((9, 9), np.uint8)
    return cv2.dilate(mask, around) == cv2.erode(mask, around)


def same(image, other):
    return (image == other).all(2)


def test_labelmix_keeps_whole_classes_of_the_photograph(painter, tmp_path):
    bank = generate(painter, tmp_path / "bank", n=12, seed=1, labelmix=0.5)
    kept = set()
    for sample, record in zip(bank, bank.records, strict=True):
        seed = record["latent_seed"]
        pair, painted = painter.training_pair(seed), painter.sample(seed)
        assert np.array_equal(sample.mask, pair.mask)
        for class_id in (3, 7):
            where = (sample.mask == class_id) & inner(sample.mask)
            from_photograph = same(sample.image, pair.image)[where].all()
            assert from_photograph or same(sample.image, painted.image)[where].all()
            kept.add((class_id, bool(from_photograph)))
        between = np.sort([pair.image, painted.image], 0)
        assert (between[0] <= sample.image).all()
        assert (sample.image <= between[1]).all()
        assert not np.array_equal(sample.image, pair.image)
    assert kept == {(3, True), (3, False), (7, True), (7, False)}
    assert bank.manifest["config"]["labelmix"] == 0.5
    again = generate(painter, tmp_path / "again", n=12, seed=1, labelmix=0.5)
    assert again.content_hash == bank.content_hash


def test_named_classes_are_kept_in_every_sample(painter, tmp_path):
    bank = generate(painter, tmp_path / "bank", n=6, seed=1, keep=("class_7",))
    for sample, record in zip(bank, bank.records, strict=True):
        pair = painter.training_pair(record["latent_seed"])
        deep = inner(sample.mask)
        assert same(sample.image, pair.image)[(sample.mask == 7) & deep].all()
        assert not same(sample.image, pair.image)[(sample.mask == 3) & deep].all()
    assert bank.manifest["config"]["keep"] == ["class_7"]
    one = generate(painter, tmp_path / "one", n=6, seed=1, keep="class_7")
    assert one.content_hash == bank.content_hash
    out = tmp_path / "alone"
    words = ["generate", painter.path, "-n", 2, "--keep", "7", "--layouts", "moved", "--out", out]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert Bank(out).manifest["config"]["labelmix"] == 0
    with pytest.raises(InputError, match="no class cow"):
        generate(painter, tmp_path / "other", keep=("cow",))
    with pytest.raises(InputError, match="labelmix and keep keep pixels of training pictures"):
        generate(painter, tmp_path / "other", keep=(7,), layouts="edited")
    assert not (tmp_path / "other").exists()


def test_labelmix_paints_what_was_moved(painter, tmp_path):
    options = {"n": 8, "seed": 1, "layouts": "moved"}
    plain = generate(painter, tmp_path / "plain", **options)
    bank = generate(painter, tmp_path / "bank", labelmix=0.99, **options)
    layouts = Layouts([pair.mask for pair in painter.pairs], painter.classes, kind="moved")
    kept = 0
    for painted, sample, record in zip(plain, bank, bank.records, strict=True):
        mask, number = layouts.layout_and_origin(record["latent_seed"])
        assert np.array_equal(sample.mask, painted.mask)
        assert np.array_equal(sample.mask, mask)
        origin = painter.pairs[number]
        changed = sample.mask != origin.mask
        assert same(sample.image, painted.image)[changed].all()
        kept += same(sample.image, origin.image)[~changed & inner(sample.mask)].sum()
    assert kept > 1000


def test_labelmix_of_maps_without_a_picture_is_refused(painter, make_fit_folder, tmp_path):
    (tmp_path / "masks").mkdir()
    for layouts in ("edited", tmp_path / "masks"):
        with pytest.raises(InputError, match="keep pixels of training pictures, and of"):
            generate(painter, tmp_path / "bank", layouts=layouts, labelmix=0.5)
    with pytest.raises(InputError, match="paints no masks, so that labelmix and keep have no use"):
        generate(make_fit_folder(), tmp_path / "bank", labelmix=0.5)
    with pytest.raises(InputError, match="labelmix"):
        generate(painter, tmp_path / "bank", labelmix=1.0)
    with pytest.raises(InputError, match="render makes them all anew"):
        generate(painter, tmp_path / "bank", labelmix=0.5, render="patches")
    with pytest.raises(InputError, match="likeness to the training pictures"):
        generate(painter, tmp_path / "bank", labelmix=0.5, filter="sifid")
    assert not (tmp_path / "bank").exists()


def test_masks_of_another_aspect_are_cropped_not_squeezed(painter, tmp_path):
    (tmp_path / "masks").mkdir()
    tall = np.repeat(np.arange(128) // 8 % 2 * 4 + 3, 64).reshape(128, 64).astype(np.uint8)
    Image.fromarray(tall).save(tmp_path / "masks" / "a.png")
    bank = generate(painter, tmp_path / "bank", n=1, layouts=tmp_path / "masks")
    assert np.array_equal(masks(bank)[0], tall[40:88])
    assert bank.manifest["learned_from"] == [mask_key(tall)]


def test_masks_of_a_bank_or_a_generator_are_painted(painter, tmp_path):
    first = generate(painter, tmp_path / "first", n=3, layouts="edited")
    for source in (first.path, painter.path):
        bank = generate(painter, tmp_path / "bank", n=3, layouts=source, overwrite=True)
        known = masks(first) if source == first.path else [p.mask for p in painter.pairs]
        assert all(is_one_of(mask, known) for mask in masks(bank))
        assert bank.manifest["layouts"]["from"] == str(source)
        assert pictures_behind(source) <= set(bank.manifest["learned_from"])


def test_objects_of_a_coco_file_are_moved(painter, tmp_path):
    path = tmp_path / "instances.json"
    coco.write_instances(painter.pairs, painter.classes, path)
    out = tmp_path / "bank"
    words = ["generate", painter.path, "-n", 4, "--layouts", path, "--rare", "7", "--out", out]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    bank = Bank(out)
    assert not is_one_of(bank[0].mask, [pair.mask for pair in painter.pairs])
    assert all((mask == 7).any() for mask in masks(bank))
    assert bank.manifest["config"]["rare"] == ["7"]
    value = json.loads(path.read_text())
    for annotation in value["annotations"]:
        annotation["category_id"] = 9
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"category id 9 that .* was not fitted to"):
        generate(painter, tmp_path / "other", layouts=path)
    for annotation in value["annotations"]:
        annotation["category_id"] = 7
    first = value["images"][0]["file_name"]
    for image in value["images"]:
        image["file_name"] = f"other/{Path(first).stem}.jpg"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="names two pictures"):
        generate(painter, tmp_path / "other", layouts=path)
    for image in value["images"]:
        image["file_name"] = "elsewhere.png"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="names none of the training pictures"):
        generate(painter, tmp_path / "other", layouts=path)


def write_coco(path, pairs, classes, change=lambda value: None):
    """Write the objects of pairs as a COCO file, changed as a tool might."""
    coco.write_instances(pairs, classes, path)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def test_pictures_of_a_coco_file_are_found_by_windows_paths(painter, tmp_path, recwarn):
    def windows(value):
        for image in value["images"]:
            image["file_name"] = "C:\\data\\" + Path(image["file_name"]).name

    path = write_coco(tmp_path / "c.json", painter.pairs, painter.classes, windows)
    assert len(generate(painter, tmp_path / "bank", n=1, layouts=path)) == 1
    assert not [w for w in recwarn.list if "training pictures" in str(w.message)]


def test_training_pictures_that_a_coco_file_lacks_are_told_of(painter, tmp_path):
    path = write_coco(tmp_path / "c.json", painter.pairs[1:], painter.classes)
    with pytest.warns(UserWarning, match=r"c.json names 2 of 3 training pictures: no object is"):
        generate(painter, tmp_path / "bank", n=1, layouts=path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"category_id": 3}, r"category 3 of .* lies on class 7 \(class_7\) of the training masks"),
        ({"iscrowd": 1}, "no given object can be moved, as crowd regions and"),
    ],
)
def test_objects_that_cannot_be_moved_are_named(painter, tmp_path, change, told):
    def changed(value):
        for annotation in value["annotations"]:
            annotation.update(change)

    path = write_coco(tmp_path / "c.json", painter.pairs, painter.classes, changed)
    with pytest.raises(InputError, match=told):
        generate(painter, tmp_path / "bank", n=1, layouts=path)


def test_objects_are_resized_as_their_pictures_were(painter, tmp_path, monkeypatch):
    first = painter.pairs[0]
    tall, double = resized(first, 144, 64), resized(first, 96, 128)
    for name, pair in (("tall", tall), ("double", double)):
        write_coco(tmp_path / f"{name}.json", [pair, *painter.pairs[1:]], painter.classes)
    exact = write_coco(tmp_path / "exact.json", painter.pairs, painter.classes)
    with pytest.raises(InputError, match=r"0.png is 128x96 px, .* is 64x48: export it for these"):
        generate(painter, tmp_path / "bank", n=2, layouts=tmp_path / "double.json")
    monkeypatch.setitem(painter.manifest["config"], "resize", "crop")
    bank = generate(painter, tmp_path / "bank", n=2, layouts=tmp_path / "double.json")
    same_size = generate(painter, tmp_path / "exact", n=2, layouts=exact)
    assert np.array_equal(masks(bank), masks(same_size))
    with pytest.raises(InputError, match=r"0.png is 64x144 px, .* cut to 64x48 as --resize asked"):
        generate(painter, tmp_path / "other", n=2, layouts=tmp_path / "tall.json")


def test_wrong_layouts_are_refused(painter, tmp_path):
    with pytest.raises(InputError, match="no layouts at nowhere: use edited, moved"):
        generate(painter, tmp_path / "bank", layouts="nowhere")
    with pytest.raises(InputError, match="no class cow"):
        generate(painter, tmp_path / "bank", layouts="edited", rare=("cow",))
    assert not (tmp_path / "bank").exists()


def test_other_generators_have_no_layouts(make_fit_folder, tmp_path):
    with pytest.raises(InputError, match="paints no masks"):
        generate(make_fit_folder(), tmp_path / "bank", layouts="edited")
