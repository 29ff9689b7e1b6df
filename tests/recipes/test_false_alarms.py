from __future__ import annotations

from collections import Counter

import pytest

from synthaug import files
from synthaug.formats.splits import Unit
from synthaug.sample import resized
from synthaug.seeding import numpy_stream


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("false_alarms")


def test_noise_costs_points(script, tmp_path):
    whole = script.coins_unit()
    training, test = (resized(s, 80, 56) for s in (whole.training[0], whole.test[0]))
    unit = Unit("coins", [training], [test], whole.classes, "images")
    settings = {"segmenter": "unet", "steps": 20, "batch_size": 4, "side_px": 80}
    entries = script.check_noise(tmp_path, unit, 2, **settings)
    assert list(entries) == ["standard+noise", "standard+masks of noise"]
    for entry in entries.values():  # two short trainings are too few for a verdict
        assert entry["gain"]["mIoU"]["mean"] < 0
        assert script.line(entry).startswith("-")
        assert entry["verdict"] != "helps"


def runs(count, shift=0.0, seeds=3):
    """Results as `compare` stores them; those of every other repetition's side are shifted."""
    drawn = numpy_stream(0, "runs").normal(0.8, 0.02, count)
    return [
        {
            "measures": {"mIoU": value + shift * (place // seeds % 2)},
            "per_class": {"0": value},
            "per_image": [],
            "seconds": {"train": 1.0},
            "peak_memory_gb": 1.0,
        }
        for place, value in enumerate(drawn)
    ]


def test_equal_arms_raise_few_alarms_and_unequal_ones_do(script):
    repetitions = 60
    equal = Counter(e["verdict"] for e in script.repeat(runs(6 * repetitions), 3))
    assert equal.total() == repetitions
    assert equal["no difference shown"] >= 0.9 * repetitions
    better = Counter(e["verdict"] for e in script.repeat(runs(6 * repetitions, shift=0.2), 3))
    assert better["helps"] >= 0.95 * repetitions


def test_equal_arms_are_trained_with_other_seeds(script, tmp_path, monkeypatch):
    asked = {}

    def compare(units, out, *, arms, seeds, **settings):
        asked.update(arms=arms, seeds=seeds, **settings)
        for seed, run in enumerate(runs(seeds)):
            files.write_json(out / "runs" / "coins" / arms[0] / f"{seed}.json", run)

    monkeypatch.setattr(script, "compare", compare)
    entries = script.check_equal(tmp_path, script.coins_unit(), 4, 2, steps=7)
    assert asked == {"arms": ["standard"], "seeds": 16, "steps": 7}
    gains = {entry["gain"]["mIoU"]["mean"] for entry in entries}
    assert len(gains) == 4
    assert 0 not in gains
