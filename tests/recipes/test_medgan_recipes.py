from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from synthaug.errors import InputError


@pytest.fixture(scope="module")
def ring(load_script):
    return load_script("medgan_ring")


def test_true_points_score_as_the_script_says(ring):
    points, modes = ring.ring(2000, torch.Generator().manual_seed(0))
    scores = ring.judge(points, modes)
    assert scores["modes"] == 8
    assert scores["hq_percent"] == pytest.approx(98.9, abs=0.3)
    assert scores["std"] == pytest.approx(0.097, abs=0.001)
    assert scores["class_percent"] > 99.9
    assert scores["reverse_kl"] < 1e-4


def test_lost_modes_and_wide_points_show(ring):
    points = ring.MEANS[torch.tensor([0, 0, 0, 2])] + torch.tensor([0.0, 0.01])
    scores = ring.judge(points, torch.tensor([0, 1, 2, 2]))
    assert scores["modes"] == 2
    assert scores["hq_percent"] == 100
    assert scores["class_percent"] == 50
    expected = math.log(8) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert scores["reverse_kl"] == pytest.approx(expected)
    square = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    assert ring.judge(square, torch.zeros(4000))["hq_percent"] == pytest.approx(25, abs=3)


def test_a_short_ring_finds_every_mode_and_is_not_trained_again(
    ring, tmp_path, monkeypatch, capsys
):
    command = ["--out", str(tmp_path), "--rows", "+contrast", "--seeds", "1", "--steps", "250"]
    ring.main(command)
    first = capsys.readouterr().out
    scores = json.loads((tmp_path / "runs" / "+contrast-0-250.json").read_text())
    assert scores["modes"] == 8
    assert scores["class_percent"] > 95
    assert (tmp_path / "runs" / "+contrast-0-250.png").is_file()
    monkeypatch.setattr(ring, "run", lambda *_: pytest.fail("trained again"))
    ring.main(command)
    assert capsys.readouterr().out == first


@pytest.fixture(scope="module")
def crops(load_script):
    return load_script("medgan_crops")


def test_tiles_know_their_photograph(crops):
    pictures = [np.full((70, 100, 3), value, np.uint8) for value in (0, 255)]
    (training, labels), (held_out, others) = crops.classed_tiles(pictures)
    assert labels.tolist() == others.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(training.mean((1, 2, 3)), labels * 2.0 - 1)
    assert held_out.shape == (6, 3, 32, 32)
    with pytest.raises(InputError, match="64 px"):
        crops.classed_tiles([np.zeros((40, 200, 3), np.uint8)])


def test_some_tiles_of_each_class_keep_their_label(crops):
    labels = torch.arange(20) % 2
    images = torch.arange(20.0).view(20, 1, 1, 1).expand(-1, 3, 32, 32)
    (kept, of_kept), hidden = crops.hide_labels((images, labels), 3, seed=0)
    assert torch.bincount(of_kept).tolist() == [3, 3]
    assert torch.equal(kept[:, 0, 0, 0] % 2, of_kept.float())
    both = torch.cat([kept, hidden])[:, 0, 0, 0]
    assert sorted(both.tolist()) == list(range(20))
    with pytest.raises(InputError, match="lower --labelled 10"):
        crops.hide_labels((images, labels), 10, seed=0)


def test_every_row_of_crops_is_scored(crops, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(crops, "SAMPLES", 16)
    monkeypatch.setattr(crops, "BATCH", 4)
    noise = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture = noise.integers(0, 256, (70, 140, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
    command = ["--out", str(tmp_path / "out"), "--photos", str(tmp_path / "photos")]
    command += ["--labelled", "2", "--seeds", "1", "--steps", "2"]
    crops.main(command)
    first = capsys.readouterr().out
    runs = {path.name: path for path in (tmp_path / "out" / "runs").iterdir()}
    assert len([name for name in runs if name.endswith(".json")]) == len(crops.ROWS)
    alone = json.loads(runs["labelled-alone-2-0-2-photos.json"].read_text())
    assert alone.keys() == {"error_percent", "cpu_s"}
    full = json.loads(runs["+regularisers-2-0-2-photos.json"].read_text())
    assert full.keys() == {"error_percent", "fid", "variety", "class_percent", "cpu_s"}
    assert all(math.isfinite(value) for value in full.values())
    assert Image.open(runs["+regularisers-2-0-2-photos.png"]).size == (8 * 32, 2 * 32)
    monkeypatch.setattr(crops, "run", lambda *_: pytest.fail("trained again"))
    crops.main(command)
    assert capsys.readouterr().out == first
    Image.new("RGB", (140, 70)).save(tmp_path / "photos" / "a.png")
    with pytest.raises(InputError, match="holds runs on other photographs"):
        crops.main(command)
