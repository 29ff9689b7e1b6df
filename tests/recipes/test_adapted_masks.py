from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from synthaug.config import FilterConfig
from synthaug.demo import coins
from synthaug.fitting import training_pairs
from synthaug.gans import stylegan2


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("adapted_masks")


def test_ten_pairs_and_a_test_of_the_other_half_none_over_another(script):
    right, left = coins()
    unit = script.coins_unit(0)
    assert len(unit.training) == 10
    assert len(unit.test) == 7
    for half, found in ((right, unit.training), (left, unit.test)):
        for tile in found:
            top, x = map(int, tile.id.split("-"))
            assert tile.image.shape == (64, 64, 3)
            assert np.array_equal(tile.mask, half.mask[top : top + 64, x : x + 64])
            assert np.array_equal(tile.image, half.image[top : top + 64, x : x + 64])
            assert tile.mask[16:48, 16:48].mean() > 0.5
    covered = np.zeros(left.size, int)
    for tile in unit.test:
        top, x = map(int, tile.id.split("-"))
        covered[top : top + 64, x : x + 64] += 1
    assert covered.max() == 1
    other = script.coins_unit(1)
    assert other.name != unit.name
    assert [tile.id for tile in other.training] != [tile.id for tile in unit.training]
    assert [tile.id for tile in other.test] == [tile.id for tile in unit.test]


def test_a_comparison_is_made_once(script, tmp_path, monkeypatch, capsys):
    tiny = {"base": 256, "largest": 8, "latent": 8, "n_mlp": 2}
    monkeypatch.setitem(stylegan2.PRESETS, "small", tiny)
    monkeypatch.setattr(training_pairs, "CROPS", 20)
    monkeypatch.setattr(script, "SAMPLES", 12)
    monkeypatch.setattr(script, "FILTER", FilterConfig(rule=None))
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "noise.png")
    command = ["--data", str(photos), "--out", str(out), "--source-steps", "2", "--steps", "3"]
    command += ["--seeds", "2", "--train-steps", "2", "--batch-size", "2"]
    command += ["--adaptation", "blocks", "--plugins", "medgan-object"]
    script.main(command)
    first, work = capsys.readouterr().out, out / "medgan-object"
    rows = [line.split(" | ") for line in first.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[1:]] == list(script.ARMS)
    assert rows[2][3].startswith("baseline")
    assert "coins-0 12 of 12" in first
    assert Image.open(work / "samples.png").size == (2 * (10 * 70 + 6), 2 * (3 * 70 + 6))
    assert (work / "comparison" / "index.html").is_file()
    manifest = (work / "units" / "coins-0" / "generator" / "manifest.json").read_text()
    assert '"mask_from": 2' in manifest
    assert '"grey": true' in manifest
    assert '"adaptation": "blocks"' in manifest
    assert '"medgan-object"' in manifest
    made = {path: path.stat().st_mtime_ns for path in work.glob("comparison/runs/**/*.json")}
    assert len(made) == 2 * len(script.ARMS)
    script.main(command)
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in made} == made

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "compare", stop)
    for said, change in (("there", ""), ("...", "\n")):
        source = out / "source-2" / "manifest.json"
        source.write_text(source.read_text() + change)
        with pytest.raises(KeyboardInterrupt):
            script.main(command)
        assert re.search(rf"coins-0: generator .*{re.escape(said)}$", capsys.readouterr().err, re.M)
