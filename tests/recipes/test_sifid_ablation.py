from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from synthaug import files
from synthaug.bank import Bank, write_bank
from synthaug.errors import InputError
from synthaug.formats.davis import read_video
from synthaug.sample import Sample
from synthaug.seeding import numpy_stream

VIDEOS = ("one", "two")


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("sifid_ablation")


@pytest.fixture(scope="module")
def recipe(write_videos, tmp_path_factory):
    """Write two tiny videos and a recipe for them; return the recipe's path."""
    root = tmp_path_factory.mktemp("davis")
    write_videos(root, VIDEOS)
    stages = {
        "data": {"kind": "davis", "root": str(root), "videos": list(VIDEOS)},
        "filter": {"min_area_ratio": 0.0, "max_area_ratio": 1e6, "max_stray": 1.0},
        "compare": {"segmenter": "matching", "steps": 2, "batch_size": 2, "side_px": 64},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(stages))
    return root / "recipe.yaml"


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """Write the banks that a run of the recipe would."""
    path = tmp_path_factory.mktemp("runs")
    for video in VIDEOS:
        unit = read_video(recipe.parent, video)
        samples = []
        for number in range(8):
            stream = numpy_stream(number, "sample")
            image = unit.training[0].image.astype(float) + stream.normal(0, 9 * number, (48, 64, 3))
            image = np.clip(np.roll(image, 5 * number, 1), 0, 255).astype(np.uint8)
            mask = np.roll(unit.training[0].mask, 5 * number, 1)
            samples.append((Sample(image, mask), {"latent_seed": number}))
        write_bank(path / "units" / video / "bank", samples, unit.training, unit.classes, {})
    return path


def test_smoke(script, recipe, runs, tmp_path):
    named = {"runs": runs, "recipe": recipe, "out": tmp_path, "seeds": 2, "jobs": 1}
    lists = ["--videos", *VIDEOS, "--variants", "no-filter", "sifid-1-15", "joint-50"]

    def run():
        script.main([*(f"--{name}={value}" for name, value in named.items()), *lists])
        return (tmp_path / "table.md").read_text()

    text = run()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:5]] == [
        "| standard",
        "| no-filter",
        "| sifid-1-15",
        "| joint-50",
    ]
    assert rows[2][1] == "100 %"
    assert "[" in rows[4][5]
    assert "2 videos, seeds 0, 1; tested on 4 frames" in text
    kept = [
        {record["id"] for record in Bank(tmp_path / "banks" / "one" / name).records}
        for name in ("joint-50", "sifid-1-15", "no-filter")
    ]
    assert 0 < len(kept[0]) < len(kept[1]) < len(kept[2]) == 8
    whole = Bank(runs / "units" / "one" / "bank", include_dropped=True)
    assert not any("scores" in record for record in whole.records)

    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "compare").rglob("runs/*/*/*.json")}
    arms = {path.parent.name for path in made if "joint-50" in path.parts}
    assert arms == {"standard+synthetic"}
    assert len(made) == 4 * 2 * 2
    assert run() == text
    assert made == {p: p.stat().st_mtime_ns for p in made}


def test_parents_that_have_seen_the_video_are_not_taken(script, tmp_path):
    for half, videos in {"even": ["b"], "odd": ["a", "c"]}.items():
        content = {"done": True, "settings": {"videos": videos}}
        files.write_json(tmp_path / "parents" / f"{half}.json", content)
        files.write_text(tmp_path / "parents" / f"{half}.safetensors", half)
    assert script.parent_of(tmp_path, "a").name == "even.safetensors"
    assert script.parent_of(tmp_path, "b").name == "odd.safetensors"
    receipt = tmp_path / "parents" / "odd.json"
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "done": False}))
    with pytest.raises(InputError, match="no parent that has not seen b"):
        script.parent_of(tmp_path, "b")


def test_missing_bank_is_said_in_one_line(script, recipe, tmp_path):
    named = {"runs": tmp_path, "recipe": recipe, "out": tmp_path / "out"}
    with pytest.raises(InputError, match=r"no bank at .*two.bank: run the recipe"):
        script.main([*(f"--{name}={value}" for name, value in named.items()), "--videos", "two"])
