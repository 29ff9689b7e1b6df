from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from synthaug.bank import Bank
from synthaug.errors import InputError
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
