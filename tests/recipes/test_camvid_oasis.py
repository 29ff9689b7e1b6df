from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("camvid_oasis")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write a few tiny street scenes laid out as CamVid, with void pixels."""
    root = tmp_path_factory.mktemp("camvid")
    for part, count in (("train", 6), ("val", 5)):
        for number in range(count):
            stream = numpy_stream(number, part)
            mask = np.zeros((48, 64), np.uint8)
            mask[int(stream.integers(12, 30)) :] = 3
            left = int(stream.integers(40))
            mask[24:36, left : left + 20] = 8
            image = stream.integers(0, 60, (48, 64, 3)) + 20 * mask[..., None]
            mask[:2] = 11
            for folder, array, suffix in ((part, image, "jpg"), (f"{part}annot", mask, "png")):
                (root / folder).mkdir(exist_ok=True)
                picture = Image.fromarray(array.astype(np.uint8))
                picture.save(root / folder / f"{number}.{suffix}")
    return root


def options(data, out, *more):
    named = {"data": data, "out": out, "judge-steps": 2, "noises": 2, "accelerator": "cpu"}
    return [*(f"--{name}={value}" for name, value in named.items()), *more]


def test_smoke(script, data, tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.fitting.presets.oasis.AREA_PX", {"fast": 32 * 48})
    run = options(data, tmp_path, "--steps=3", "--rows", "no-noise", "full")

    script.main([*run, "--ablation-steps=2"])
    text = (tmp_path / "table.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["| full", "| no-noise", "| real pictures"]
    assert [row[1] for row in rows[1:3]] == ["3", "2"]
    assert rows[2][7:9] == ["1.00", "0.00"]  # every map is painted in one way
    assert "5 held-out masks, seed 0" in text
    sheet = Image.open(tmp_path / "samples.png")
    assert sheet.size == (4 * 70 + 6, 6 * 54 + 6)
    ablated = json.loads((tmp_path / "no-noise" / "manifest.json").read_text())
    assert ablated["gan"]["noise"] is False

    first = json.loads((tmp_path / "no-noise.json").read_text())
    (tmp_path / "no-noise.json").unlink()  # measured again, not fitted again
    for name, key in (("full.json", "settings"), ("no-noise/manifest.json", "config")):
        value = json.loads((tmp_path / name).read_text())
        fit = value[key]["fit"] if key == "settings" else value[key]
        del fit["names"]  # as if written before that option came
        (tmp_path / name).write_text(json.dumps(value))
    made = (tmp_path / "full.json").stat().st_mtime_ns
    monkeypatch.setattr(script, "train_judge", None)  # it is kept
    script.main([*run, "--ablation-steps=2"])
    again = json.loads((tmp_path / "no-noise" / "manifest.json").read_text())
    assert again["snapshot_sha256"] == ablated["snapshot_sha256"]
    measured = json.loads((tmp_path / "no-noise.json").read_text())["quality"]
    assert measured["miou"] == first["quality"]["miou"]
    assert (tmp_path / "full.json").stat().st_mtime_ns == made
    with pytest.raises(InputError, match=r"no-noise.json has other settings"):
        script.main([*run, "--ablation-steps=1"])


def test_a_judge_that_is_damaged_or_another_is_trained_again(script, tmp_path, capsys):
    mask = np.zeros((48, 64), np.uint8)
    mask[20:] = 1
    pairs = [Sample(np.zeros((48, 64, 3), np.uint8), mask)]
    classes = ClassMap((0, 1))

    def trained(steps):
        script.Judge(pairs, steps, tmp_path).learner(classes)
        return "steps on real pictures" in capsys.readouterr().out

    assert [trained(1), trained(1), trained(2), trained(2)] == [True, False, True, False]
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert [trained(2), trained(2)] == [True, False]


def test_ablations_are_compared_at_their_own_length(script):
    def chosen(*words):
        wanted = script.parse([*words])
        return {row: script.steps_of(wanted, row) for row in script.chosen_rows(wanted)}

    assert chosen() == dict.fromkeys(("full", "no-labelmix", "no-balance", "no-noise"), 3000)
    short = chosen("--ablation-steps=800")
    assert short.pop("full") == 3000
    assert short == dict.fromkeys(("full-short", "no-labelmix", "no-balance", "no-noise"), 800)


def test_seconds_of_a_paused_fit_add_up(script, tmp_path):
    lines = [{"step": 10, "seconds": 4.0}, {"step": 20, "seconds": 9.0}, {"step": 20, "quality": 1}]
    lines += [{"step": 30, "seconds": 2.0}, {"step": 40, "seconds": 5.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert script.fit_seconds(tmp_path) == 14


def test_missing_data_is_said_in_one_line(script, tmp_path):
    with pytest.raises(InputError, match="no folder of masks"):
        script.main(options(tmp_path / "nowhere", tmp_path / "out"))
