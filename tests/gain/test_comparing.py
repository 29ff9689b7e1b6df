from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synthaug import files
from synthaug.bank import mask_key
from synthaug.config import FitConfig
from synthaug.config.arms import ARMS, Arm
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.formats import folder
from synthaug.formats.folder import read_mask
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.keys import code_hashes
from synthaug.gain.runs import Settings
from synthaug.generation import generate
from synthaug.mixing.auto import MixChoice
from synthaug.report.comparison import write_comparison_page
from synthaug.sample import ClassMap, resized
from synthaug.segmenters import build_learner

MakeUnit = Callable[..., Unit]
MakeBank = Callable[..., Path]
TWICE = Arm("again", {"real": 1.0}, augment=True)


def tiny_network(num_classes: int) -> nn.Module:
    """Two small convolutions: it learns colours."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 3, padding=1)
    )


def learn(units: list[Unit], out: Path, **options: Any) -> dict[str, Any]:
    """Compare with the tiny network on one thread."""
    settings = {"segmenter": f"{__name__}:tiny_network", "steps": 60, "batch_size": 4, "lr": 0.02}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return compare(units, out, **{**settings, **options})
    finally:
        torch.set_num_threads(threads)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def runs(out: Path) -> dict[str, str]:
    """Every run file and its content."""
    return {str(p.relative_to(out / "runs")): p.read_text() for p in out.glob("runs/*/*/*.json")}


def frames_of(page: str) -> list[str]:
    """The pictures on a page that show where the arms differ."""
    return re.findall(r'src="data:([^"]*)"', page.partition("Where the arms differ")[2])


def progress_of(out: Path, unit: Unit, arms: list[str]) -> list[tuple[int, int]]:
    """Compare with three steps and one seed; return (steps done, of all) as told on the way."""
    seen: list[tuple[int, int]] = []
    compare(
        [unit],
        out,
        arms=arms,
        seeds=1,
        steps=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    return seen


def test_two_equal_arms_show_no_difference(tmp_path: Path, make_unit: MakeUnit) -> None:
    result = learn([make_unit()], tmp_path / "out", arms=["standard", TWICE], seeds=3)
    arm = result["arms"]["again"]
    assert arm["gain"]["J&F"] == {"mean": 0, "low": 0, "high": 0}
    assert arm["mean"] == result["arms"]["standard"]["mean"]
    assert arm["mean"]["J"] > 0.8
    assert arm["verdict"] == "no difference shown"
    assert result["complete"]


@pytest.mark.parametrize(
    "bad", [{"masks": "inverted"}, {"masks": "random"}, {"masks": "random", "picture": "noise"}]
)
def test_a_bad_bank_hurts(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, bad: dict[str, str]
) -> None:
    arm = Arm("standard+synthetic", {"real": 0.5, "synthetic": 0.5}, True, weight=3.0)
    result = learn(
        [make_unit()],
        tmp_path / "out",
        arms=[arm],
        seeds=3,
        sources={"toy": {"synthetic": make_bank(**bad)}},
    )
    found = result["arms"]["standard+synthetic"]
    assert found["gain"]["J&F"]["high"] < 0
    assert found["verdict"] == "hurts"
    assert result["contrasts"] == [
        {
            "arm": "standard+synthetic",
            "against": "standard",
            "gain": found["gain"]["J&F"],
            "verdict": "hurts",
            "among_all": "hurts",
        }
    ]


def test_a_good_bank_of_unseen_scenes_does_no_harm(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank
) -> None:
    result = learn(
        [make_unit()],
        tmp_path / "out",
        arms=["standard+synthetic"],
        seeds=3,
        sources={"toy": {"synthetic": make_bank()}},
    )
    assert result["arms"]["standard+synthetic"]["verdict"] != "hurts"


def test_the_folder_holds_what_the_report_needs(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    units, out = [make_unit("one", tests=20), make_unit("two", start=50)], tmp_path / "out"
    sources = {name: {"synthetic": make_bank(), "copy-paste": make_bank("p")} for name in ["one"]}
    sources["two"] = sources["one"]
    arms = ["none", "standard", "standard+copy-paste", "standard+copy-paste+synthetic"]
    lines: list[str] = []
    result = compare(
        units,
        out,
        arms=arms,
        seeds=[3, 5],
        sources=sources,
        steps=2,
        reproduce="synthaug compare",
        echo=lines.append,
    )
    manifest = read(out / "manifest.json")
    assert manifest["format"] == "synthaug-comparison-1"
    assert manifest["measures"] == ["J&F", "J", "F", "mIoU"]
    assert manifest["arms"] == [ARMS[name].as_dict() for name in arms]
    assert manifest["seeds"] == [3, 5]
    assert manifest["settings"]["steps"] == 2
    assert manifest["reproduce"] == "synthaug compare"
    assert [(u["name"], u["training"], u["test"]) for u in manifest["units"]] == [
        ("one", ["00000"], 20),
        ("two", ["00050"], 4),
    ]
    assert sorted(runs(out)) == sorted(
        f"{u}/{a}/{s}.json" for u in ("one", "two") for a in arms for s in (3, 5)
    )
    run = read(out / "runs" / "two" / "none" / "5.json")
    assert (run["unit"], run["arm"], run["seed"]) == ("two", "none", 5)
    assert run["measures"]["J&F"] == pytest.approx(np.mean([i["J&F"] for i in run["per_image"]]))
    assert run["measures"]["J&F"] == pytest.approx(
        (run["measures"]["J"] + run["measures"]["F"]) / 2
    )
    assert run["measures"]["mIoU"] == pytest.approx(np.mean(list(run["per_class"].values())))
    kept = sorted(p.stem for p in (out / "predictions" / "one" / "none" / "3").iterdir())
    assert kept == ["00001", "00004", "00006", "00009", "00012", "00015", "00017", "00020"]
    assert not (out / "predictions" / "one" / "none" / "5").exists()
    assert {p.stem for p in (out / "predictions" / "one" / "_test").iterdir()} == set(kept)
    assert len(list((out / "samples" / "two" / "copy-paste").glob("*.jpg"))) == 4
    table = (out / "runs.csv").read_text().splitlines()
    assert table[0] == "unit,arm,seed,J&F,J,F,mIoU,seconds"
    assert len(table) == 1 + 16
    row = next(line.split(",") for line in table if line.startswith("two,none,5,"))
    assert [float(cell) for cell in row[3:7]] == pytest.approx(
        [run["measures"][name] for name in manifest["measures"]], abs=1e-6
    )
    predicted = read_mask(out / "predictions" / "one" / "none" / "3" / "00001.png")
    assert set(np.unique(predicted).tolist()) <= {0, 1}
    assert result == read(out / "comparison.json")
    assert result["complete"]
    assert list(result["arms"]) == arms
    assert list(result["units"]) == ["one", "two"]
    assert [(c["arm"], c["against"]) for c in result["contrasts"]] == [
        ("standard+copy-paste+synthetic", "standard+copy-paste"),
        ("standard+copy-paste", "standard"),
    ]
    lines = [line for line in lines if "warning" not in line]
    assert len(lines) == 16
    assert lines[0].startswith("[1/16] one, none, seed 3: J&F ")
    assert "left" in lines[0]
    page = write_comparison_page(out).read_text()
    assert "standard+copy-paste+synthetic" in page


def test_arms_of_a_seed_share_the_first_weights(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    compare([make_unit()], tmp_path / "out", arms=["none", "standard"], seeds=2, steps=1)
    built = quick[1:]  # the first is built to find out whether it can be
    assert built[0] == built[1]
    assert built[2] == built[3]
    assert built[0] != built[2]


def test_a_second_call_makes_nothing_again_and_adds(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    units, out = [make_unit()], tmp_path / "out"
    lines: list[str] = []
    options: dict[str, Any] = {"steps": 2, "echo": lines.append}
    first = compare(units, out, arms=["none"], seeds=2, **options)
    before = runs(out)
    assert compare(units, out, arms=["none"], seeds=2, **options) == first
    assert runs(out) == before
    assert lines[-1] == "4 of 4 runs are there already"
    more = compare(
        units,
        out,
        arms=["synthetic"],
        seeds=3,
        sources=lambda unit: {"synthetic": make_bank()},
        **options,
    )
    assert before.items() <= runs(out).items()
    assert set(runs(out)) - set(before) == {
        "toy/standard/2.json",
        *(f"toy/synthetic/{seed}.json" for seed in range(3)),
    }
    assert {arm: entry["runs"] for arm, entry in more["arms"].items()} == {
        "standard": 3,
        "synthetic": 3,
    }
    again = compare(units, out, arms=["synthetic", "none"], seeds=2, **options)
    assert len(runs(out)) == 8  # the bank is remembered, and nothing made again
    assert again["arms"]["none"]["mean"] == first["arms"]["none"]["mean"]
    assert [entry["runs"] for entry in again["arms"].values()] == [2, 2, 2]


def test_the_commands_of_all_calls_whose_runs_count_are_kept(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    def commands(reproduce: str, *, start: int = 0, **options: Any) -> str:
        given: dict[str, Any] = {"arms": ["none"], "seeds": 1, "steps": 2, **options}
        compare([make_unit(start=start)], tmp_path, reproduce=reproduce, **given)
        return str(read(tmp_path / "manifest.json")["reproduce"])

    assert commands("a") == "a"
    assert commands("b", arms=["wide"]) == "a\nb"
    assert commands("a") == "b\na"  # the last is the one to go on with
    assert "<pre>b\na</pre>" in write_comparison_page(tmp_path).read_text()
    assert commands("c", start=9) == "c"  # other data
    assert commands("d", start=9, steps=3) == "d"


def test_arms_of_several_calls_are_compared_on_the_runs_that_they_share(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units, out = [make_unit()], tmp_path / "out"
    first = compare(units, out, arms=["none"], seeds=1, steps=2)
    assert (first["complete"], first["missing"]) == (True, {})
    part = compare(units, out, arms=["standard"], seeds=3, steps=2)
    assert (part["complete"], part["missing"]) == (False, {"none": 2})
    assert part["arms"] == first["arms"]
    assert (
        "1 of 1 video, 1 of 3 seeds counted so far. Not all runs are done: counted are those that "
        "all arms share, missing none 2."
    ) in write_comparison_page(out).read_text()
    whole = compare(units, out, arms=["none"], seeds=3, steps=2)
    assert (whole["complete"], whole["missing"]) == (True, {})
    assert [arm["runs"] for arm in whole["arms"].values()] == [3, 3]
    apart = compare([make_unit(start=9)], out, arms=["none"], seeds=2, steps=2)
    assert apart["complete"]  # seeds that only other data was run with do not count
    assert read(out / "manifest.json")["seeds"] == [0, 1]


def test_an_earlier_arm_of_fewer_seeds_does_not_shrink_a_later_call(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units, out, lines = [make_unit()], tmp_path / "out", []
    first = compare(units, out, arms=["none"], seeds=3, steps=2)
    tried = compare(units, out, arms=[TWICE], seeds=1, steps=2)
    assert [arm["runs"] for arm in tried["arms"].values()] == [1, 1, 1]
    again = compare(units, out, arms=["none"], seeds=3, steps=2, echo=lines.append)
    assert again == first
    assert lines[0] == "again: not run on all that is asked for now, left out; give it, too"
    assert len(runs(out)) == 7
    built = len(quick)
    assert compare(units, out, arms=["none", TWICE], seeds=3, steps=2)["complete"]
    assert len(quick) == built + 1 + 2  # one to try, and the two that were missing


def test_units_that_a_later_call_leaves_out_are_told(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units = [make_unit(name, start=50 * place) for place, name in enumerate("abc")]
    out, lines = tmp_path / "out", list[str]()
    first = compare(units, out, arms=["none"], seeds=2, steps=2)
    compare(units[:1], out, arms=["none"], seeds=2, steps=2, echo=lines.append)
    left = "not in this call, left out of the result; its runs are kept"
    assert lines[:2] == [f"b: {left}", f"c: {left}"]
    assert compare(units, out, arms=["none"], seeds=2, steps=2) == first


def test_other_data_of_the_same_name_and_the_same_of_another_are_told(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"arms": ["none"], "seeds": 1, "steps": 2, "echo": lines.append}
    compare([make_unit()], tmp_path, **options)
    compare([make_unit(start=9)], tmp_path, **options)
    assert "toy: pictures or masks are others than before, all is trained again" in lines
    compare([replace(make_unit(start=9), name="data")], tmp_path, **options)
    assert "this data was named toy: its trainings count with data.name=toy alone" in lines


def test_an_interrupted_comparison_is_balanced_and_goes_on(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units, out = [make_unit("one"), make_unit("two", start=50)], tmp_path / "out"
    options: dict[str, Any] = {"arms": ["standard", "none"], "seeds": 2, "steps": 2}
    whole = compare(units, tmp_path / "whole", **options)

    def interrupt(line: str) -> None:
        if line.startswith("[7/8]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(units, out, echo=interrupt, **options)
    part = read(out / "comparison.json")
    assert not part["complete"]
    assert [part["arms"][arm]["runs"] for arm in ("standard", "none")] == [3, 3]
    assert len(runs(out)) == 7
    assert "Not all runs are done" in write_comparison_page(out).read_text()
    done = compare(units, out, **options)
    for result in (done, whole):
        for arm in result["arms"].values():
            del arm["seconds"], arm["peak_memory_gb"]
    assert done == whole


def test_what_decides_a_run_is_in_its_key(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    units, out, bank = [make_unit()], tmp_path / "out", make_bank()
    lines: list[str] = []
    options: dict[str, Any] = {
        "arms": ["standard", "synthetic"],
        "seeds": 1,
        "steps": 2,
        "echo": lines.append,
        "sources": {"toy": {"synthetic": bank}},
    }

    def made(units: list[Unit] = units, **changes: Any) -> int:
        before = len(quick)
        compare(units, out, **{**options, **changes})
        return len(quick) - before - 1

    assert made() == 2
    assert made() == 0
    shutil.rmtree(bank)
    make_bank(start=900)
    assert made() == 1  # only the arm that shows the bank
    assert made(steps=3) == 2
    assert any("steps 2 -> 3" in line for line in lines)
    assert made([make_unit(start=7)], steps=3) == 2
    own = Arm("synthetic", {"real": 0.75, "synthetic": 0.25}, augment=False)
    assert made([make_unit(start=7)], steps=3, arms=["standard", own]) == 1
    assert made([make_unit(start=7)], steps=3, arms=["standard", own], seeds=[1]) == 2
    assert read(out / "manifest.json")["seeds"] == [0, 1]


def test_an_arm_that_differs_in_case_from_an_earlier_one_is_refused(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units, out = [make_unit()], tmp_path / "out"
    compare(units, out, arms=[TWICE], seeds=1, steps=1)
    with pytest.raises(InputError, match="'again' and 'AGAIN' differ in case alone"):
        compare(units, out, arms=[replace(TWICE, name="AGAIN")], seeds=1, steps=1)


def test_a_new_arm_without_a_run_hides_nothing(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units, out, lines = [make_unit()], tmp_path / "out", []
    first = compare(units, out, arms=["none"], seeds=2, steps=2)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(units, out, arms=[TWICE], seeds=2, steps=2, progress=interrupt)
    part = read(out / "comparison.json")
    assert part["arms"] == first["arms"]
    assert (part["complete"], part["missing"]) == (False, {"again": 2})
    assert "4 of 6 runs" in write_comparison_page(out).read_text()
    assert compare(units, out, arms=["none"], seeds=2, steps=2, echo=lines.append)["complete"]
    assert lines[0] == "4 of 4 runs are there already"


def test_the_page_leaves_out_runs_of_earlier_settings(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    units, out = [make_unit()], tmp_path / "out"
    compare(units, out, arms=["none"], seeds=2, steps=2)
    assert "Where the arms differ" in write_comparison_page(out).read_text()

    def interrupt(line: str) -> None:
        if line.startswith("[1/4]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(units, out, arms=["none"], seeds=2, steps=5, echo=interrupt)
    page = write_comparison_page(out).read_text()
    assert "1 of 4 runs" in page
    assert "Where the arms differ" not in page


def test_killed_with_new_settings_a_folder_shows_the_old_ones(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    units, out = [make_unit()], tmp_path / "out"
    compare(units, out, arms=["none"], seeds=2, steps=2)
    before = {name: read(out / name) for name in ("manifest.json", "comparison.json")}

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("synthaug.gain.comparison_folder.ComparisonFolder.write_summary", killed)
        with pytest.raises(KeyboardInterrupt):
            compare(units, out, arms=["none"], seeds=2, steps=5)
    assert {name: read(out / name) for name in before} == before
    assert "Where the arms differ" not in write_comparison_page(out).read_text()  # not these runs
    assert compare(units, out, arms=["none"], seeds=2, steps=5)["complete"]
    assert read(out / "manifest.json")["settings"]["steps"] == 5


def test_frames_stay_those_of_the_runs_that_count(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    units, out = [make_unit()], tmp_path / "out"
    compare(units, out, arms=["none"], seeds=1, steps=2)
    page = write_comparison_page(out).read_text()
    before, write = runs(out), files.write_bytes
    written: list[Path] = []

    def stopped(path: Path, data: bytes) -> None:
        if path.match("predictions/toy/standard/0/*.png"):
            written.append(path)
            raise KeyboardInterrupt
        write(path, data)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(units, out, arms=["none"], seeds=1, steps=5, progress=interrupt)
    assert "Where the arms differ" not in write_comparison_page(out).read_text()
    lines: list[str] = []
    compare(units, out, arms=["none"], seeds=1, steps=2, echo=lines.append)
    assert lines == [
        "back to settings of earlier runs (steps 5 -> 2): those alone count",
        "2 of 2 runs are there already",
    ]
    assert frames_of(write_comparison_page(out).read_text()) == frames_of(page) != []
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", stopped)  # while the predictions are made anew
        with pytest.raises(KeyboardInterrupt):
            compare(units, out, arms=["none"], seeds=1, steps=5)
    assert (len(written), runs(out)) == (1, before)
    compare(units, out, arms=["none"], seeds=1, steps=2)
    assert frames_of(write_comparison_page(out).read_text()) == []
    compare(units, out, arms=["none"], seeds=1, steps=5)
    assert "Where the arms differ" in write_comparison_page(out).read_text()


def test_a_folder_of_another_process_is_left_as_it_is(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    with files.claimed(tmp_path / "out"):
        with pytest.raises(InputError, match="another process works on"):
            compare([make_unit()], tmp_path / "out", arms=["none"], seeds=1, steps=1)
        assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(InputError, match="unknown arm"):
        compare([make_unit()], tmp_path / "out", arms=["nonne"], seeds=1, steps=1)
    assert not (tmp_path / "out").exists()


def test_pictures_of_an_earlier_bank_go(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    for start in (500, 900):
        bank = make_bank(f"bank{start}", start=start)
        sources = {"toy": {"synthetic": bank}}
        compare(
            [make_unit()], tmp_path / "out", arms=["synthetic"], seeds=1, steps=1, sources=sources
        )
        kept = {
            path.read_bytes() for path in (tmp_path / "out/samples/toy/synthetic").glob("*.png")
        }
        assert len(kept) == 4
        assert kept <= {path.read_bytes() for path in (bank / "masks").iterdir()}


def test_training_images_among_the_test_images_are_told(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    lines: list[str] = []
    unit = make_unit()
    both = replace(unit, test=[*unit.test, unit.training[0]])
    compare([both], tmp_path / "out", arms=["none"], seeds=1, steps=1, echo=lines.append)
    assert lines[0].startswith("warning: 1 of the 5 test images of toy are training images, too")
    assert "00000" in lines[0]
    compare([unit], tmp_path / "apart", arms=["none"], seeds=1, steps=1, echo=lines.append)
    assert sum("warning" in line for line in lines) == 1


def test_classes_lost_at_the_working_size_are_told(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    unit, lines = make_unit(), list[str]()
    mask = unit.training[0].mask.copy()
    mask[2, 2] = 7
    unit = replace(
        unit, training=[replace(unit.training[0], mask=mask)], classes=ClassMap((0, 1, 7))
    )
    options: dict[str, Any] = {"arms": ["none"], "seeds": 1, "steps": 1, "echo": lines.append}
    compare([unit], tmp_path / "small", side_px=32, **options)
    assert lines[0] == (
        "warning: at 32x32 px, at which networks learn, no pixel of class_7 is left in toy: raise "
        "--side, or crop the images"
    )
    compare([unit], tmp_path / "whole", **options)
    assert sum("warning" in line for line in lines) == 1


def test_labels_that_no_arm_trains_on_are_told(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    bank, out = make_bank(), tmp_path / "out"  # it has learned from scene 0
    options: dict[str, Any] = {"arms": ["synthetic", "auto"], "seeds": 1, "steps": 1}
    options["sources"] = {"toy": {"synthetic": bank}}
    told = f"{bank} has learned from 1 labelled picture(s) that no arm of toy trains on: its gain"
    lines: list[str] = []
    compare([make_unit(start=9)], out, echo=lines.append, **options)
    assert [line for line in lines if "warning" in line] == [
        f"warning: {told} may be that of more labels"
    ]
    assert told in write_comparison_page(out).read_text()
    compare([make_unit(start=9)], out, arms=["none"], seeds=1, steps=1)
    assert told in write_comparison_page(out).read_text()  # the earlier arm is still shown
    made_later = options | {"sources": lambda unit: {"synthetic": bank}}
    for _ in range(2):  # the second call trains nothing
        compare([make_unit(start=9)], tmp_path / "later", **made_later)
        assert told in write_comparison_page(tmp_path / "later").read_text()
    learned = make_unit()
    for name, picture in (
        ("renamed", replace(learned.training[0], id="other")),
        ("resized", resized(learned.training[0], 96, 128)),
    ):
        lines.clear()
        unit = replace(learned, training=[picture])
        compare([unit], tmp_path / name, echo=lines.append, **options)
        assert not any("warning" in line for line in lines)
        assert 'class="note caution"' not in write_comparison_page(tmp_path / name).read_text()
    unlabelled = read_mask(bank / "pairs/masks/00000.png") * 0 + 255
    files.write_bytes(bank / "pairs/masks/00000.png", folder.mask_png(unlabelled))
    compare([make_unit(start=9)], tmp_path / "unlabelled", echo=lines.append, **options)
    assert not any("warning" in line for line in lines)


def test_all_files_of_a_users_segmenter_count(
    tmp_path: Path, make_unit: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "split_layers.py").write_text("KERNEL = 1\n")
    (tmp_path / "split_net.py").write_text(
        "from torch import nn\n\nimport split_layers\n\n\n"
        "def net(num_classes):\n"
        "    return nn.Conv2d(3, num_classes, split_layers.KERNEL, padding='same')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    settings = Settings("split_net:net")
    found = []
    for kernel in (1, 5):
        (tmp_path / "split_layers.py").write_text(f"KERNEL = {kernel}\n")
        build_learner("split_net:net", 2)
        found.append(code_hashes(settings))
        (tmp_path / "split_layers.py").write_text("KERNEL = 7\n")  # which is not what runs
        with pytest.raises(InputError, match=r"module split_layers .* has changed since"):
            code_hashes(settings)
        monkeypatch.delitem(sys.modules, "split_net")
        monkeypatch.delitem(sys.modules, "split_layers")
    assert found[0] != found[1]
    assert list(found[0]["modules_sha256"]) == ["split_layers"]


def test_weights_that_a_users_network_brings_along_count(
    tmp_path: Path, make_unit: MakeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that it draws do not, were it of the time."""
    (tmp_path / "brought_net.py").write_text(
        "import time\n\nimport torch\nfrom torch import nn\n\n\n"
        "def net(num_classes):\n"
        "    first, last = nn.Conv2d(3, 3, 1), nn.LazyConv2d(num_classes, 1)\n"
        "    first.weight.data = torch.load('brought.pt')\n"
        "    first.bias.data.fill_(time.perf_counter_ns() % 97 / 970)\n"
        "    return nn.Sequential(first, last)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []

    def made(*units: Unit) -> int:
        lines.clear()
        options = {"arms": ["none"], "baseline": "none", "seeds": 1, "steps": 1}
        learn([*units], tmp_path / "out", segmenter="brought_net:net", echo=lines.append, **options)
        return sum(line.startswith("[") for line in lines)

    torch.save(torch.ones(3, 3, 1, 1), "brought.pt")
    unit, ids = make_unit(), ClassMap((0, 1, 2))
    assert made(unit) == 1
    assert made(unit) == 0
    assert made(replace(unit, name="more", classes=ids), unit) == 1
    torch.save(torch.ones(3, 3, 1, 1) / 2, "brought.pt")
    assert made(unit) == 1


@pytest.mark.parametrize("init", [True, False])
def test_the_whole_package_of_a_users_segmenter_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: bool
) -> None:
    """Also with namespace packages, and what only a function imports, or a number comes from."""
    written = {
        "wide/models/net.py": "from wide.layers import block\n\n\n"
        "def net(num_classes):\n"
        "    from ..layers.late import KERNEL\n\n"
        "    return block.layer(num_classes, KERNEL)\n",
        "wide/layers/block.py": "from torch import nn\n\nfrom wide_sizes import INPUTS\n\n\n"
        "def layer(n, kernel):\n    return nn.Conv2d(INPUTS, n, kernel, padding='same')\n",
        "wide/layers/late.py": "KERNEL = 1\n",
        "wide/layers/other.py": "KERNEL = 3\n",
        "wide_sizes.py": "import site_made\n\nINPUTS = 3\n",
        "venv/site-packages/site_made.py": "",
    }
    if init:
        written |= {f"wide/{folder}__init__.py": "" for folder in ("", "models/", "layers/")}
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "venv" / "site-packages")
    for name in [name for name in sys.modules if name.startswith(("wide", "site_made"))]:
        del sys.modules[name]  # of the other case
    build_learner("wide.models.net:net", 2)
    found = code_hashes(Settings("wide.models.net:net"))
    own = {"wide.layers.block", "wide.layers.late", "wide_sizes"}
    assert own <= found["modules_sha256"].keys()
    assert found["modules_sha256"].keys() <= own | {"wide.layers"}


def test_a_network_of_no_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = ModuleType("cell")
    monkeypatch.setitem(sys.modules, "cell", cell)
    with pytest.raises(InputError, match=r"cell:net lies in no file, .*put it into a module"):
        code_hashes(Settings("cell:net"))


def test_earlier_arms_on_other_data_are_left_out_and_named(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"seeds": 1, "steps": 1, "echo": lines.append}
    compare([make_unit()], tmp_path / "out", arms=["none", "standard"], **options)
    result = compare([make_unit(start=9)], tmp_path / "out", arms=["standard"], **options)
    assert list(result["arms"]) == ["standard"]
    assert any(line.startswith("none: earlier runs") for line in lines)


def test_images_are_measured_by_miou(tmp_path: Path, make_unit: MakeUnit, quick: list[int]) -> None:
    out = tmp_path / "out"
    result = compare([make_unit("set", "images", tests=20)], out, arms=["none"], seeds=1, steps=1)
    assert result["measure"] == "mIoU"
    run = read(out / "runs" / "set" / "none" / "0.json")
    assert list(run["measures"]) == ["mIoU"]
    assert [set(image) for image in run["per_image"]] == [{"id", "mIoU"}] * 20
    assert result["arms"]["none"]["per_class"] == pytest.approx(run["per_class"])
    assert result["arms"]["none"]["gain"]["mIoU"]["low"] is None  # one run shows no spread


def test_progress_counts_the_steps_of_all_runs(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    seen = progress_of(tmp_path / "out", make_unit(), ["none", "standard"])
    assert [total for _, total in seen] == [6] * len(seen)
    assert [done for done, _ in seen] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_an_arm_of_twice_the_length_trains_twice_as_long(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    seen = progress_of(tmp_path / "out", make_unit(), ["standard", "standard-2x"])
    assert [done for done, _ in seen] == [1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9]
    made = len(quick)
    (arm,) = (
        arm
        for arm in json.loads((tmp_path / "out" / "manifest.json").read_text())["arms"]
        if arm["name"] == "standard-2x"
    )
    assert Arm(**arm).length == 2
    again = compare([make_unit()], tmp_path / "out", arms=["standard-2x"], seeds=1, steps=3)
    assert again["complete"]
    assert len(quick) == made + 1  # the check alone: both runs are there


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"arms": ["nothing"]}, "unknown arm 'nothing'"),
        ({"arms": "standard"}, "list of names"),
        ({"arms": [TWICE, TWICE]}, "twice"),
        ({"arms": [replace(TWICE, name="Standard")]}, "'standard' and 'Standard' differ in case"),
        ({"arms": ["none"], "baseline": "nothing"}, "unknown arm 'nothing'"),
        ({"arms": ["synthetic"]}, "needs a source of synthetic items for toy"),
        ({"seeds": 0}, "seed"),
        ({"seeds": [-1]}, "seed"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"side_px": 8}, "side_px is 8"),
        ({"lr": 0.0}, "lr is 0"),
        ({"segmenter": "repri", "lr": 0.1}, "repri has no use for lr: leave it out"),
        ({"segmenter": "matching", "arms": ["standard-2x"]}, "matching trains no network"),
        ({"segmenter": "matching", "encoder": "resnet18"}, "matching has no use for encoder"),
        ({"parent": "nowhere.safetensors"}, "no parent network at nowhere"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int], changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(InputError, match=part):
        compare([make_unit()], tmp_path / "out", **{"arms": ["standard"], **changes})
    assert not (tmp_path / "out").exists()


def test_wrong_units_are_refused(tmp_path: Path, make_unit: MakeUnit, quick: list[int]) -> None:
    none = Unit("toy", make_unit().training, [], ClassMap((0, 1)), "video")
    wrong: list[tuple[list[Unit], str]] = [
        ([], "nothing to compare"),
        ([make_unit(), make_unit()], "not unique"),
        ([make_unit("a/b")], "no folder name"),
        ([make_unit("a"), make_unit("b", "images")], "different measures"),
        ([none], "at least one labelled image"),
    ]
    for units, part in wrong:
        with pytest.raises(InputError, match=part):
            compare(units, tmp_path / "out", arms=["standard"])


def test_a_source_of_other_classes_is_refused(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    bank = make_bank()
    manifest = read(bank / "manifest.json")
    for ids, told in ([0, 1, 4], "shows class 4"), ([], "pictures without masks"):
        manifest["classes"] = {"ids": ids, "names": [f"class {i}" for i in ids]}
        (bank / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=told):
            compare(
                [make_unit()],
                tmp_path / "out",
                arms=["synthetic"],
                sources={"toy": {"synthetic": bank}},
            )


def test_a_source_whose_names_stand_for_other_ids_is_refused(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank
) -> None:
    unit, bank = make_unit(), make_bank()
    manifest = read(bank / "manifest.json")
    ids = manifest["classes"]["ids"]
    assert list(unit.classes.ids) == ids
    manifest["classes"]["names"] = ["Thing", "ground"]
    files.write_json(bank / "manifest.json", manifest)
    sources = {"toy": {"synthetic": bank}}
    named = replace(unit, classes=unit.classes.named({ids[0]: "ground", ids[1]: "thing"}))
    with pytest.raises(InputError, match=rf"calls class {ids[0]} Thing, which is class {ids[1]}"):
        compare([named], tmp_path / "out", arms=["synthetic"], sources=sources)
    assert not (tmp_path / "out").exists()


def test_a_source_that_has_seen_the_test_pictures_is_refused(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    bank, out = make_bank(), tmp_path / "out"  # it has learned from scene 0
    options: dict[str, Any] = {"arms": ["synthetic"], "seeds": 1, "steps": 1}
    options["sources"] = {"toy": {"synthetic": bank}}
    said = "bank has learned from 1 of the 4 pictures that toy is tested on"
    seen = make_unit()
    leaking = replace(make_unit(start=9), test=[seen.training[0], *seen.test[1:]])
    with pytest.raises(InputError, match=rf"{said} \(00000\): make it from the training"):
        compare([leaking], out, **options)
    assert not out.exists()
    pasted, other = tmp_path / "pasted", make_unit(start=9).training[0]  # objects of that bank
    folder.write_pair(tmp_path / "pair", "a", other)
    config = FitConfig(preset="compose", objects=str(bank))
    fit(tmp_path / "pair/images/a.png", tmp_path / "pair/masks/a.png", pasted, config=config)
    options["sources"] = {"toy": {"synthetic": generate(pasted, tmp_path / "drawn", 2).path}}
    with pytest.raises(InputError, match="drawn has learned from 1 of the 4 pictures"):
        compare([leaking], out, **options)
    options["sources"] = {"toy": {"synthetic": bank}}
    own = replace(seen, test=leaking.test)  # trains on the picture itself
    assert compare([own], out, **options)["complete"]


def test_a_source_that_has_seen_the_test_pictures_resized_is_refused(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int]
) -> None:
    unit, out = make_unit(start=9), tmp_path / "out"
    large = resized(unit.test[1], 96, 128)
    unit = replace(unit, test=[unit.test[0], large, *unit.test[2:]])
    for sample in (*make_unit().test[:2], large):
        folder.write_pair(tmp_path / "pairs", sample.id, sample)
    config = FitConfig(preset="compose", resize="crop")
    folders = {kind: tmp_path / "pairs" / kind for kind in ("images", "masks")}
    pasted = fit(out=tmp_path / "pasted", config=config, **folders)
    bank = generate(pasted, tmp_path / "drawn", 2).path
    for source in (pasted, bank):
        with pytest.raises(InputError, match=r"learned from 1 of the 4 pictures .*\(00011\)"):
            compare([unit], out, arms=["synthetic"], sources={"toy": {"synthetic": source}})
    assert not out.exists()


def test_a_source_that_was_given_the_test_masks_is_refused(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    unit, bank = make_unit(start=9), make_bank()
    manifest = read(bank / "manifest.json")
    keys = [mask_key(unit.test[1].mask), mask_key(np.zeros((48, 64), np.uint8))]
    files.write_json(bank / "manifest.json", {**manifest, "learned_from": keys})
    empty = replace(unit.test[2], mask=np.zeros((48, 64), np.uint8))  # such masks are all alike
    unit = replace(unit, test=[*unit.test[:2], empty])
    options: dict[str, Any] = {"arms": ["synthetic"], "sources": {"toy": {"synthetic": bank}}}
    with pytest.raises(InputError, match=r"learned from 1 of the 3 pictures .*\(00011\)"):
        compare([unit], tmp_path / "out", seeds=1, steps=1, **options)


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, quick: list[int]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "notes", make_bank(), tmp_path / "file"):
        with pytest.raises(InputError):
            compare([make_unit()], out, arms=["standard"])
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_auto_is_chosen_once_per_unit_and_kept(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lines = tmp_path / "out", []
    options: dict[str, Any] = {
        "arms": ["standard", "auto"],
        "sources": {"toy": {"synthetic": make_bank(masks="inverted")}},
        "steps": 40,
        "echo": lines.append,
    }
    result = learn([make_unit()], out, seeds=2, **options)
    choice = read(out / "runs" / "toy" / "auto" / "choice.json")
    assert choice["arm"]["name"] == "standard"  # the bank is harmful
    assert all(len(values) == 2 for values in choice["scores"].values())
    assert set(choice["scores"]) == {"standard", "standard+synthetic"}
    assert result["arms"]["auto"]["mean"] == result["arms"]["standard"]["mean"]
    assert sum("choosing" in line for line in lines) == 1
    assert any(choice["why"] in line for line in lines)
    manifest = read(out / "manifest.json")
    assert manifest["choices"]["auto"]["toy"]["why"] == choice["why"]
    assert (out / "predictions" / "toy" / "auto" / "0").is_dir()
    before = runs(out)
    lines.clear()
    learn([make_unit()], out, seeds=2, **options)
    assert runs(out) == before
    assert "4 of 4 runs are there already" in lines[0]
    options["sources"] = {"toy": {"synthetic": make_bank("other", start=900)}}
    new = MixChoice(ARMS["standard+synthetic"], {}, "another bank")
    monkeypatch.setattr("synthaug.gain.choosing.choose_mix", lambda *_, **__: new)
    result = learn([make_unit()], out, seeds=2, **options)
    again = read(out / "runs" / "toy" / "auto" / "choice.json")
    assert again["key"] != choice["key"]
    assert again["why"] == "another bank"
    assert result["arms"]["auto"]["mean"] != result["arms"]["standard"]["mean"]


def test_auto_without_any_source_is_standard_augmentation(
    tmp_path: Path, make_unit: MakeUnit
) -> None:
    result = learn([make_unit()], tmp_path / "out", arms=["auto"], seeds=2, steps=5)
    assert result["arms"]["auto"]["gain"]["J&F"] == {"mean": 0, "low": 0, "high": 0}


@pytest.mark.parametrize("content", ["[]", "null", "{"])
def test_a_damaged_run_is_named(
    tmp_path: Path, make_unit: MakeUnit, quick: list[int], content: str
) -> None:
    out = tmp_path / "out"
    compare([make_unit()], out, arms=["none", "standard"], seeds=[0])
    run = out / "runs" / "toy" / "none" / "0.json"
    run.write_text(content)
    with pytest.raises(InputError, match=r"damaged run .*none/0\.json.*delete this file alone"):
        compare([make_unit()], out, arms=["none", "standard"], seeds=[0])
    run.unlink()
    compare([make_unit()], out, arms=["none", "standard"], seeds=[0])
    assert run.is_file()
