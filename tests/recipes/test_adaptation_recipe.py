from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.fitting import training_pairs
from synthaug.fitting.fit_folder import FitFolder
from synthaug.gans import biggan, stylegan2


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("adaptation")


@pytest.mark.parametrize("target", ["motorcycle", "ihc", "coins"])
def test_ten_tiles_are_adapted_to_and_the_others_held_out(script, target):
    few, rest = script.tiles(target, 0)
    assert len(few) == 10
    assert len(rest) > 30
    assert all(tile.shape == (32, 32, 3) for tile in few + rest)
    assert not any(np.array_equal(one, other) for one in few for other in rest)
    assert not np.array_equal(script.tiles(target, 1)[0], few)


def test_copies_of_the_ten_tiles_are_farther_than_other_tiles(script):
    scores = script.anchors(*script.tiles("motorcycle", 0), script.Lite0Features())
    assert scores["the ten tiles"]["fid"] > 2 * scores["half of the others"]["fid"] > 0


def test_rows_are_measured_once(script, tmp_path, monkeypatch, capsys):
    tiny = {"base": 256, "largest": 8, "latent": 8, "n_mlp": 2}
    monkeypatch.setitem(stylegan2.PRESETS, "small", tiny)
    tiny = {"width": 8, "z_dim": 6, "embedding_dim": 5}
    monkeypatch.setitem(biggan.PRESETS, "small", tiny)
    monkeypatch.setattr(training_pairs, "CROPS", 20)
    monkeypatch.setattr(script, "SAMPLES", 16)
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "noise.png")
    command = ["--data", str(photos), "--out", str(out), "--targets", "ihc", "--seeds", "1"]
    command += ["--rows", "plain", "both", "--source-steps", "2", "--steps", "2"]
    script.main(command)
    first = capsys.readouterr().out
    rows = [line.split(" | ")[1] for line in first.splitlines()[2:]]
    assert rows == ["the ten tiles", "half of the others", "plain", "both"]
    runs = [json.loads(path.read_text()) for path in (out / "runs").glob("*.json")]
    assert len(runs) == 2
    for run in runs:
        assert run["fid"] > 0
        assert run["jump"] >= 1
        assert 1 <= run["reached"] <= 10
    assert Image.open(out / "strips" / "ihc-both-0-2-2.png").size == (9 * 64, 4 * 64)
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("measured again"))
    script.main(command)
    assert capsys.readouterr().out == first
    manifest = out / "source-2" / "manifest.json"
    kept = manifest.read_text()
    for said, other in (('"seed": 0', '"seed": 1'), ('"learned_from": [', '"learned_from": ["a",')):
        manifest.write_text(kept.replace(said, other))
        assert manifest.read_text() != kept
        with pytest.raises(InputError, match="source-2 was fitted to other pictures, or otherwise"):
            script.main(command)
    manifest.write_text(kept)
    adapted = out / "runs" / "ihc-both-0-2-2"
    config = FitFolder(adapted).read_config()
    assert script.same_fit(adapted, out / "targets" / "ihc-0", config)
    assert not script.same_fit(adapted, photos, config)
    monkeypatch.undo()
    monkeypatch.setitem(biggan.PRESETS, "small", tiny)
    monkeypatch.setattr(training_pairs, "CROPS", 20)
    monkeypatch.setattr(script, "SAMPLES", 16)
    script.main([*command, "--gan", "biggan", "--rows", "both"])
    assert capsys.readouterr().out != first
    assert (out / "biggan-source-2" / "manifest.json").is_file()
    assert (out / "table.md").read_text() == first


def test_ways_that_a_gan_lacks_are_refused_before_the_source_is_made(script, tmp_path):
    command = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--gan", "biggan"]
    with pytest.raises(InputError, match="adaptation path is about StyleGAN2's styles"):
        script.main([*command, "--rows", "plain", "path"])
    assert not (tmp_path / "out").exists()
