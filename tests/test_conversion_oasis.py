"""Public OASIS files become painters that every command takes."""

from __future__ import annotations

import json
import math
import os
import re

import albumentations as A
import numpy as np
import pytest
import torch
from command_line import run
from oasis_files import paint, public_generator, write
from PIL import Image

from synthaug import files
from synthaug.bank import Bank
from synthaug.conversion import convert
from synthaug.errors import InputError
from synthaug.evaluation.painting_quality import build_judge, evaluate_painter
from synthaug.fitting.training_pairs import read_training_pairs
from synthaug.formats.folder import read_image, read_mask
from synthaug.generation import MapGenerator, MapSegmenter
from synthaug.mixing import SynthAugment
from synthaug.mixing.source import Source

SIZE = (64, 128)
NAMES = "1=road,2=car,3=sky"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A painter of the ids 1 to 3 at 128x64 px, with its discriminator."""
    folder = tmp_path_factory.mktemp("oasis")
    path = write(folder)
    done = run("convert", path, folder / "painter", "--size", "128x64", "--names", NAMES)
    assert done.stdout == f"{folder / 'painter'}\n"
    assert done.stderr == (
        "OASIS .pth: 128x64 px, width 2, 3 classes with ids 1 to 3; generator and discriminator\n"
    )
    return folder / "painter"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four pictures with masks of the ids 0 to 3."""
    folder = tmp_path_factory.mktemp("data")
    stream = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(4):
        mask = np.repeat(stream.permutation(4).astype(np.uint8), 32)[None].repeat(64, 0)
        image = stream.integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    return folder


def test_the_folder_paints_what_the_public_weights_paint(converted):
    painter = MapGenerator(converted)
    assert painter.classes.ids == (1, 2, 3)
    assert painter.classes.find("car") == 2
    mask = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
    noise = torch.randn(64)
    expected = paint(public_generator(), torch.from_numpy(mask).long(), noise)
    pixels = ((expected + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(painter.render(mask, noise) - pixels).max() <= 0.51
    assert np.array_equal(
        painter.render(np.where(mask == 0, 255, mask), noise), painter.render(mask, noise)
    )


def test_maps_of_any_size_are_stretched_to_the_training_size(converted):
    painter = MapGenerator(converted)
    mask = np.random.default_rng(1).integers(1, 4, SIZE).astype(np.uint8)
    large = painter.render(mask.repeat(3, 0).repeat(2, 1), 5)
    assert large.shape == (192, 256, 3)
    small = painter.render(mask, 5).astype(int)
    assert np.abs(large.reshape(64, 3, 128, 2, 3).mean((1, 3)) - small).mean() < 6


@pytest.mark.parametrize(
    ("labels", "size", "ids", "ignored"),
    [
        (151, [256, 256], range(1, 151), [0]),
        (183, [256, 256], range(182), []),
        (35, [256, 512], range(1, 35), [0]),
    ],
)
def test_published_weights_are_known_by_their_classes(labels, size, ids, ignored, tmp_path):
    manifest = convert(write(tmp_path, labels, discriminator=False), tmp_path / "out")
    assert manifest["networks"] == ["generator"]
    assert manifest["size"] == size
    assert manifest["classes"]["ids"] == list(ids)
    assert manifest["config"] == {"ignore": ignored}


def test_a_bank_is_painted_from_layouts(converted, data, tmp_path):
    run("generate", converted, "-n", 3, "--layouts", data / "masks", "--out", tmp_path / "bank")
    bank, painter = Bank(tmp_path / "bank"), MapGenerator(converted)
    assert len(bank) == 3
    for sample, record in zip(bank, bank.records, strict=True):
        assert set(np.unique(sample.mask)) == {1, 2, 3, 255}
        expected = painter.paint(sample.mask, record["latent_seed"]).image
        assert np.array_equal(sample.image, expected)
    for words in (["filter", bank.path], ["evaluate", bank.path]):
        said = run(*words, code=2).stderr
        assert "has no training pairs (its generator was converted): take a bank of" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give masks to paint with --layouts FOLDER"),
        (["--layouts", "edited"], "give masks to paint with --layouts FOLDER"),
        (["--rare", "car"], "give masks to paint with --layouts FOLDER"),
        (["--filter", "sifid"], "leave out filter, which needs them"),
        (["--render", "patches"], "leave out render, which needs them"),
    ],
)
def test_what_needs_training_pairs_is_one_line(words, told, converted, tmp_path):
    result = run("generate", converted, "--out", tmp_path / "bank", *words, code=2)
    missing = "has no training pairs (its generator was converted)"
    assert result.stderr.endswith(f"{missing}: {told}\n")
    assert re.fullmatch("error: .*\n", result.stderr)
    assert not (tmp_path / "bank").exists()


def test_a_painter_alone_is_no_source_of_pairs(converted):
    with pytest.raises(InputError, match=r"was converted\): draw a bank with synthaug generate"):
        Source(str(converted)).require_pairs()


def test_edit_segment_and_recreate_take_the_folder(converted, data, tmp_path):
    mask, image = data / "masks" / "0.png", data / "images" / "0.png"
    words = ["--out", tmp_path / "edit", "-n", 2, "--resample", "car", "--seed", 3]
    run("edit", converted, mask, *words)
    first = read_image(tmp_path / "edit" / "version-000.png")[0]
    assert np.array_equal(first, MapGenerator(converted).render(read_mask(mask), 3))
    run("segment", converted, image, "--out", tmp_path / "masks")
    labels = read_mask(tmp_path / "masks" / "0.png")
    assert labels.shape == SIZE
    assert set(np.unique(labels)) <= {1, 2, 3}
    run("recreate", converted, image, "--out", tmp_path / "recreated", "-n", 1)
    assert np.array_equal(read_mask(tmp_path / "recreated" / "mask.png"), labels)
    wide = np.zeros((90, 150, 3), np.uint8)
    assert MapSegmenter(converted).segment(wide).shape == (90, 150)


def test_evaluate_measures_painted_against_held_out_pictures(converted, data):
    pairs, _ = read_training_pairs(None, None, data / "images", data / "masks", [0])
    painter = MapGenerator(converted)
    value = evaluate_painter(painter, pairs, noises=2, diversity_maps=1)
    assert json.loads(json.dumps(value)) == value
    assert value["samples"] == 4
    for kind in ("fid", "colour", "texture"):
        assert value[kind]["painted"] > 0
        assert value[kind]["training"] is None
    assert value["kid"]["painted"]["value"] > 0
    assert value["miou"] is value["kid"]["training"] is None
    judge = build_judge(pairs, painter.classes)  # untrained
    judged = evaluate_painter(painter, pairs, segmenter=judge, noises=2, diversity_maps=1)
    assert sum(group["share"] for group in judged["miou"]["groups"]) == pytest.approx(1)
    with pytest.raises(InputError, match="3 held-out pictures: give at least 4"):
        evaluate_painter(painter, pairs[:3])


def test_the_command_evaluate_leaves_out_what_it_cannot_measure(converted, data):
    words = ["--images", data / "images", "--masks", data / "masks"]
    shown = run("evaluate", converted, *words).stdout
    assert re.search(r"KID x 1000 +-?[\d.]+ *\n", shown)
    assert re.search(r"colour distance +[\d.]+ *\n", shown)
    assert "mIoU" not in shown


def test_synthaugment_paints_a_pipeline_s_own_masks(converted, data):
    mask = read_mask(data / "masks" / "0.png")
    pipeline = A.Compose([SynthAugment(converted, p=1.0)])
    result = pipeline(image=np.zeros((*SIZE, 3), np.uint8), mask=mask)
    assert np.array_equal(result["mask"], mask)
    assert result["image"].std() > 1


def test_without_a_discriminator_nothing_is_segmented(data, tmp_path):
    convert(write(tmp_path, discriminator=False), tmp_path / "painter", size=SIZE)
    for command in ("segment", "recreate"):
        words = [tmp_path / "painter", data / "images" / "0.png", "--out", tmp_path / "out"]
        said = run(command, *words, code=2).stderr
        assert "no discriminator: lay the *_D.pth beside the *_EMA.pth and convert again" in said
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    path = write(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write(other, 5)
    (other / "best_D.pth").replace(tmp_path / "best_D.pth")
    told = run("convert", path, tmp_path / "out", "--size", "64x64", code=2).stderr
    assert "best_D.pth is for 4 classes, 3 are needed beside its generator" in told
    told = run("convert", tmp_path / "best_D.pth", tmp_path / "out", code=2).stderr
    assert "discriminator alone: convert the *_EMA.pth" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["best_EMA.pth", "best_D.pth"])
def test_a_file_cut_short_is_refused(name, tmp_path):
    path = write(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    told = run("convert", path, tmp_path / "out", "--size", "64x64", code=2).stderr
    assert re.fullmatch(rf"error: .*{name} .* cut short.*\n", told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("best_EMA.pth", "fc.bias", math.nan, "stem.bias holds NaN or infinities"),
        ("best_D.pth", "layer_up_last.bias", math.inf, "logits.bias holds NaN or infinities"),
        ("best_EMA.pth", "body.0.conv_0.weight_u", 0, "norm of blocks.0.conv_0 is 0"),
        ("best_D.pth", "body_down.0.conv1.0.weight_v", 0, "norm of down.0.conv1 is 0"),
    ],
)
def test_weights_that_cannot_paint_are_refused(name, key, value, told, tmp_path):
    path = write(tmp_path)
    state = torch.load(tmp_path / name, weights_only=True)
    torch.save(state | {key: torch.full_like(state[key], value)}, tmp_path / name)
    said = run("convert", path, tmp_path / "out", "--size", "64x64", code=2).stderr
    assert re.fullmatch(rf"error: .*{name} cannot be used: .*{told}\n", said)
    assert not (tmp_path / "out").exists()


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["best_EMA.pth", "best_D.pth"])
def test_code_in_either_file_is_never_run(name, tmp_path):
    path = write(tmp_path)
    torch.save({"fc.weight": Hostile(f"touch {tmp_path / 'run'}")}, tmp_path / name)
    told = run("convert", path, tmp_path / "out", "--size", "64x64", code=2).stderr
    assert f"{name} is refused, and nothing in it was run" in told
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "4 label channels, as no published weights have"),
        (["--size", "big"], "--size big is no size: write it as 512x256"),
        (["--size", "128x96"], "pictures of 128x96 px: its sides are multiples of 64"),
        (["--size", "64x64", "--names", "road,car"], "class id 2 has no name"),
    ],
)
def test_options_that_do_not_fit_are_one_line(words, told, tmp_path):
    path = write(tmp_path, discriminator=False)
    result = run("convert", path, tmp_path / "out", *words, code=2)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_more_classes_than_masks_can_hold_are_refused(tmp_path):
    with pytest.raises(InputError, match="paints 300 classes: masks here hold ids up to 254"):
        convert(write(tmp_path, 301), tmp_path / "out", size=SIZE)


def test_a_changed_folder_is_refused(converted, tmp_path):
    manifest = files.read_json(converted / "manifest.json", "manifest")
    assert manifest["discriminator_sha256"] == files.sha256_file(
        converted / manifest["discriminator"]
    )
    files.write_json(tmp_path / "manifest.json", manifest)
    (tmp_path / manifest["snapshot"]).write_bytes(b"other")
    with pytest.raises(InputError, match="is damaged"):
        MapGenerator(tmp_path)
