"""Painting masks in files: versions, strips between two seeds, and their folders."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from command_line import run
from PIL import Image
from scene_painter import quick

from synthaug.errors import InputError
from synthaug.formats.folder import read_image, read_mask
from synthaug.generation import load_generator
from synthaug.painting import edit


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return quick(tmp_path_factory.mktemp("painting"), max_size=96, iterations=4)


@pytest.fixture(scope="module")
def painter(fitted):
    return load_generator(fitted)


@pytest.fixture(scope="module")
def mask_file(tmp_path_factory):
    """A mask of 48x160 px whose only object stands at the left."""
    mask = np.full((48, 160), 3, np.uint8)
    mask[10:38, 8:40] = 7
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    Image.fromarray(mask).save(path)
    return path


def pictures(folder):
    return [read_image(path)[0].astype(int) for path in sorted(folder.glob("version-*.png"))]


def test_edit_writes_versions_a_sheet_and_what_made_them(fitted, mask_file, painter, tmp_path):
    out = tmp_path / "versions"
    printed = run("edit", fitted, mask_file, "--out", out, "-n", 3, "--seed", 5).stdout
    assert printed == f"{out / 'sheet.png'}\n"
    drawn = pictures(out)
    mask = read_mask(mask_file)
    assert np.array_equal(read_mask(out / "mask.png"), mask)
    for number, picture in enumerate(drawn):
        assert np.array_equal(picture, painter.render(mask, 5 + number))
    assert read_image(out / "sheet.png")[0].shape == (48 + 12, 4 * (160 + 6) + 6, 3)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["generator"]["sha256"] == painter.hash
    assert (manifest["n"], manifest["seed"], manifest["per"]) == (3, 5, "image")


@pytest.mark.parametrize("per", ["image", "class", "region", "pixel"])
def test_only_the_class_asked_for_gets_another_look(per, painter, mask_file):
    mask = read_mask(mask_file)
    first, *others = painter.versions(mask, 4, per=per, resample="7")
    change = np.mean([np.abs(o.astype(int) - first).mean(2) for o in others], axis=0)
    inside, far = change[mask == 7].mean(), change[:, 100:].mean()
    assert inside > 0.5
    assert far < 0.1 * inside
    whole = painter.versions(mask, 2, per=per)
    assert np.abs(whole[1].astype(int) - whole[0])[:, 100:].mean() > 5 * far


def test_a_region_given_as_pixels_is_resampled_alone(painter, mask_file):
    where = np.zeros((48, 160), bool)
    where[:, 120:] = True
    first, other = painter.versions(read_mask(mask_file), 2, resample=where)
    change = np.abs(other.astype(int) - first).mean(2)
    assert change[:, :60].mean() < 0.1 * change[where].mean()


def test_a_strip_leads_from_one_seed_to_another(fitted, painter, mask_file, tmp_path):
    out, mask = tmp_path / "strip", read_mask(mask_file)
    run("edit", fitted, mask_file, "--out", out, "--between", 2, 9, "-n", 5)
    strip = pictures(out)
    assert np.array_equal(strip[0], painter.render(mask, 2))
    assert np.abs(strip[-1] - painter.render(mask, 9)).max() <= 1
    steps = [np.abs(b - a).mean() for a, b in pairwise(strip)]
    assert max(steps) < np.abs(strip[-1] - strip[0]).mean()
    assert read_image(out / "sheet.png")[0].shape[1] == 6 * (160 + 6) + 6  # one row


def test_samples_between_two_seeds_keep_the_first_ones_mask(painter):
    strip = painter.interpolate(2, 9, 3)
    first = painter.sample(2)
    assert np.array_equal(strip[0].image, first.image)
    assert all(np.array_equal(sample.mask, first.mask) for sample in strip)
    assert np.abs(strip[-1].image.astype(int) - painter.render(first.mask, 9)).max() <= 1
    assert [sample.id for sample in strip] == ["z2-z9-0.000", "z2-z9-0.500", "z2-z9-1.000"]


def test_generators_of_pictures_go_between_two_seeds_without_a_mask(make_fit_folder, tmp_path):
    folder, out = make_fit_folder(masks=False), tmp_path / "strip"
    printed = run("edit", folder, "--out", out, "--between", 4, 7, "-n", 6).stdout
    assert printed == f"{out / 'sheet.png'}\n"
    strip, generator = pictures(out), load_generator(folder)
    assert len(strip) == 6
    assert np.array_equal(strip[0], generator.sample(4).image)
    assert np.array_equal(strip[-1], generator.sample(7).image)
    assert not (out / "mask.png").exists()
    assert read_image(out / "sheet.png")[0].shape == (40 + 12, 6 * (56 + 6) + 6, 3)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["between"], manifest["n"]) == ([4, 7], 6)
    assert manifest["generator"]["sha256"] == generator.hash


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name two seeds to go between, --between 0 1"),
        (["--seed", 3], "name two seeds to go between"),
        (["--between", 0, 1, "--seed", 3], "seed 3 has no use between two seeds"),
        (["--between", 0, 1, "-n", 1], "ask for 2 up"),
        (["--between", 0, 1, "--per", "class"], "does not paint masks: leave out the mask, and"),
        (["--between", 0, 1, "--resample", 7], "does not paint masks: leave out the mask, and"),
        (["--between", 0, 1, "--truncation", 0.5], "knows no truncation, as stylegan2 alone does"),
    ],
)
def test_what_generators_of_pictures_have_no_use_for_is_refused(
    words, told, make_fit_folder, tmp_path
):
    result = run("edit", make_fit_folder(), "--out", tmp_path / "out", *words, code=2)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_latents_or_a_mask_to_paint_there_is_nothing_to_edit(fitted, pair_files, tmp_path):
    run("fit", *pair_files, "--preset", "compose", "--out", tmp_path / "composed")
    words = ("--between", 0, 1, "--out", tmp_path / "out")
    assert "has no latents" in run("edit", tmp_path / "composed", *words, code=2).stderr
    assert "paints masks: name one after it" in run("edit", fitted, *words, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_a_strip_can_stay_inside_a_class(painter, mask_file):
    mask = read_mask(mask_file)
    strip = painter.between(mask, (2, 9), 3, per="class", resample=7)
    change = np.abs(strip[-1].astype(int) - strip[0]).mean(2)
    assert change[:, 100:].mean() < 0.1 * change[mask == 7].mean()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--resample", "cow"], "there is no class cow: known are 3 (class_3), 7 (class_7)"),
        (["--per", "object"], "no noise per object: take image, class, region, pixel"),
        (["--between", "1", "2", "-n", "1"], "ask for 2 up"),
        (["-n", "0"], "ask for 1 or more"),
        (["--between", "1", "2", "--seed", "7"], "seed 7 has no use between two seeds"),
        (["--accelerator", "CPU"], "unknown accelerator 'CPU': choose one of auto, cpu, cuda"),
    ],
)
def test_wrong_requests_are_one_line(words, told, fitted, mask_file, tmp_path):
    result = run("edit", fitted, mask_file, "--out", tmp_path / "out", *words, code=2)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_masks_and_generators_that_do_not_fit_are_refused(
    fitted, make_fit_folder, mask_file, tmp_path
):
    Image.fromarray(np.full((48, 64), 3, np.uint8)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match=r"no pixel of class 7: it holds ids \[3\]"):
        edit(fitted, tmp_path / "plain.png", tmp_path / "out", resample=7)
    Image.fromarray(np.full((48, 64), 4, np.uint8)).save(tmp_path / "strange.png")
    with pytest.raises(InputError, match=r"strange.png holds ids \[4\] that .* was not fitted to"):
        edit(fitted, tmp_path / "strange.png", tmp_path / "out")
    Image.fromarray(np.arange(200, dtype=np.uint8)[None]).save(tmp_path / "soft.png")
    with pytest.raises(InputError, match=r"soft.png holds ids \[0, 1, 2\] and 194 more that"):
        edit(fitted, tmp_path / "soft.png", tmp_path / "out")
    with pytest.raises(InputError, match="does not paint masks"):
        edit(make_fit_folder(), mask_file, tmp_path / "out")
    with pytest.raises(InputError, match="not empty"):
        edit(fitted, mask_file, fitted)


@pytest.mark.parametrize("command", ["edit", "segment", "recreate"])
def test_no_output_takes_the_place_of_the_painter(command, fitted, mask_file):
    before = sorted(path.name for path in fitted.iterdir())
    told = run(command, fitted, mask_file, "--out", fitted, "--overwrite", code=2)
    assert f"holds {fitted}, which is read: choose another folder" in " ".join(told.output.split())
    assert sorted(path.name for path in fitted.iterdir()) == before
