"""Pre-training a StyleGAN2, and adapting it to a few pictures."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from command_line import run
from fit_contract import (
    HELD_OUT,
    AdaptationContract,
    assert_same_weights,
    interrupt_at,
    photographs,
    terms,
)
from PIL import Image
from stylegan2_files import port_file, random_gan

from synthaug.conversion import convert
from synthaug.errors import InputError
from synthaug.evaluation import picture_quality
from synthaug.gans import stylegan2
from synthaug.generation import generate, load_generator


class TestStyleGAN2(AdaptationContract):
    generator = "stylegan2"
    kept = "convs.1.conv1.0.weight"
    learned = "convs.3.conv1.0.weight"
    changed = "convs.0.conv.weight"
    buffer = "noises.noise_3"

    def small(self, patch):
        tiny = {"base": 256, "largest": 8, "latent": 8, "n_mlp": 2}
        patch.setitem(stylegan2.PRESETS, "small", tiny)

    def test_terms_that_are_due_every_few_steps_are_told(self, source):
        assert terms(source)["d/r1"] > 0

    def test_path_lengths_may_be_regularised_as_published(self, source, tmp_path):
        out, lines = self.adapt(tmp_path, source, adaptation="path")
        assert f"adapts {source}, path; " in lines[0]
        assert load_generator(out).manifest["gan"]["path"] == 2
        last = terms(out)
        assert last["g/path"] > 0
        assert not {"d/real/16px", "g/smoothness"} & last.keys()
        again, _ = self.adapt(tmp_path / "again", out, adaptation="plain")
        assert "g/path" not in terms(again)

    def test_converted_weights_are_a_source_even_without_a_discriminator(self, tmp_path):
        file = port_file(tmp_path / "public.pt", random_gan(), d=None)
        convert(file, tmp_path / "converted")
        out, lines = self.adapt(tmp_path, tmp_path / "converted", iterations=1)
        assert "brings no discriminator" in lines[0]
        assert load_generator(out).manifest["gan"]["channels"] == [16, 16, 12, 8]
        with pytest.raises(InputError, match="adaptation freezed keeps layers"):
            self.adapt(tmp_path / "again", tmp_path / "converted", adaptation="freezed")

    def test_truncation_brings_samples_together(self, source, tmp_path):
        def spread(truncation):
            generator = load_generator(source, truncation=truncation)
            one, other = (generator.sample(seed).image.astype(int) for seed in (1, 2))
            return np.abs(one - other).mean()

        assert spread(0.0) < 0.8 * spread(0.5) < 0.7 * spread(1.0)
        half = load_generator(source, truncation=0.5)
        banks = [
            generate(given, tmp_path / str(i), 2, truncation=psi)
            for i, (given, psi) in enumerate([(source, 0.5), (half, 1.0), (source, 1.0)])
        ]
        images = [[record["image_sha256"] for record in bank.records] for bank in banks]
        assert images[0] == images[1] != images[2]
        assert [bank.manifest["config"]["truncation"] for bank in banks] == [0.5, 0.5, 1.0]
        assert np.array_equal(half.interpolate(1, 2, 2)[0].image, half.sample(1).image)
        with pytest.raises(InputError, match="open this one with it"):
            generate(half, tmp_path / "other", 2, truncation=0.7)
        with pytest.raises(InputError, match="truncation nan is out of range"):
            load_generator(source, truncation=float("nan"))

    def test_edit_and_evaluate_take_a_truncation(self, source, tmp_path, monkeypatch):
        out, half = tmp_path / "strip", load_generator(source, truncation=0.5)
        run("edit", source, "--out", out, "--between", 1, 2, "-n", 2, "--truncation", 0.5)
        picture = np.asarray(Image.open(out / "version-000.png"))
        assert np.array_equal(picture, half.sample(1).image)
        assert json.loads((out / "manifest.json").read_text())["truncation"] == 0.5
        few = functools.partial(picture_quality.draw_pictures, samples=8, strips=1)
        monkeypatch.setattr(picture_quality, "draw_pictures", few)
        held = photographs(tmp_path / "held", HELD_OUT)
        words = ("evaluate", source, "--images", held, "--network", "efficientnet_lite0")
        page = tmp_path / "page"
        table = run(*words, "--truncation", 0.5, "--out", page).stdout
        assert table.startswith("8 pictures, truncation 0.5, beside 20 held-out ones, FID and")
        value = json.loads((page / "quality.json").read_text())
        manifest = json.loads((page / "manifest.json").read_text())
        assert value["truncation"] == manifest["truncation"] == 0.5
        assert "--truncation 0.5" in (page / "index.html").read_text()
        whole = json.loads(run(*words, "--json").stdout)
        assert whole["truncation"] == 1
        assert whole["fid"]["generated"] != value["fid"]["generated"]
        refused = run(*words, "--truncation", 2, code=2).stderr
        assert "truncation 2.0 is out of range: take one from 0 to 1" in refused

    @pytest.mark.parametrize("joint", [False, True])
    def test_with_masks_the_adapted_generator_makes_pairs(self, joint, source, tmp_path):
        masks = tmp_path / "masks"
        masks.mkdir()
        for i in range(3):
            mask = np.full((48, 64), 2, np.uint8)
            mask[10:30, 10 + i : 40], mask[-4:] = 5, 255
            Image.fromarray(mask).save(masks / f"{i}.png")
        labelled = {"masks": masks, "iterations": 6, "joint_masks": joint}
        whole, lines = self.adapt(tmp_path / "whole", source, **labelled)
        assert ("joint masks" in lines[0]) == joint
        generator = load_generator(whole)
        assert generator.classes.ids == (2, 5)
        sample = generator.sample(1)
        assert sample.mask.shape == (48, 64)
        assert set(np.unique(sample.mask)) <= {2, 5}
        assert {"d/real/mask", "g/real/mask"} <= terms(whole).keys()
        with pytest.raises(KeyboardInterrupt):
            self.adapt(tmp_path, source, progress=interrupt_at(4), **labelled)
        assert_same_weights(whole, self.resume(tmp_path / "adapted"))
        again, _ = self.adapt(tmp_path / "again", whole)
        assert load_generator(again).classes.ids == ()

    def test_joint_masks_need_masks_and_a_source(self, source, tmp_path):
        with pytest.raises(InputError, match="joint masks go with --generator stylegan2"):
            self.adapt(tmp_path, source, joint_masks=True)
        with pytest.raises(InputError, match="joint masks go with --generator stylegan2"):
            self.pretrain(source.parent / "many", tmp_path / "out", joint_masks=True)
        assert not (tmp_path / "adapted").exists()
