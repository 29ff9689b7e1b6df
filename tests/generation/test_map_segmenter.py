"""The discriminator of a painter as a segmenter, and pictures recreated through it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image
from safetensors.torch import load_file
from scene_painter import quick

from synthaug import gans
from synthaug.errors import InputError
from synthaug.fitting.fit_folder import FitFolder
from synthaug.formats.folder import read_image, read_mask
from synthaug.generation import MapGenerator, MapSegmenter, generate


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return quick(tmp_path_factory.mktemp("segmenter"), iterations=60, batch_size=3)


@pytest.fixture(scope="module")
def pairs(fitted):
    return MapGenerator(fitted).pairs


@pytest.fixture
def photographs(pairs, tmp_path):
    (tmp_path / "photographs").mkdir()
    for pair in pairs:
        Image.fromarray(pair.image).save(tmp_path / "photographs" / f"{pair.id}.png")
    return tmp_path / "photographs"


def test_fit_keeps_the_discriminator_and_only_the_last_one(fitted):
    manifest = json.loads((fitted / "manifest.json").read_text())
    assert [p.name for p in fitted.glob("discriminator-*")] == [manifest["discriminator"]]
    kept = load_file(fitted / manifest["discriminator"])
    trained = torch.load(fitted / "checkpoint.pt", weights_only=True)["training"]["gan"]
    assert kept
    for name, tensor in kept.items():
        assert torch.equal(tensor, trained[f"discriminator.{name}"])


def test_it_segments_what_it_was_trained_on(fitted, pairs):
    segmenter = MapSegmenter(fitted)
    for pair in pairs:
        mask = segmenter.segment(pair.image)
        assert mask.shape == pair.size
        labelled = pair.mask != 255
        assert set(np.unique(mask)) == {3, 7}
        assert (mask == pair.mask)[labelled].mean() > 0.9
        assert (mask == pair.mask)[pair.mask == 7].mean() > 0.8


def test_pictures_of_another_size_are_segmented_at_their_own(fitted, pairs):
    wide = np.concatenate([pairs[0].image, pairs[1].image], 1)
    assert MapSegmenter(fitted).segment(wide).shape == (48, 128)


def test_a_mirrored_view_is_segmented(fitted, pairs):
    segmenter, view = MapSegmenter(fitted), pairs[0].image[:, ::-1]
    assert np.array_equal(segmenter.segment(view), segmenter.segment(view.copy()))


def test_the_published_discriminator_segments_too(fitted, pairs, tmp_path):
    spec = {"name": "oasis", "preset": "small", "height": 64, "width": 64, "num_classes": 2}
    spec |= {"base": 2, "hidden": 4, "discriminator_width": 0.05}
    torch.manual_seed(0)
    gan = gans.build(spec)
    with torch.no_grad():
        gan.discriminator.logits.bias.copy_(torch.tensor([90.0, 80.0, 0.0, 70.0]))
    shutil.copytree(fitted, tmp_path / "small")
    manifest = {**json.loads((fitted / "manifest.json").read_text()), "gan": spec}
    weights = gan.generator.state_dict(), gan.discriminator.state_dict()
    FitFolder(tmp_path / "small").write_snapshot(weights[0], manifest, 1, {}, weights[1])
    mask = MapSegmenter(tmp_path / "small").segment(pairs[0].image)
    assert (mask == 7).all()  # neither "fake" nor "unlabelled", however sure of them it is


def test_segment_writes_index_masks_that_can_be_painted_again(fitted, photographs, tmp_path):
    out = tmp_path / "masks"
    result = run("segment", fitted, photographs, "--out", out)
    assert result.stdout == f"{out}\n"
    assert "picture 3/3" in result.stderr
    expected = MapSegmenter(fitted).segment(read_image(photographs / "1.png")[0])
    assert np.array_equal(read_mask(out / "1.png"), expected)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"]["ids"] == [3, 7]
    bank = generate(MapGenerator(fitted), tmp_path / "bank", n=1, layouts=out)
    assert any(np.array_equal(bank[0].mask, read_mask(path)) for path in out.glob("*.png"))
    run("segment", fitted, photographs / "1.png", "--out", out, "--overwrite")
    assert [p.name for p in out.glob("*.png")] == ["1.png"]


def test_recreate_paints_the_predicted_map(fitted, photographs, tmp_path):
    out = tmp_path / "recreated"
    photograph = photographs / "0.png"
    printed = run("recreate", fitted, photograph, "--out", out, "-n", 2, "--seed", 3).stdout
    assert printed == f"{out / 'sheet.png'}\n"
    image = read_image(photograph)[0]
    mask = MapSegmenter(fitted).segment(image)
    assert np.array_equal(read_mask(out / "mask.png"), mask)
    for number in range(2):
        painted = MapGenerator(fitted).render(mask, 3 + number)
        assert np.array_equal(read_image(out / f"version-{number:03d}.png")[0], painted)
    sheet = read_image(out / "sheet.png")[0]
    assert sheet.shape == (48 + 12, 4 * (64 + 6) + 6, 3)
    assert np.array_equal(sheet[6:54, 6:70], image)


def test_other_generators_are_refused(make_fit_folder, photographs, tmp_path):
    other = make_fit_folder()
    assert not list(other.glob("discriminator*"))
    said = run("segment", other, photographs, "--out", tmp_path / "out", code=2).stderr
    assert "no discriminator that segments: fit with --generator oasis" in said
    assert not (tmp_path / "out").exists()


def test_damaged_and_old_folders_are_refused(fitted, photographs, tmp_path):
    old = shutil.copytree(fitted, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text())
    weights = old / manifest.pop("discriminator")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="is damaged"):
        MapSegmenter(old)
    (old / "manifest.json").write_text(json.dumps(manifest))
    said = run("recreate", old, photographs / "0.png", "--out", tmp_path / "out", code=2).stderr
    assert "holds no discriminator: an earlier version" in said
    assert not (tmp_path / "out").exists()


def test_unusable_pictures_are_refused(fitted, photographs, tmp_path):
    shutil.copy(photographs / "1.png", photographs / "1.bmp")
    said = run("segment", fitted, photographs, "--out", tmp_path / "out", code=2).stderr
    assert "several pictures named 1" in said
    said = run("segment", fitted, tmp_path / "no.png", "--out", tmp_path / "out", code=2).stderr
    assert "no image at" in said
    with pytest.raises(InputError, match=r"shape \(48, 64\)"):
        MapSegmenter(fitted).segment(np.zeros((48, 64), np.uint8))
    assert not (tmp_path / "out").exists()
