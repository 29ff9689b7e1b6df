from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import run
from PIL import Image

from synthaug.bank import write_bank
from synthaug.cli.compare import print_result
from synthaug.formats import folder
from synthaug.generation import load_generator
from synthaug.running import recipes
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream

QUICK = ("--segmenter", "matching", "--seeds", 2, "--steps", 1, "--batch-size", 2, "--side", 48)


def make_sample(number):
    image = numpy_stream(number, "own").integers(0, 256, (48, 64, 3)).astype(np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 8 + number : 30 + number] = 1
    mask[34:44, 40:60] = 2
    image[mask > 0] //= 4
    return Sample(image, mask, f"{number:03d}")


@pytest.fixture
def own(tmp_path):
    """Write a user's folders of four images and masks, and a bank."""
    for number in range(4):
        folder.write_pair(tmp_path / "own", f"{number:03d}", make_sample(number))
    samples = [(make_sample(n), {}) for n in range(5, 8)]
    classes = ClassMap((0, 1, 2))
    write_bank(tmp_path / "bank", samples, [make_sample(0)], classes, {"generator": {}})
    return ("--images", tmp_path / "own" / "images", "--masks", tmp_path / "own" / "masks")


def test_compare_prints_table_verdict_and_page(own, tmp_path):
    out = tmp_path / "out"
    arms = "standard,standard+synthetic"
    words = (*own, "--train", 2, "--bank", tmp_path / "bank", "--arms", arms, *QUICK)
    words += ("--names", "ground,thing,box")
    lines = run("compare", *words, "--out", out).stdout.splitlines()
    assert lines[0].split() == ["mIoU", "gain", "95", "%", "interval", "verdict", "s", "GB"]
    assert [line.split()[0] for line in lines[1:3]] == arms.split(",")
    assert "baseline" in lines[1]
    assert lines[-2].endswith("1 data set, 2 seeds.")
    assert any("% of the pixels: ground" in line for line in lines)
    arm = json.loads((out / "comparison.json").read_text())["arms"]["standard+synthetic"]
    mean, gain = 100 * arm["mean"]["mIoU"], 100 * arm["gain"]["mIoU"]["mean"]
    assert lines[2].split()[1:3] == [f"{mean:.1f}", f"{gain:+.1f}"]
    assert arm["verdict"] in lines[2]
    assert arm["peak_memory_gb"] > 0
    assert lines[2].split()[-2:] == [f"{arm['seconds']:.1f}", f"{arm['peak_memory_gb']:.2f}"]
    groups = json.loads((out / "comparison.json").read_text())["groups"]["data"]
    assert groups[0]["ids"][0] == 0
    assert sorted(i for group in groups for i in group["ids"]) == [0, 1, 2]
    assert all(set(group["arms"]) == set(arms.split(",")) for group in groups)
    assert lines[-1] == str(out / "index.html")
    html = (out / "index.html").read_text("utf-8")
    assert 'id="classes"' in html
    assert "Frequent and rare classes" in html
    assert "<td>box</td>" in html
    assert 'id="samples"' in html
    assert 'id="frames"' in html

    (out / "index.html").unlink()
    assert run("report", out).stdout == f"{out / 'index.html'}\n"
    assert (out / "index.html").read_text("utf-8") == html
    other = tmp_path / "page.html"
    assert run("report", out, "--out", other).stdout == f"{other}\n"


def test_without_a_bank_the_other_arms_are_compared(own, tmp_path):
    result = run("compare", *own, *QUICK, "--out", tmp_path / "out")
    assert "no bank given" in result.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    names = [arm["name"] for arm in manifest["arms"]]
    assert names == ["none", "standard", "copy-paste", "standard+copy-paste", "auto"]


def test_data_that_moves_is_trained_on_no_second_time(own, tmp_path):
    words = ("--arms", "none,standard", *QUICK, "--out", tmp_path / "out")
    run("compare", *own, *words)
    (tmp_path / "own").rename(tmp_path / "moved")
    moved = [Path(str(word).replace("/own/", "/moved/")) for word in own]
    again = run("compare", *moved, *words)
    assert "4 of 4 runs are there already" in again.stderr


def test_training_images_of_several_sizes_are_pasted_at_their_usual_size(own, tmp_path):
    for file in (tmp_path / "own").glob("*/*.png"):
        Image.open(file).crop((0, 0, 64 - 4 * int(file.stem), 48)).save(file)
    words = ("compare", *own, "--train", 3, *QUICK, "--arms", "none,copy-paste")
    words += ("--baseline", "none")
    result = run(*words, "--out", tmp_path / "out")
    [line] = [line for line in result.stderr.splitlines() if "resized" in line]
    sizes = [int(part.split("x")[0]) for part in line.split() if "x48" in part]
    assert line.startswith("data: 2 of 3 images resized to ")
    composed = load_generator(tmp_path / "out" / "sources" / "data" / "compose")
    assert composed.sample(0).size == (48, *sizes)
    assert {pair.size for pair in composed.pairs} == {(48, *sizes)}
    assert len(composed.manifest["learned_from"]) == 2
    result = run(*words, "--out", tmp_path / "out")
    assert "4 of 4 runs are there already" in result.stderr
    assert "resized" not in result.stderr


def test_interrupted_compare_says_how_to_go_on_and_writes_its_page(own, tmp_path, monkeypatch):
    compare = recipes.compare

    def stopped(units, out, **options):
        def progress(done, total):
            if done > 2:
                raise KeyboardInterrupt

        return compare(units, out, **{**options, "progress": progress})

    monkeypatch.setattr(recipes, "compare", stopped)
    words = (*own, "--arms", "none,standard", *QUICK, "--out", tmp_path / "out")
    result = run("compare", *words, code=130)
    assert "finished trainings are kept. Go on with: synthaug" in result.stderr
    assert "Not finished:" in (tmp_path / "out" / "index.html").read_text("utf-8")
    monkeypatch.undo()
    run("compare", *words)
    whole = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Not finished:" not in whole
    monkeypatch.setattr(recipes, "compare", stopped)
    run("compare", *words, "--steps", 5, code=130)  # not one arm has run with these settings
    assert (tmp_path / "out" / "index.html").read_text("utf-8") == whole


def test_dry_run_prints_what_would_be_compared(tmp_path):
    words = ("--davis", "D", "--video", "dog,cows", "--video", "bear", "--every", 3, "--seeds", 4)
    text = run("compare", *words, "--out", tmp_path / "o", "--dry-run").stdout
    stages = yaml.safe_load(text)
    assert stages["data"]["videos"] == ["dog", "cows", "bear"]
    assert stages["data"]["every"] == 3
    assert stages["compare"]["seeds"] == 4


def test_the_table_says_which_verdicts_hold_only_when_taken_alone(own, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("compare", *own, "--arms", "none,standard,copy-paste", *QUICK, "--out", out)
    run(*words)
    result = json.loads((out / "comparison.json").read_text())
    result["arms"]["none"] |= {"verdict": "hurts", "among_all": "no difference shown"}
    result["arms"]["none"]["gain"]["mIoU"] = {"mean": -2e-4, "low": -3e-4, "high": -1e-4}
    (out / "comparison.json").write_text(json.dumps(result))
    print_result(out)
    printed = capsys.readouterr().out
    assert "  -0.020  -0.030 to -0.010  hurts, taken alone  " in printed
    assert "\nIntervals are single 95 % ones, not corrected for the 2 arms.\n" in printed


def test_run_prints_the_result_of_a_recipe(own, tmp_path):
    recipe = tmp_path / "own.yaml"
    data = {"images": str(own[1]), "masks": str(own[3])}
    compare = {"arms": ["none", "standard"], "segmenter": "matching"}
    recipe.write_text(yaml.safe_dump({"data": data, "compare": compare}))
    lines = run("run", recipe, "--smoke", "--out", tmp_path / "out").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["none", "standard"]
    assert lines[-1] == str(tmp_path / "out" / "comparison" / "index.html")
    line = run("report", tmp_path / "out", code=2).stderr
    assert f"its comparison is {tmp_path / 'out' / 'comparison'}" in line.replace("\n", "")


def test_recipes_load_and_resolve():
    recipes = Path(__file__).parents[2] / "recipes"
    text = run("run", recipes / "davis16-one-shot.yaml", "--dry-run").stdout
    stages = yaml.safe_load(text)
    assert len(stages["data"]["videos"]) == 10
    assert len(stages["compare"]["arms"]) == 8
    large = yaml.safe_load(run("run", recipes / "davis16-480p.yaml", "--dry-run").stdout)
    assert large["data"]["videos"] == stages["data"]["videos"]
    assert large["compare"]["side_px"] == 854
    assert large["compare"]["parent"] == stages["compare"]["parent"] == "others"


@pytest.mark.parametrize(
    ("words", "line"),
    [(("--arms", "none,nosuch"), "unknown arm 'nosuch'"), (("--segmenter", "yolo"), "yolo")],
)
def test_a_dry_comparison_refuses_what_it_would(words, line, tmp_path):
    found = run("compare", *words, "--out", tmp_path / "o", "--dry-run", code=2)
    assert line in found.stderr


def test_a_smoke_run_tried_dry_shows_its_own_settings():
    recipe = Path(__file__).parents[2] / "recipes" / "davis16-one-shot.yaml"
    stages = yaml.safe_load(run("run", recipe, "--smoke", "--dry-run").stdout)
    assert len(stages["data"]["videos"]) == 2
    assert (stages["fit"]["iterations"], stages["compare"]["steps"]) == (2, 2)


def test_a_dry_run_refuses_what_the_fit_would():
    recipe = Path(__file__).parents[2] / "recipes" / "camvid-gain.yaml"
    found = run("run", recipe, "--set", "fit.preset=compose", "--dry-run", code=2)
    assert "the generator oasis has no preset compose" in found.output
    found = run("run", recipe, "--set", "compare.segmenter=yolo", "--dry-run", code=2)
    assert "unknown segmenter 'yolo'" in found.output


class TestBadInput:
    @pytest.fixture
    def refused(self, tmp_path):
        def line(*words):
            result = run("compare", *words, "--out", tmp_path / "out", code=2)
            assert result.stdout == ""
            assert result.stderr.count("\n") == 1, result.stderr
            assert not (tmp_path / "out").exists()
            return result.stderr

        return line

    def test_no_data(self, refused):
        assert "name what to train on" in refused()

    def test_half_of_a_pair(self, refused, tmp_path):
        assert "give both" in refused("--images", tmp_path)
        assert "not both" in refused("--images", tmp_path, "--masks", tmp_path, "--davis", tmp_path)
        assert "below --davis" in refused("--video", "dog")

    def test_missing_folder(self, refused, tmp_path):
        assert "no folder of masks" in refused("--images", tmp_path, "--masks", tmp_path / "no")
        assert "no video 'dog'" in refused("--davis", tmp_path, "--video", "dog")

    def test_unknown_arm_and_missing_bank(self, refused, own, tmp_path):
        assert "unknown arm 'salt'" in refused(*own, "--arms", "salt")
        assert "name their bank" in refused(*own, "--arms", "synthetic")
        line = refused(*own, "--arms", "synthetic", "--bank", tmp_path / "nothing")
        assert "no bank or generator manifest" in line

    def test_a_bank_that_has_seen_the_test_pictures(self, refused, own, tmp_path):
        pairs = [make_sample(number) for number in range(4)]
        classes = ClassMap((0, 1, 2))
        write_bank(tmp_path / "all", [(make_sample(5), {})], pairs, classes, {"generator": {}})
        line = refused(*own, "--train", 1, "--bank", tmp_path / "all")
        assert "has learned from 3 of the 3 pictures that data is tested on" in line
        assert "--test-images" in line

    def test_numbers_that_are_none(self, refused, own):
        assert "train" in refused(*own, "--train", "inf")
        assert "compare.lr: Input should be less than inf" in refused(
            *own, "--set", "compare.lr=.inf"
        )

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("--baseline", "nope"), "unknown arm 'nope'"),
            (("--segmenter", "nope"), "unknown segmenter 'nope'"),
            (("--segmenter", "nope:fn"), "cannot import 'nope'"),
            (("--compose", "missing"), "no bank or generator manifest"),
            (("--arms", ""), "no arm is named"),
        ],
    )
    def test_the_error_is_all_that_is_said(self, refused, own, words, answer):
        assert answer in refused(*own, *words)

    def test_a_bank_that_lost_a_picture(self, refused, own, tmp_path):
        (tmp_path / "bank" / "images" / "00001.png").unlink()
        line = refused(*own, "--arms", "synthetic", "--bank", tmp_path / "bank", *QUICK)
        assert "00001.png is missing" in line

    def test_a_file_as_output_folder(self, own, tmp_path):
        (tmp_path / "out").write_text("")
        result = run("compare", *own, *QUICK, "--out", tmp_path / "out", code=2)
        assert result.stderr == f"error: {tmp_path / 'out'} is a file: name a folder with --out\n"

    def test_value_out_of_range(self, refused, own):
        assert "compare.seeds" in refused(*own, "--seeds", 0)

    def test_report_of_no_comparison(self, tmp_path):
        assert "no comparison manifest" in run("report", tmp_path, code=2).stderr

    def test_a_page_does_not_take_the_place_of_a_picture(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"picture")
        line = run("report", tmp_path, "--out", tmp_path / "a.png", code=2).stderr
        assert "name a file that ends in .html" in line
        assert (tmp_path / "a.png").read_bytes() == b"picture"

    def test_foreign_output_folder_is_left_alone(self, own, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("")
        words = (*own, "--arms", "none,standard", *QUICK, "--out", tmp_path / "out")
        assert "holds something else" in run("compare", *words, code=2).stderr
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
