"""Pre-training a StyleGAN2, and adapting it to a few pictures."""

from __future__ import annotations

import dataclasses
import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stylegan2_files import port_file, random_gan

from synthaug import training_pairs
from synthaug.config import FitConfig
from synthaug.conversion import convert
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.gans import stylegan2
from synthaug.generation import generate, load_generator

QUICK = FitConfig(
    generator="stylegan2",
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
        tiny = {"base": 256, "largest": 8, "latent": 8, "n_mlp": 2}
        patch.setitem(stylegan2.PRESETS, "small", tiny)
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


def adapt(tmp_path, source, *, progress=None, masks=None, sizes=((48, 64),) * 3, **changes):
    config = dataclasses.replace(QUICK, source=str(source), **changes)
    lines = []
    out = fit(
        images=photographs(tmp_path / "few", sizes),
        masks=masks,
        out=tmp_path / "adapted",
        config=config,
        progress=progress,
        echo=lines.append,
    )
    return out, lines


def weights(path, kind="snapshot"):
    return load_file(path / json.loads((path / "manifest.json").read_text())[kind])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return pretrain(photographs(folder / "many", [(40, 60), (90, 33), (64, 64)]), folder / "out")


def test_pretraining_learns_from_squares_of_pictures_of_any_size(source):
    crops = np.load(source / "crops.npy")
    assert crops.shape == (21, 32, 32, 3)
    assert len(np.unique(crops.reshape(21, -1), axis=0)) == 21
    generator = load_generator(source)
    assert generator.size == (32, 32)
    assert len(generator.pairs) == 16
    assert generator.sample(3).image.shape == (32, 32, 3)
    assert (generator.sample(3).mask == 255).all()
    bank = generate(source, source.parent / "bank", 2)
    assert len(bank) == 2


def test_pretraining_resumes_bit_for_bit(source, tmp_path):
    def interrupt(progress):
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pretrain(source.parent / "many", tmp_path / "out", progress=interrupt)
    out = fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    for kind in ("snapshot", "discriminator"):
        whole, resumed = weights(source, kind), weights(out, kind)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_pretraining_takes_no_masks_and_a_power_of_two(source, tmp_path):
    many = source.parent / "many"
    with pytest.raises(InputError, match="or a source to adapt"):
        pretrain(many, tmp_path / "out", masks=many)
    with pytest.raises(InputError, match=r"8, 16, 32, .* not 48"):
        pretrain(many, tmp_path / "out", max_size=48)
    with pytest.raises(InputError, match="no preset compose: use small or paper"):
        pretrain(many, tmp_path / "out", preset="compose")


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
    kept = torch.equal(before["convs.1.conv1.0.weight"], after["convs.1.conv1.0.weight"])
    assert kept == (adaptation == "freezed")
    assert not torch.equal(before["convs.3.conv1.0.weight"], after["convs.3.conv1.0.weight"])
    sample = load_generator(out).sample(0)
    assert sample.image.shape == (48, 64, 3)


def test_adaptation_starts_from_the_sources_weights(source, tmp_path):
    out, _ = adapt(tmp_path, source, iterations=1, adaptation="plain")
    before, after = weights(source), weights(out)
    name = "convs.0.conv.weight"
    assert 0 < (before[name] - after[name]).abs().max() < 0.01
    assert torch.equal(before["noises.noise_3"], after["noises.noise_3"])


def test_an_adapted_generator_may_be_adapted_again(source, tmp_path):
    first, _ = adapt(tmp_path, source)
    again, _ = adapt(tmp_path / "again", first, adaptation="smoothness")
    assert "heads.0.bias" in weights(first, "discriminator")
    assert "heads.0.bias" not in weights(again, "discriminator")


def test_an_adaptation_resumes_bit_for_bit(source, tmp_path):
    whole, _ = adapt(tmp_path / "whole", source)

    def interrupt(progress):
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        adapt(tmp_path, source, progress=interrupt)
    out = fit(out=tmp_path / "adapted", resume=True, echo=lambda line: None)
    expected, found = weights(whole), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_converted_weights_are_a_source_even_without_a_discriminator(tmp_path):
    file = port_file(tmp_path / "public.pt", random_gan(), d=None)
    convert(file, tmp_path / "converted")
    out, lines = adapt(tmp_path, tmp_path / "converted", iterations=1)
    assert "brings no discriminator" in lines[0]
    assert load_generator(out).manifest["gan"]["channels"] == [16, 16, 12, 8]
    with pytest.raises(InputError, match="adaptation freezed keeps layers"):
        adapt(tmp_path / "again", tmp_path / "converted", adaptation="freezed")


def test_what_is_no_source_is_said(source, tmp_path):
    with pytest.raises(InputError, match="source to adapt"):
        adapt(tmp_path, tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text('{"format": "synthaug-bank-1"}')
    with pytest.raises(InputError, match="holds no StyleGAN2"):
        adapt(tmp_path, tmp_path)
    with pytest.raises(InputError, match="pictures of 32 px, not 64"):
        adapt(tmp_path, source, max_size=64)
    with pytest.raises(InputError, match=r"bring all images of .* to one size"):
        adapt(tmp_path / "sizes", source, sizes=((48, 64), (64, 48)))
    with pytest.raises(InputError, match="go with --generator stylegan2"):
        adapt(tmp_path, source, generator="osmis")
    assert not (tmp_path / "adapted").exists()


def test_samples_lie_between_two_seeds(source):
    generator = load_generator(source)
    strip = generator.interpolate(1, 2, 3)
    for seed, end in ((1, strip[0]), (2, strip[-1])):
        assert np.array_equal(end.image, generator.sample(seed).image)
    assert not np.array_equal(strip[1].image, strip[0].image)
    assert len({sample.id for sample in strip}) == 3


def test_with_masks_the_adapted_generator_makes_pairs(source, tmp_path):
    (tmp_path / "masks").mkdir()
    for i in range(3):
        mask = np.full((48, 64), 2, np.uint8)
        mask[10:30, 10 + i : 40], mask[-4:] = 5, 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    whole, _ = adapt(tmp_path / "whole", source, masks=tmp_path / "masks", iterations=6)
    generator = load_generator(whole)
    assert generator.classes.ids == (2, 5)
    sample = generator.sample(1)
    assert sample.mask.shape == (48, 64)
    assert set(np.unique(sample.mask)) <= {2, 5}
    names = set().union(*map(json.loads, (whole / "metrics.jsonl").read_text().splitlines()))
    assert {"d/real/mask", "g/real/mask"} <= names

    def interrupt(progress):
        if progress.step == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        adapt(tmp_path, source, masks=tmp_path / "masks", iterations=6, progress=interrupt)
    out = fit(out=tmp_path / "adapted", resume=True, echo=lambda line: None)
    expected, found = weights(whole), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    again, _ = adapt(tmp_path / "again", whole)
    assert load_generator(again).classes.ids == ()
