from __future__ import annotations

import pytest
import yaml

from synthaug.errors import InputError

VIDEOS = ("one", "two")


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("small_objects")


@pytest.fixture
def recipe(write_videos, tmp_path):
    write_videos(tmp_path, VIDEOS)
    stages = {
        "data": {"kind": "davis", "root": str(tmp_path), "videos": list(VIDEOS)},
        "compare": {
            "segmenter": "osvos",
            "parent": "others",
            "parent_steps": 2,
            "steps": 2,
            "batch_size": 2,
            "side_px": 64,
            "jobs": 1,
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(stages))
    return tmp_path / "recipe.yaml"


def test_smoke(script, recipe, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--recipe", str(recipe), "--out", str(out), "--seeds", "2", "--cases", "one:1"]
    script.main(command)
    text = (out / "table.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows] == ["J&F", *script.ROWS]
    assert all("(" in row[1] for row in rows[2:])
    made = {path: path.stat().st_mtime_ns for path in out.glob("compare/**/runs/**/*.json")}
    assert len(made) == 2 * len(script.ROWS)
    capsys.readouterr()
    script.main(command)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert (out / "table.md").read_text() == text
    flags = [
        path.read_text().count('"enlarge": true')
        for path in sorted(out.glob("sources/*/one-1/compose/manifest.json"))
    ]
    assert flags[0] > 0
    assert flags[1] == 0


def test_the_labelled_frame_is_no_test(script, recipe):
    video = script.read_video(recipe.parent, "one")
    unit = script.relabelled(video, 1)
    assert unit.training[0].id == video.test[0].id
    others = [*video.training, *list(video.test)[1:]]
    assert [sample.id for sample in unit.test] == [sample.id for sample in others]


@pytest.mark.parametrize("case", ["three:1", "one", "one:x", "one:99"])
def test_cases_that_are_none_get_one_line(script, recipe, tmp_path, case):
    with pytest.raises(InputError, match=r"no case|has no frame 99"):
        script.main(["--recipe", str(recipe), "--out", str(tmp_path / "out"), "--cases", case])
