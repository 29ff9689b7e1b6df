"""Pre-training a BigGAN, and adapting it to a few pictures."""

from __future__ import annotations

import dataclasses
import json
import signal

import numpy as np
import pytest
import torch
from biggan_files import write
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from synthaug import training_pairs
from synthaug.cli import app
from synthaug.config import FitConfig
from synthaug.conversion import convert
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.gans import biggan
from synthaug.generation import generate, load_generator

QUICK = FitConfig(
    generator="biggan",
    iterations=3,
    batch_size=2,
    accelerator="cpu",
    precision="32-true",
    checkpoint_s=600,
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Few channels and few crops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(biggan.PRESETS, "small", {"width": 8, "z_dim": 6, "embedding_dim": 5})
        patch.setattr(training_pairs, "CROPS", 20)
        yield


def photographs(folder, sizes):
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def pretrain(images, out, **options):
    changes = {k: options.pop(k) for k in list(options) if hasattr(QUICK, k)}
    config = dataclasses.replace(QUICK, **{"max_size": 32} | changes)
    return fit(images=images, out=out, config=config, echo=lambda line: None, **options)


def adapt(tmp_path, source, *, progress=None, sizes=((48, 64),) * 3, masks=None, **changes):
    lines = []
    out = fit(
        images=photographs(tmp_path / "few", sizes),
        masks=masks,
        out=tmp_path / "adapted",
        config=dataclasses.replace(QUICK, source=str(source), **changes),
        progress=progress,
        echo=lines.append,
    )
    return out, lines


def weights(path, kind="snapshot"):
    return load_file(path / json.loads((path / "manifest.json").read_text())[kind])


def interrupt(progress):
    if progress.step == 1:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return pretrain(photographs(folder / "many", [(40, 60), (90, 33), (64, 64)]), folder / "out")


def test_pretraining_makes_a_generator_of_squares(source):
    generator = load_generator(source)
    assert generator.size == (32, 32)
    assert len(generator.pairs) == 16
    assert len(generate(source, source.parent / "bank", 2)) == 2
    strip = generator.interpolate(1, 2, 3)
    assert np.array_equal(strip[0].image, generator.sample(1).image)
    assert not np.array_equal(strip[1].image, strip[0].image)


def test_pretraining_resumes_bit_for_bit(source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pretrain(source.parent / "many", tmp_path / "out", progress=interrupt)
    out = fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    for kind in ("snapshot", "discriminator"):
        whole, resumed = weights(source, kind), weights(out, kind)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_sub_folders_are_classes(tmp_path):
    for name, sizes in (("cat", [(40, 40)] * 3), ("dog", [(50, 40)])):
        photographs(tmp_path / "many" / name, sizes)
    whole = pretrain(tmp_path / "many", tmp_path / "whole")
    crops = np.load(whole / "crops.npy")
    assert len(crops) == 20
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["crop_classes"] == ["cat", "dog"]
    assert manifest["gan"]["num_classes"] == 2
    names = [pair["id"] for pair in manifest["pairs"]]
    assert names[:4] == ["cat-0-0", "dog-0-0", "cat-1-0", "dog-0-1"]
    assert "projection.weight_orig" in weights(whole, "discriminator")
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path / "many", tmp_path / "out", progress=interrupt)
    out = fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    for kind in ("snapshot", "discriminator"):
        expected, found = weights(whole, kind), weights(out, kind)
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    adapted, _ = adapt(tmp_path, whole)
    assert "projection.weight_orig" not in weights(adapted, "discriminator")
    embeddings = weights(whole)["embeddings.weight"]
    assert torch.equal(weights(adapted)["embeddings.weight"], embeddings)


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
def test_adaptation_decides_on_the_losses(adaptation, blocks, smooth, source, tmp_path):
    out, lines = adapt(tmp_path, source, adaptation=adaptation)
    assert adaptation in lines[0]
    terms = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = {name: value for line in terms for name, value in line.items()}
    assert ("d/real/16px" in last) == blocks
    assert ("g/smoothness" in last) == smooth
    before, after = weights(source, "discriminator"), weights(out, "discriminator")
    name = "conv_1.weight_orig"
    kept = torch.equal(before[f"stages.0.0.{name}"], after[f"stages.0.0.{name}"])
    assert kept == (adaptation == "freezed")
    assert not torch.equal(before[f"stages.2.0.{name}"], after[f"stages.2.0.{name}"])
    start, end = weights(source), weights(out)
    assert torch.equal(start["bn.running_means"], end["bn.running_means"])
    change = (start["gen_z.weight_orig"] - end["gen_z.weight_orig"]).abs().max()
    assert 0 < change < 0.01
    assert load_generator(out).sample(0).image.shape == (48, 64, 3)


def test_an_adaptation_resumes_bit_for_bit(source, tmp_path):
    whole, _ = adapt(tmp_path / "whole", source)
    with pytest.raises(KeyboardInterrupt):
        adapt(tmp_path, source, progress=interrupt)
    out = fit(out=tmp_path / "adapted", resume=True, echo=lambda line: None)
    for kind in ("snapshot", "discriminator"):
        expected, found = weights(whole, kind), weights(out, kind)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_adapted_generator_may_be_adapted_again(source, tmp_path):
    first, _ = adapt(tmp_path, source)
    again, _ = adapt(tmp_path / "again", first, adaptation="smoothness")
    assert "heads.0.bias" in weights(first, "discriminator")
    assert "heads.0.bias" not in weights(again, "discriminator")


def test_public_weights_are_a_source_that_brings_no_discriminator(tmp_path):
    convert(write(tmp_path), tmp_path / "converted")
    out, lines = adapt(tmp_path, tmp_path / "converted", iterations=1)
    assert "it brings no discriminator: that starts anew; 16x16 px" in lines[0]
    generator = load_generator(out)
    assert generator.manifest["gan"]["statistics"] == 5
    assert generator.sample(0).image.shape == (48, 64, 3)
    with pytest.raises(InputError, match="adaptation freezed keeps layers"):
        adapt(tmp_path / "again", tmp_path / "converted", adaptation="freezed")


def test_what_does_not_fit_is_said(source, tmp_path):
    many = source.parent / "many"
    with pytest.raises(InputError, match="32, 64, 128, 256, 512 pixels a side, not 48"):
        pretrain(many, tmp_path / "out", max_size=48)
    with pytest.raises(InputError, match=r"no preset fast: use small or paper"):
        pretrain(many, tmp_path / "out", preset="fast")
    with pytest.raises(InputError, match="or a source to adapt"):
        pretrain(many, tmp_path / "out", masks=many)
    with pytest.raises(InputError, match="pictures of 32 px, not 64"):
        adapt(tmp_path, source, max_size=64)
    with pytest.raises(InputError, match="holds no StyleGAN2"):
        adapt(tmp_path, source, generator="stylegan2")
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(3):
        mask = np.zeros((48, 64), np.uint8)
        mask[:20] = 1
        Image.fromarray(mask).save(masks / f"{i}.png")
    with pytest.raises(InputError, match="biggan makes pictures without masks"):
        adapt(tmp_path, source, masks=masks)
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
    assert result.exit_code != 0
    assert words in str(result.exception) + result.output
