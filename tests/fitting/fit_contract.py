"""What every GAN must do that learns from pictures alone and is then adapted to a few others.

Inherit `PicturesContract`, or `AdaptationContract` where sources may be adapted, and override
``small``.
"""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image
from safetensors.torch import load_file

from synthaug.bank import pictures_behind
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.evaluation import picture_quality
from synthaug.evaluation.picture_quality import (
    check_held_out,
    draw_pictures,
    evaluate_pictures,
    read_held_out,
)
from synthaug.fitting import fit, training_pairs
from synthaug.fitting.fit_folder import FitFolder
from synthaug.fitting.presets import make_plan
from synthaug.generation import generate, load_generator
from synthaug.sample import Sample

SIZES = ((40, 60), (90, 33), (64, 64))
HELD_OUT = ((50, 70), (33, 40), (48, 36), (40, 64))


def photographs(folder, sizes=SIZES):
    """Write pictures of noise, a file per size."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def terms(path):
    """Read every number a fit has written, the last of each name."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return {name: value for line in lines for name, value in json.loads(line).items()}


def weights(path, kind="snapshot"):
    """Read the weights of the generator, or of another kind, that a fit has left."""
    return load_file(path / json.loads((path / "manifest.json").read_text())[kind])


def assert_same_weights(first, second, kinds=("snapshot", "discriminator")):
    """Compare the weights of two fits bit for bit."""
    for kind in kinds:
        expected, found = weights(first, kind), weights(second, kind)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def interrupt_at(step):
    """Make a progress hook that interrupts as a user would."""

    def interrupt(progress):
        if progress.step == step:
            signal.raise_signal(signal.SIGINT)

    return interrupt


class PicturesContract:
    generator: str
    plugins: tuple[str, ...] = ()
    """Of the fit that is interrupted."""
    kept_weights: tuple[str, ...] = ("snapshot", "discriminator")

    def small(self, patch):
        """Make the networks small."""
        raise NotImplementedError

    @pytest.fixture(scope="class", autouse=True)
    def _small(self):
        with pytest.MonkeyPatch.context() as patch:
            self.small(patch)
            patch.setattr(training_pairs, "CROPS", 20)
            yield

    def config(self, **changes):
        """Options of a fit of three steps."""
        quick = FitConfig(
            generator=self.generator,
            iterations=3,
            batch_size=2,
            accelerator="cpu",
            precision="32-true",
            checkpoint_s=600,
        )
        return replace(quick, **changes)

    def fit(self, images, out, *, progress=None, masks=None, echo=lambda line: None, **changes):
        """Fit to a folder of pictures for three steps."""
        config = self.config(**changes)
        return fit(images=images, masks=masks, out=out, config=config, progress=progress, echo=echo)

    def resume(self, out):
        """Go on with a fit that was interrupted."""
        return fit(out=out, resume=True, echo=lambda line: None)

    def pretrain(self, images, out, **options):
        """Fit to squares of 32 px."""
        return self.fit(images, out, **{"max_size": 32} | options)

    @pytest.fixture(scope="class")
    def source(self, tmp_path_factory):
        """A fit to a folder of pictures, ``many`` beside it."""
        folder = tmp_path_factory.mktemp("source")
        images = photographs(folder / "many")
        return self.pretrain(images, folder / "out", plugins=self.plugins)

    def test_its_pictures_are_measured_beside_squares_of_others(
        self, source, tmp_path, monkeypatch
    ):
        generator = load_generator(source)
        held_out = read_held_out(generator, photographs(tmp_path / "held", HELD_OUT))
        assert [sample.size for sample in held_out.pictures] == [(32, 32)] * 20
        drawn = draw_pictures(generator, samples=8, strips=2)
        assert np.array_equal(drawn.samples[3].image, generator.sample(3).image)
        assert np.array_equal(drawn.strips[1][0].image, drawn.samples[2].image)
        value = evaluate_pictures(generator, drawn, held_out)
        assert (value["samples"], value["held_out"], value["training"]) == (8, 20, 21)
        assert value["fid"]["generated"] > value["fid"]["training"] > 0
        assert 1 <= value["reached"] <= 8
        assert value["losses"].keys() == {n for n in terms(source) if n[:2] in ("d/", "g/")}
        monkeypatch.setattr(picture_quality, "MOST_TRAINING", 20)
        value = evaluate_pictures(generator, drawn, held_out)
        assert value["reached"] is value["intra_diversity"] is None
        seen = [Sample(crop, held_out.pictures[0].mask) for crop in np.load(source / "crops.npy")]
        with pytest.raises(InputError, match="was fitted to 21 of the 21 held-out pictures"):
            check_held_out(generator, seen)

    def test_squares_of_one_photograph_are_not_many_pictures(self, source, tmp_path):
        held = photographs(tmp_path / "held", HELD_OUT[:3])
        refused = run("evaluate", source, "--images", held, code=2).stderr
        assert "3 held-out photographs: give at least 4" in refused

    def test_the_photographs_it_has_learned_from_are_not_held_out(self, source, tmp_path):
        held = photographs(tmp_path / "held", HELD_OUT)
        shutil.copy(source.parent / "many" / "1.png", held / "4.png")
        words = ("evaluate", source, "--images", held, "--seed", 7)  # other squares of them
        refused = run(*words, code=2).stderr
        assert "was fitted to 1 of the 5 held-out pictures" in refused
        assert f"{held / '4.png'} first" in refused

    def test_pictures_of_any_size_make_a_generator_of_squares(self, source):
        crops = np.load(source / "crops.npy")
        assert crops.shape[1:] == (32, 32, 3)
        assert len(np.unique(crops.reshape(len(crops), -1), axis=0)) == len(crops)
        generator = load_generator(source)
        assert generator.size == (32, 32)
        assert len(generator.pairs) == 16
        sample = generator.sample(3)
        assert sample.image.shape == (32, 32, 3)
        assert (sample.mask == 255).all()
        assert not np.array_equal(sample.image, generator.sample(4).image)
        assert len(generate(source, source.parent / "bank", 2)) == 2

    def test_a_fit_resumes_bit_for_bit(self, source, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            self.pretrain(
                source.parent / "many",
                tmp_path / "out",
                plugins=self.plugins,
                progress=interrupt_at(1),
            )
        assert_same_weights(source, self.resume(tmp_path / "out"), self.kept_weights)
        assert terms(tmp_path / "out").keys() == terms(source).keys()

    def test_a_training_that_diverges_is_one_line(self, source, tmp_path, monkeypatch):
        def too_fast(*given):
            plan = make_plan(*given)
            return replace(plan, loop=replace(plan.loop, lr_generator=1e30))

        monkeypatch.setattr("synthaug.fitting.fitting.make_plan", too_fast)
        with pytest.raises(InputError, match=r"diverged at step 3: the .* fit again with another"):
            self.pretrain(source.parent / "many", tmp_path / "out")

    def test_a_manifest_of_another_version_is_one_line(self, source, tmp_path):
        shutil.copytree(source, tmp_path / "copy")
        path = tmp_path / "copy" / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["gan"]["invented"] = 3
        path.write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=r"does not fit this version.*invented"):
            load_generator(tmp_path / "copy")

    def test_metrics_cut_off_in_a_line_are_read_up_to_it(self, source, tmp_path):
        shutil.copytree(source, tmp_path / "copy")
        path = tmp_path / "copy" / "metrics.jsonl"
        whole = path.read_text()
        lines = [json.loads(line) for line in whole.splitlines()]
        path.write_text(whole[:-5])
        assert FitFolder(tmp_path / "copy").read_metrics(3) == lines[:-1]
        path.write_text(whole[:5])
        assert FitFolder(tmp_path / "copy").read_metrics(3) == []
        path.unlink()
        assert FitFolder(tmp_path / "copy").read_diversity() == 1.0

    def test_unknown_presets_and_sizes_are_refused(self, source, tmp_path):
        many, out = source.parent / "many", tmp_path / "out"
        with pytest.raises(InputError, match="preset compose: use small"):
            self.pretrain(many, out, preset="compose")
        with pytest.raises(InputError, match=r"32.*, not 48"):
            self.pretrain(many, out, max_size=48)
        with pytest.raises(InputError, match="takes images of any sizes: leave --resize out"):
            self.pretrain(many, out, resize="crop")
        assert not out.exists()


class AdaptationContract(PicturesContract):
    kept: str
    """Discriminator's weight that FreezeD keeps."""
    learned: str
    """Discriminator's weight that is learned in every way."""
    changed: str
    """Generator's weight that is learned."""
    buffer: str
    """Generator's tensor that stays the source's."""

    def adapt(self, tmp_path, source, *, sizes=((48, 64),) * 3, **options):
        """Adapt to three pictures of 48x64; return the fit and the lines it has printed."""
        lines = []
        images = photographs(tmp_path / "few", sizes)
        options = {"source": str(source), "echo": lines.append} | options
        return self.fit(images, tmp_path / "adapted", **options), lines

    @pytest.mark.parametrize(
        ("adaptation", "blocks", "smooth"),
        [
            ("both", True, True),
            ("blocks", True, False),
            ("smoothness", False, True),
            ("plain", False, False),
            ("freezed", False, False),
        ],
    )
    def test_the_way_decides_on_the_losses(self, adaptation, blocks, smooth, source, tmp_path):
        out, lines = self.adapt(tmp_path, source, adaptation=adaptation)
        assert adaptation in lines[0]
        last = terms(out)
        assert ("d/real/16px" in last) == blocks
        assert ("g/smoothness" in last) == smooth
        before, after = weights(source, "discriminator"), weights(out, "discriminator")
        assert torch.equal(before[self.kept], after[self.kept]) == (adaptation == "freezed")
        assert not torch.equal(before[self.learned], after[self.learned])
        start, end = weights(source), weights(out)
        assert torch.equal(start[self.buffer], end[self.buffer])
        assert 0 < (start[self.changed] - end[self.changed]).abs().max() < 0.03
        assert load_generator(out).sample(0).image.shape == (48, 64, 3)

    def test_smoothness_weighs_what_it_is_told_to(self, source, tmp_path):
        usual, _ = self.adapt(tmp_path / "usual", source, iterations=2)
        heavy = {"iterations": 2, "smoothness": 25.0, "progress": interrupt_at(1)}
        with pytest.raises(KeyboardInterrupt):
            self.adapt(tmp_path, source, **heavy)
        out = self.resume(tmp_path / "adapted")
        # The first step begins at the source: it teaches nothing, whatever the weight.
        assert terms(out)["g/smoothness"] == pytest.approx(5 * terms(usual)["g/smoothness"], 0.01)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["config"]["smoothness"] == manifest["gan"]["smoothness"] == 25

    def test_an_adaptation_resumes_bit_for_bit_and_is_adapted_again(self, source, tmp_path):
        whole, _ = self.adapt(tmp_path / "whole", source)
        passing = shutil.copytree(source, tmp_path / "passing")
        with pytest.raises(KeyboardInterrupt):
            self.adapt(tmp_path, passing, progress=interrupt_at(1))
        shutil.rmtree(passing)  # what it began from is not needed any more
        assert_same_weights(whole, self.resume(tmp_path / "adapted"))
        kept = json.loads((whole / "manifest.json").read_text())["config"]["source"]
        assert Path(kept).is_absolute()  # a resume may begin elsewhere
        again, _ = self.adapt(tmp_path / "again", whole, adaptation="smoothness")
        assert "heads.0.bias" in weights(whole, "discriminator")
        assert "heads.0.bias" not in weights(again, "discriminator")
        behind = json.loads((again / "manifest.json").read_text())["learned_from"]
        assert set(behind) == pictures_behind(whole)

    def test_samples_lie_between_two_seeds(self, source):
        generator = load_generator(source)
        strip = generator.interpolate(1, 2, 3)
        assert np.array_equal(strip[0].image, generator.sample(1).image)
        other = generator.sample(2).image.astype(int)  # but for noise, which is the first one's
        far, near = (np.abs(s.image.astype(int) - other).mean() for s in (strip[0], strip[-1]))
        assert near < far / 4
        assert not np.array_equal(strip[1].image, strip[0].image)
        assert len({sample.id for sample in strip}) == 3

    def test_what_is_no_source_is_said(self, source, tmp_path):
        with pytest.raises(InputError, match="source to adapt"):
            self.adapt(tmp_path, tmp_path / "nowhere")
        (tmp_path / "manifest.json").write_text('{"format": "synthaug-bank-1"}')
        with pytest.raises(InputError, match="holds no "):
            self.adapt(tmp_path, tmp_path)
        shutil.copytree(source, tmp_path / "without")
        manifest = json.loads((tmp_path / "without" / "manifest.json").read_text())
        del manifest["discriminator"]
        (tmp_path / "without" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=r"damaged manifest \(discriminator\)"):
            self.adapt(tmp_path, tmp_path / "without")
        with pytest.raises(InputError, match="adaptation plain starts from a source"):
            self.pretrain(source.parent / "many", tmp_path / "out", adaptation="plain")
        with pytest.raises(InputError, match="pictures of 32 px, not 64"):
            self.adapt(tmp_path, source, max_size=64)
        with pytest.raises(InputError, match="a weight of smoothness goes with a source and"):
            self.adapt(tmp_path, source, adaptation="plain", smoothness=5.0)
        with pytest.raises(InputError, match="a weight of smoothness goes with a source and"):
            self.pretrain(source.parent / "many", tmp_path / "out", smoothness=5.0)
        with pytest.raises(InputError, match=r"option adaptation: .* got 'smothness'"):
            self.adapt(tmp_path, source, adaptation="smothness")
        config = self.config(source=str(source))
        with pytest.raises(InputError, match=f"holds {source}, which is read"):
            fit(images=source.parent / "many", out=source, overwrite=True, config=config)
        assert weights(source)
        with pytest.raises(InputError, match=r"bring all images of .* to one size"):
            self.adapt(tmp_path / "sizes", source, sizes=((48, 64), (64, 48)))
        sizes = ((48, 64), (48, 64), (96, 120))
        adapted, lines = self.adapt(tmp_path / "resized", source, sizes=sizes, resize="crop")
        assert lines[0].startswith("1 of 3 images resized to 64x48 px; ")
        assert load_generator(adapted).sample(0).size == (48, 64)
        with pytest.raises(InputError, match="go with --generator stylegan2"):
            self.adapt(tmp_path, source, generator="osmis")
        with pytest.raises(InputError, match="or a source to adapt"):
            self.pretrain(source.parent / "many", tmp_path / "out", masks=source.parent / "many")
        assert not (tmp_path / "adapted").exists()
        assert not (tmp_path / "out").exists()
