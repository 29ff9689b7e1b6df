"""Fitting a TransGAN to a folder of pictures, and drawing from it."""

from __future__ import annotations

import dataclasses
import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from synthaug import training_pairs
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.gans import transgan
from synthaug.generation import generate, load_generator

QUICK = FitConfig(
    generator="transgan",
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
        patch.setitem(transgan.WIDTHS, 32, [32, 32, 32])
        patch.setattr(training_pairs, "CROPS", 20)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i, size in enumerate([(40, 60), (90, 33), (64, 64)]):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def run(out, images=None, progress=None, masks=None, resume=False, **changes):
    config = None if resume else dataclasses.replace(QUICK, **changes)
    return fit(
        images=images,
        masks=masks,
        out=out,
        config=config,
        progress=progress,
        resume=resume,
        echo=lambda line: None,
    )


def snapshot(path):
    return load_file(path / json.loads((path / "manifest.json").read_text())["snapshot"])


def test_a_fit_resumes_bit_for_bit_with_plugins_and_is_drawn_from(photographs, tmp_path):
    plugins = ("maskedgan", "atopk", "ada")
    whole = run(tmp_path / "whole", photographs, plugins=plugins)

    def interrupt(progress):
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", photographs, interrupt, plugins=plugins)
    cut = run(tmp_path / "cut", resume=True)
    first, second = snapshot(whole), snapshot(cut)
    assert all(torch.equal(first[name], second[name]) for name in first)
    generator = load_generator(whole)
    sample = generator.sample(3)
    assert sample.image.shape == (32, 32, 3)
    assert (sample.mask == 255).all()
    assert not np.array_equal(sample.image, generator.sample(4).image)
    assert len(generate(whole, tmp_path / "bank", 2)) == 2


def test_masks_single_pictures_sources_sizes_and_presets_are_refused(photographs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="transgan learns from a folder of pictures alone"):
        run(out, photographs, masks=photographs)
    with pytest.raises(InputError, match="transgan learns from a folder of pictures alone"):
        fit(photographs / "0.png", out=out, config=QUICK)
    with pytest.raises(InputError, match="go with --generator stylegan2"):
        run(out, photographs, source=str(tmp_path))
    with pytest.raises(InputError, match="squares of 32 or 64 px, not 48"):
        run(out, photographs, max_size=48)
    with pytest.raises(InputError, match="transgan has no preset paper: use small"):
        run(out, photographs, preset="paper")
    assert not out.exists()
