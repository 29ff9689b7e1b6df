from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from synthaug.bank import Bank
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.generation import generate
from synthaug.mixing import SynthAugment
from synthaug.mixing.source import Source


def test_a_sample_fetched_again_is_the_same_and_nobody_elses(bank: Bank) -> None:
    source = Source(str(bank.path))
    first = source.fetch({"sample_id": "00003"})
    first.image[:] = 0
    first.mask[:] = 0
    again, stored = source.fetch({"sample_id": "00003"}), bank[2]
    assert np.array_equal(again.image, stored.image)
    assert np.array_equal(again.mask, stored.mask)
    assert (again.id, again.grey) == (stored.id, stored.grey)


@pytest.mark.parametrize("preset", ["compose", "patch"])
def test_the_first_white_mask_beside_a_bank_of_white_masks_is_warned_of(
    tmp_path: Path, preset: str
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3)).astype(np.uint8)
    mask = np.zeros((40, 56), np.uint8)
    mask[12:26, 20:38] = 255
    PIL.Image.fromarray(image).save(tmp_path / "image.png")
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "generator"
    fit(tmp_path / "image.png", tmp_path / "mask.png", out, config=FitConfig(preset=preset))
    bank = generate(out, tmp_path / "bank", 2)
    for path in (out, bank.path):
        with pytest.warns(UserWarning, match=r"\[255\], .* has \[0, 1\] .*mask == 255\] = 1"):
            SynthAugment(path, p=1.0)(image=image, mask=mask)
    manifest = json.loads((bank.path / "manifest.json").read_text())
    del manifest["white_is_object"]  # as banks were written before
    (bank.path / "manifest.json").write_text(json.dumps(manifest))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SynthAugment(bank.path, p=1.0)(image=image, mask=mask)


def test_decoded_samples_stay_in_memory_up_to_the_limit(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthaug.mixing.source.CACHE_BYTES", 2 * 36 * 48 * 4)
    path = tmp_path / "bank"
    shutil.copytree(bank.path, path)
    source = Source(str(path))
    for name in ("00000", "00001", "00000", "00003"):  # 00001 was asked for longest ago
        source.fetch({"sample_id": name})
    shutil.rmtree(path / "images")
    assert source.fetch({"sample_id": "00000"}).id == "00000"
    assert source.fetch({"sample_id": "00003"}).id == "00003"
    with pytest.raises(InputError, match=r"00001\.png is missing"):
        source.fetch({"sample_id": "00001"})
