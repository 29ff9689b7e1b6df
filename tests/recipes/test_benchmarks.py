from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from synthaug.bank import Bank, write_bank
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream

SIZE = (48, 64)


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("benchmarks")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 12:40] = 1
    samples = []
    for number in range(4):
        image = numpy_stream(number, "noise").integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        samples.append((Sample(image, np.roll(mask, number, 1)), {}))
    pair = Sample(samples[0][0].image[:, ::-1].copy(), mask)
    return write_bank(
        tmp_path_factory.mktemp("banks") / "bank", samples, [pair], ClassMap((0, 1)), {}
    )


@pytest.fixture
def small(script, monkeypatch):
    """Shrink the pictures and the rounds."""
    for name, value in {"HEIGHT": 48, "WIDTH": 64, "CROP_PX": 32, "ROUNDS": 2, "BATCH": 2}.items():
        monkeypatch.setattr(script, name, value)


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_one_command_writes_a_table_with_a_bank_of_its_own(script, small, tmp_path):
    out = tmp_path / "table.md"
    rows = ["--rows", "generate", "filter", "--samples", "4"]
    script.main([*rows, "--threads", str(torch.get_num_threads()), "--out", str(out)])
    header, _, *lines = [line for line in out.read_text().splitlines() if line.startswith("|")]
    assert header == "| what | seconds | CPU seconds | ratio | memory |"
    found = {cells(line)[0]: cells(line) for line in lines}
    assert "generate: 4 samples at 198x303 drawn and written" in found
    assert float(found["filter: 4 samples"][1]) > 0
    assert "cores" in out.read_text().splitlines()[-1]


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_sifid_is_compared_with_the_naive_results(script, small, bank, monkeypatch):
    lines = list(script.sifid_rows(bank, 3))
    assert len(lines) == 4
    assert all(float(value) > 0 for line in lines[:3] for value in cells(line)[1:3])
    assert float(lines[-1].split(":")[1].split("|")[0]) < 1e-4
    naive = script.naive_sifid
    monkeypatch.setattr(script, "naive_sifid", lambda *a: [1.001 * x for x in naive(*a)])
    with pytest.raises(SystemExit, match="differs from the naive"):
        list(script.sifid_rows(bank, 1))


def test_the_loader_tells_times_and_the_memory_of_its_workers(script, small, bank, tmp_path):
    without, with_ = script.loader_rows(bank, tmp_path, 8)
    assert cells(without)[3] == ""
    assert re.fullmatch(r"\d+\.\d\d \(CPU \d+\.\d\d\)", cells(with_)[3])
    first, last = script.memory_rows(Bank(bank.path), tmp_path, [2, 8])
    assert 0 < int(cells(first)[-1].split()[0]) <= int(cells(last)[-1].split()[0])


def test_compare_is_timed(script, small, bank, tmp_path):
    line = next(script.compare_rows(bank.path, tmp_path, 2))  # the next one starts processes
    assert cells(line)[0] == "compare: 4 trainings of 2 steps, jobs=1"
    assert float(cells(line)[1]) > 0


def test_fits_are_timed_in_both_precisions(script, tmp_path):
    full, half = script.precision_rows(tmp_path, 1, max_size=32)
    assert cells(full)[0].startswith("fit: 1 steps, 32-true")
    assert cells(half)[0].startswith("fit: 1 steps, bf16-mixed")
    assert sum("auto" in line for line in (full, half)) == 1
    assert re.fullmatch(r"\d+\.\d\d \(CPU \d+\.\d\d\)", cells(full)[3])
