"""Fitting a painter of label maps, and what its folder gives."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scene_painter import QUICK, quick, write_scenes

from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit, fitting
from synthaug.formats.folder import read_mask
from synthaug.gans.oasis.noise import class_noise, combine, image_noise
from synthaug.generation import MapGenerator, generate, load_generator
from synthaug.mixing.source import Source
from synthaug.painting import edit
from synthaug.training import TrainingState, train


def snapshot(path):
    manifest = json.loads((path / "manifest.json").read_text())
    return (path / manifest["snapshot"]).read_bytes()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return quick(tmp_path_factory.mktemp("oasis"))


@pytest.fixture(scope="module")
def generator(fitted):
    return load_generator(fitted)


def test_a_painter_of_one_picture_is_told_apart(tmp_path):
    folders = write_scenes(tmp_path)
    lines: list[str] = []
    fit(
        folders["images"] / "0.png",
        folders["masks"] / "0.png",
        tmp_path / "out",
        config=dataclasses.replace(QUICK, iterations=1, ablate="noise"),
        echo=lines.append,
    )
    assert lines[-1].startswith("beware: the samples are all but one picture (diversity 0.00)")


def test_samples_are_training_masks_with_new_pictures(generator):
    assert isinstance(generator, MapGenerator)
    assert generator.classes.ids == (3, 7)
    samples = generator.samples(range(6))
    masks = [pair.mask for pair in generator.pairs]
    found = [[np.array_equal(s.mask, mask) for mask in masks].index(True) for s in samples]
    assert len(set(found)) > 1
    assert set(np.unique(samples[0].mask)) == {3, 7, 255}
    assert all(s.image.shape == (48, 64, 3) for s in samples)
    assert len({s.image.tobytes() for s in samples}) == 6
    again = generator.sample(4)
    assert np.array_equal(again.image, samples[4].image)


def test_the_grid_and_the_log_are_written(fitted):
    assert (fitted / "samples" / "000005.png").is_file()
    lines = [json.loads(line) for line in (fitted / "metrics.jsonl").read_text().splitlines()]
    assert {"d/real", "d/fake", "d/labelmix", "g/classes"} <= {k for line in lines for k in line}


def test_a_bank_holds_painted_masks(generator, tmp_path):
    bank = generate(generator, tmp_path / "bank", n=3, seed=1)
    assert len(bank) == 3
    assert set(np.unique(bank[0].mask)) == {3, 7, 255}


def test_an_interrupted_fit_resumes_bit_for_bit(fitted, tmp_path):
    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, progress=interrupt)
    out = fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    assert snapshot(out) == snapshot(fitted)


def test_the_average_shares_the_training_maps_in_a_resumed_fit_too(tmp_path, monkeypatch):
    states: list[TrainingState] = []

    def interrupt(state, *rest):
        states.append(state)
        if len(states) == 1:
            signal.raise_signal(signal.SIGINT)
        train(state, *rest)

    monkeypatch.setattr(fitting, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, iterations=2)
    fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    assert [state.step for state in states] == [1, 2]
    for state in states:
        assert len(state.ema.maps) == 3
        assert state.ema.maps.data_ptr() == state.gan.generator.maps.data_ptr()


def test_masks_of_another_size_are_painted_at_their_own(generator):
    mask = np.full((40, 100), 3, np.uint8)
    mask[5:20, 20:60] = 7
    assert generator.render(mask, 3).shape == (40, 100, 3)


def test_one_class_can_be_given_another_look(generator):
    mask = generator.pairs[0].mask
    labels = torch.from_numpy(mask.astype(np.int64))
    first = image_noise(1)
    other = combine(first, class_noise(labels, 2), labels == 7)
    change = np.abs(generator.render(mask, first).astype(int) - generator.render(mask, other))
    assert change[mask == 7].mean() > 1
    assert np.array_equal(generator.render(mask, first), generator.render(mask, first))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full((48, 64), 5, np.uint8), r"ids \[5\] that .* known are \[3, 7\]"),
        (np.full((48, 64), 255, np.uint8), "no labelled pixel"),
        (np.full((48, 64), 11, np.uint8), "no labelled pixel"),
        (np.full((48, 64, 1), 3, np.uint8), r"shape \(48, 64, 1\)"),
    ],
)
def test_unusable_masks_are_refused(generator, mask, words):
    with pytest.raises(InputError, match=words):
        generator.render(mask, 0)


def test_wrong_requests_are_refused(tmp_path):
    scenes = write_scenes(tmp_path)
    with pytest.raises(InputError, match="ignored ids are those of masks"):
        fit(images=scenes["images"], out=tmp_path / "o", config=FitConfig(ignore=(3,)))
    with pytest.raises(InputError, match="give masks, or use osmis"):
        fit(images=scenes["images"], out=tmp_path / "o", config=QUICK)
    for preset in ("compose", "patch"):
        config = dataclasses.replace(QUICK, preset=preset)
        with pytest.raises(InputError, match=f"no preset {preset}"):
            fit(out=tmp_path / "o", config=config, **scenes)
    with pytest.raises(InputError, match="osmis has no preset small: use fast, paper"):
        fit(out=tmp_path / "o", config=FitConfig(preset="small"), **scenes)
    assert not (tmp_path / "o").exists()


def test_black_and_white_masks_mean_the_same_in_every_command(tmp_path):
    scenes = write_scenes(tmp_path)
    for path in scenes["masks"].glob("*.png"):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 7, 255, 0).astype(np.uint8)).save(path)
    config = dataclasses.replace(QUICK, ignore=(), iterations=1)
    out = fit(out=tmp_path / "out", config=config, echo=lambda line: None, **scenes)
    painter = MapGenerator(out)
    assert (painter.classes.ids, painter.white_is_object) == ((0, 1), True)
    white = np.asarray(Image.open(scenes["masks"] / "0.png"))
    assert np.array_equal(painter.meaning(white), white // 255)
    edit(out, scenes["masks"] / "0.png", tmp_path / "edited", n=2)
    assert np.array_equal(read_mask(tmp_path / "edited" / "mask.png"), white // 255)
    bank = generate(out, tmp_path / "bank", 2, layouts=str(scenes["masks"]))
    assert all(np.unique(sample.mask).tolist() == [0, 1] for sample in bank)
    own = generate(out, tmp_path / "own", 3, layouts="edited", seed=2)  # 255 is unlabelled here
    assert any(set(np.unique(sample.mask)) == {0, 1, 255} for sample in own)
    again = generate(out, tmp_path / "of-files", 3, layouts=own.path / "masks")
    same = generate(out, tmp_path / "of-bank", 3, layouts=own.path)
    assert [s.mask.tolist() for s in again] == [s.mask.tolist() for s in same]
    source = Source(str(out))
    choice = {"latent_seed": 3}
    held = next(sample.mask for sample in own if {1, 255} <= set(np.unique(sample.mask)))
    assert np.array_equal(source.repaint(held, held.shape, choice), painter.render(held, 3))
    assert np.array_equal(
        source.repaint(white, white.shape, choice), painter.render(white // 255, 3)
    )
    assert source.sees_label(np.full((40, 40), 255, np.int64))
    for path in scenes["masks"].glob("*.png"):  # as a run writes what it has read
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    quiet = {"config": config, "echo": lambda line: None}
    again = fit(out=tmp_path / "again", white_is_object=True, **quiet, **scenes)
    assert MapGenerator(again).white_is_object


@pytest.fixture(scope="module")
def pulled(vgg19_file, tmp_path_factory):
    return quick(tmp_path_factory.mktemp("vgg"), vgg=vgg19_file)


def test_the_vgg_network_is_no_part_of_what_is_kept(pulled, fitted, vgg19_file):
    manifest = json.loads((pulled / "manifest.json").read_text())
    assert manifest["config"]["vgg"] == str(vgg19_file.resolve())
    assert manifest["vgg_sha256"] == hashlib.sha256(vgg19_file.read_bytes()).hexdigest()
    for kind in ("snapshot", "discriminator"):
        names = [
            json.loads((path / "manifest.json").read_text())[kind] for path in (pulled, fitted)
        ]
        one, other = (load_file(p / n) for p, n in zip((pulled, fitted), names, strict=True))
        assert one.keys() == other.keys()
    states = [torch.load(p / "checkpoint.pt", weights_only=True) for p in (pulled, fitted)]
    one, other = (state["training"]["gan"].keys() for state in states)
    assert one == other
    lines = [json.loads(line) for line in (pulled / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("g/vgg", 0) > 0 for line in lines)


def test_a_fit_with_the_vgg_loss_resumes_bit_for_bit(pulled, vgg19_file, tmp_path):
    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, progress=interrupt, vgg=str(vgg19_file))
    out = fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    assert snapshot(out) == snapshot(pulled)


def test_only_a_resume_needs_the_vgg_weights_again(vgg19_file, tmp_path):
    weights = shutil.copy(vgg19_file, tmp_path / "own.pth")
    out = quick(tmp_path, vgg=str(weights), iterations=1)
    weights.unlink()
    assert len(generate(out, tmp_path / "bank", n=1)) == 1
    edit(out, tmp_path / "masks" / "0.png", tmp_path / "edited", n=1)
    for content, words in ((None, "cannot be read"), (b"another", "have changed")):
        if content is not None:
            weights.write_bytes(content)
        with pytest.raises(InputError, match=f"own.pth, with .* {words}.*: put that file back"):
            fit(out=out, resume=True, echo=lambda line: None)


def test_wrong_vgg_weights_are_refused_before_anything_is_written(fitted, tmp_path):
    out = shutil.copytree(fitted, tmp_path / "out")
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no weights by name"):
        fit(
            out=out,
            config=dataclasses.replace(QUICK, vgg=str(wrong)),
            overwrite=True,
            **write_scenes(tmp_path),
        )
    assert snapshot(out) == snapshot(fitted)
