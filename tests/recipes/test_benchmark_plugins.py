from __future__ import annotations

import pytest

from synthaug.fitting import training_pairs
from synthaug.gans import stylegan2
from synthaug.plugins.named import PLUGINS


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("benchmark_plugins")


def test_every_plugin_that_fits_has_a_row_over_none(script, monkeypatch, capsys):
    tiny = {"base": 256, "largest": 8, "latent": 8, "n_mlp": 2}
    monkeypatch.setitem(stylegan2.PRESETS, "small", tiny)
    monkeypatch.setattr(training_pairs, "CROPS", 8)
    script.main(["--gans", "stylegan2", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in lines if "|" in line}
    assert rows.keys() >= {"none", *PLUGINS} - {"medgan-object"}
    assert "medgan-object" not in rows
    assert float(rows["none"][2].strip("| ")) == 1.0
    assert all(float(rows[name][2].strip("| ")) > 0 for name in rows.keys() & PLUGINS.keys())
    script.main(["--gans", script.MASKED, "--rounds", "1"])
    masked = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [line.split(" | ")[0] for line in masked[2:]] == ["| none", "| medgan-object"]
