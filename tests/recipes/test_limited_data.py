from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit, training_pairs
from synthaug.gans import stylegan2


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("limited_data")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (70, 140, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def test_tiles_are_whole_and_held_out_like_a_chess_board(script):
    picture = np.zeros((70, 100, 3), np.uint8)  # 2 x 3 tiles
    picture[:64, :96] = np.kron([[10, 20, 30], [40, 50, 60]], np.ones((32, 32)))[..., None]
    (training, _), (held_out, _) = script.tiles([picture])
    assert [round(float((t.mean() + 1) * 127.5)) for t in training] == [10, 30, 50]
    assert [round(float((t.mean() + 1) * 127.5)) for t in held_out] == [20, 40, 60]
    assert all((tile == tile.mean()).all() or tile.std() < 1e-6 for tile in training)


def test_pictures_without_tiles_are_refused(script):
    with pytest.raises(InputError, match="64 px"):
        script.tiles([np.zeros((40, 40, 3), np.uint8)])


def test_a_run_is_kept_and_not_repeated(script, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SAMPLES", 8)
    monkeypatch.setattr(script, "LOOKS", 2)
    out = tmp_path / "out"
    rows = ["both+atopk", "linear top-k", "both+atopk"]
    command = ["--out", str(out), "--photos", str(photos), "--rows", *rows]
    command += ["--seeds", "1", "--steps", "4", "--shares", "0.5"]
    script.main(command)
    first = capsys.readouterr().out
    assert "| 50% | both+atopk | 1 |" in first
    assert first.count("| 50% | both+atopk |") == 2  # the numbers, and the curve
    runs = {path.name: json.loads(path.read_text()) for path in (out / "runs").iterdir()}
    assert len(runs) == 2
    for run in runs.values():
        assert list(run["fids"]) == ["2", "4"]
        assert run["best"] == min(run["fids"].values())
        assert len(run["score_gaps"]) == 1
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("trained again"))
    script.main(command)
    assert capsys.readouterr().out == first
    Image.new("RGB", (140, 70)).save(photos / "noise.png")
    with pytest.raises(InputError, match=r"out.runs holds runs on other photographs.* --out"):
        script.main(command)


def test_a_transformer_is_measured_beside_it(script, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SAMPLES", 8)
    monkeypatch.setattr(script, "LOOKS", 1)
    out = tmp_path / "out"
    command = ["--out", str(out), "--photos", str(photos), "--rows", "both+atopk"]
    command += ["--seeds", "1", "--steps", "2", "--shares", "0.5"]
    script.main(command)
    table = (out / f"table-{photos.name}.md").read_text()
    capsys.readouterr()
    script.main([*command, "--gan", "transgan"])
    assert "| 50% | both+atopk | 1 |" in capsys.readouterr().out
    assert len(list((out / "runs").iterdir())) == 2
    assert (out / f"table-{photos.name}.md").read_text() == table
    assert (out / f"table-transgan-{photos.name}.md").read_text() != table


def test_a_trained_source_is_gone_on_from(script, photos, tmp_path, monkeypatch, capsys):
    for name, value in {"SAMPLES": 8, "LOOKS": 1}.items():
        monkeypatch.setattr(script, name, value)
    tiny = {"base": 256, "largest": 8, "latent": 8, "n_mlp": 2}
    monkeypatch.setitem(stylegan2.PRESETS, "small", tiny)
    monkeypatch.setattr(training_pairs, "CROPS", 8)
    source, common = tmp_path / "source", {"generator": "stylegan2", "accelerator": "cpu"}
    config = FitConfig(**common, max_size=32, iterations=1, batch_size=2, precision="32-true")
    fit(images=photos, out=source, config=config, echo=lambda line: None)
    begun = script.start("stylegan2", source)
    weights = load_file(next(source.glob("snapshot-*.safetensors")))
    assert torch.equal(begun.generator.state_dict()["style.1.weight"], weights["style.1.weight"])
    command = ["--out", str(tmp_path / "out"), "--photos", str(photos), "--source", str(source)]
    script.main([*command, "--rows", "baseline", "--seeds", "1", "--steps", "1", "--shares", "1"])
    table = (tmp_path / "out" / f"table-adapted-source-{photos.name}.md").read_text()
    assert "| 100% | baseline | 1 |" in table
    manifest = source / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(InputError, match="or from another source: choose another --out"):
        script.main([*command, "--rows", "baseline", "--seeds", "1", "--steps", "1"])
    with pytest.raises(InputError, match="a source goes with stylegan2, not with transgan"):
        script.main([*command, "--gan", "transgan"])


@pytest.mark.parametrize("row", ["baseline", "spatial", "ada"])
def test_rows_are_plugins(script, row):
    plugins = script.ROWS[row](100)
    assert len(plugins) == (row != "baseline")
    torch.nn.ModuleList(plugins)
