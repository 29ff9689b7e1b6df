from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from states import same

from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.fitting.presets import make_plan

QUICK = FitConfig(
    preset="fast",
    iterations=5,
    batch_size=2,
    max_size=32,
    accelerator="cpu",
    precision="32-true",
    checkpoint_s=600,
)


def quick(out, pair, plugins, *, progress=None, resume=False, **changes):
    config = dataclasses.replace(QUICK, plugins=plugins, **changes)
    given = (None, None) if resume else pair
    return fit(*given, out, config=config, progress=progress, resume=resume, echo=lambda line: None)


def test_a_fit_keeps_its_plugins_and_goes_on_bit_for_bit(tmp_path, pair_files):
    plugins = ("maskedgan", "atopk", "medgan-object")
    whole = quick(tmp_path / "whole", pair_files, plugins)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        quick(part, pair_files, plugins, progress=stop, checkpoint_s=1e-9)
    quick(part, pair_files, (), resume=True)  # what the folder says counts
    states = [
        torch.load(path / "checkpoint.pt", weights_only=True)["training"] for path in (whole, part)
    ]
    assert set(states[0]["plugins"]) == {"diffaug", "diversity", "maskedgan", "atopk", "medgan"}
    assert same(*states)
    config = json.loads((whole / "manifest.json").read_text())["config"]
    assert config["plugins"] == list(plugins)


@pytest.mark.parametrize(
    ("plugins", "changes", "words"),
    [
        (("atopp",), {}, "unknown plug-in atopp: did you mean atopk"),
        (("ada",), {"generator": "oasis"}, "plug-in ada does not go with oasis"),
        (("ada",), {"preset": "compose"}, "compose trains nothing: leave out the plug-in ada"),
        (("atopk",), {"preset": "patch"}, "patch trains nothing: leave out the plug-in atopk"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, pair_files, plugins, changes, words):
    with pytest.raises(InputError, match=words):
        quick(tmp_path / "out", pair_files, plugins, **changes)
    assert not (tmp_path / "out").exists()


def test_masks_are_asked_for_before_anything_is_written(tmp_path, pair_files):
    with pytest.raises(InputError, match="medgan-object looks at the objects of masks"):
        quick(tmp_path / "out", (pair_files[0], None), ("medgan-object",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_ada_takes_the_place_of_the_presets_augmentation(preset):
    config = FitConfig(preset=preset, plugins=("ada",), flip=False, max_size=64)
    plan = make_plan(config, (48, 64), 2, 1)
    plugins = plan.plugins()
    assert [plugin.name for plugin in plugins] == ["diversity", "ada"]
    assert not plugins[1].lens.flip
    pictures = plan.loop.iterations * plan.loop.batch_size
    assert plugins[1].meter.swing == pictures // 4 < 500_000


def test_pictures_alone_take_plugins_too(tmp_path):
    image = tmp_path / "scene.png"
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    assert quick(tmp_path / "out", (image, None), ("maskedgan-spectral",)).is_dir()
