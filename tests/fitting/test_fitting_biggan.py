"""Pre-training a BigGAN, and adapting it to a few pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from biggan_files import write
from fit_contract import (
    AdaptationContract,
    assert_same_weights,
    interrupt_at,
    photographs,
    weights,
)
from PIL import Image
from typer.testing import CliRunner

from synthaug import gans
from synthaug.cli import app
from synthaug.conversion import convert
from synthaug.errors import InputError
from synthaug.gans import biggan
from synthaug.generation import load_generator


class TestBigGAN(AdaptationContract):
    generator = "biggan"
    kept = "stages.0.0.conv_1.weight_orig"
    learned = "stages.2.0.conv_1.weight_orig"
    changed = "gen_z.weight_orig"
    buffer = "bn.running_means"

    def small(self, patch):
        patch.setitem(biggan.PRESETS, "small", {"width": 8, "z_dim": 6, "embedding_dim": 5})

    def test_sub_folders_are_classes(self, tmp_path):
        for name, sizes in (("cat", [(40, 40)] * 3), ("dog", [(50, 40)])):
            photographs(tmp_path / "many" / name, sizes)
        whole = self.pretrain(tmp_path / "many", tmp_path / "whole")
        assert len(np.load(whole / "crops.npy")) == 20
        manifest = json.loads((whole / "manifest.json").read_text())
        assert manifest["crop_classes"] == ["cat", "dog"]
        assert manifest["gan"]["num_classes"] == 2
        names = [pair["id"] for pair in manifest["pairs"]]
        assert names[:4] == ["0000-cat-0-0", "0001-dog-0-0", "0000-cat-1-0", "0001-dog-0-1"]
        assert "projection.weight_orig" in weights(whole, "discriminator")
        with pytest.raises(KeyboardInterrupt):
            self.pretrain(tmp_path / "many", tmp_path / "out", progress=interrupt_at(1))
        assert_same_weights(whole, self.resume(tmp_path / "out"))
        adapted, _ = self.adapt(tmp_path, whole)
        assert "projection.weight_orig" not in weights(adapted, "discriminator")
        embeddings = weights(whole)["embeddings.weight"]
        assert torch.equal(weights(adapted)["embeddings.weight"], embeddings)

    def test_the_length_of_smoothness_directions_is_kept(self, source, tmp_path):
        """A fit of before, which does not say it, goes on with 1."""
        out, _ = self.adapt(tmp_path, source, adaptation="smoothness")
        gan = json.loads((out / "manifest.json").read_text())["gan"]
        assert gan["smoothness_scale"] == 0.1
        del gan["smoothness_scale"]
        assert gans.build(gan).smoothness_scale == 1.0

    def test_public_weights_are_a_source_that_brings_no_discriminator(self, tmp_path):
        convert(write(tmp_path), tmp_path / "converted")
        out, lines = self.adapt(tmp_path, tmp_path / "converted", iterations=1)
        assert "it brings no discriminator: that starts anew; 16x16 px" in lines[0]
        generator = load_generator(out)
        assert generator.manifest["gan"]["statistics"] == 5
        assert generator.sample(0).image.shape == (48, 64, 3)
        with pytest.raises(InputError, match="adaptation freezed keeps layers"):
            self.adapt(tmp_path / "again", tmp_path / "converted", adaptation="freezed")

    def test_samples_are_not_truncated(self, source):
        with pytest.raises(InputError, match="knows no truncation"):
            load_generator(source, truncation=0.5)

    def test_there_are_no_path_lengths(self, tmp_path):
        with pytest.raises(InputError, match="adaptation path is about StyleGAN2's styles"):
            self.adapt(tmp_path, tmp_path / "not there yet", adaptation="path")
        assert not (tmp_path / "adapted").exists()

    def test_masks_and_sources_of_other_gans_are_refused(self, source, tmp_path):
        with pytest.raises(InputError, match="holds no StyleGAN2"):
            self.adapt(tmp_path, source, generator="stylegan2")
        masks = tmp_path / "masks"
        masks.mkdir()
        for i in range(3):
            mask = np.zeros((48, 64), np.uint8)
            mask[:20] = 1
            Image.fromarray(mask).save(masks / f"{i}.png")
        with pytest.raises(InputError, match="biggan makes pictures without masks"):
            self.adapt(tmp_path, source, masks=masks)
        assert not (tmp_path / "adapted").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["fit", "--generator", "biggan", "--images", "few"], "biggan adapts a source: add"),
        (["pretrain", "--generator", "oasis", "--images", "many"], "no source for oasis: pretrain"),
    ],
)
def test_the_commands_say_what_is_missing(command, words, tmp_path):
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert words in result.stderr
