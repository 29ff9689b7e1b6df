from __future__ import annotations

import json
import signal
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import yaml
from command_line import run
from PIL import Image

from synthaug.bank import Bank
from synthaug.cli import info as info_room
from synthaug.cli import main
from synthaug.config import FitConfig


@pytest.fixture
def bank(make_fit_folder, tmp_path):
    run("generate", make_fit_folder(), "-n", 6, "--out", tmp_path / "bank", "--coco")
    return tmp_path / "bank"


def test_help_names_every_command():
    text = run("--help").stdout
    for name in (
        "demo",
        "fit",
        "pretrain",
        "generate",
        "edit",
        "segment",
        "recreate",
        "filter",
        "evaluate",
        "info",
    ):
        assert f"\n  {name} " in text


def test_usage_errors_are_exit_code_2():
    for words, said in (
        (("fit", "--foo"), "No such option"),
        (("generate", "fitted", "-n", "abc", "--out", "bank"), "Invalid value for '-n'"),
        (("generate",), "Missing argument"),
    ):
        [line] = run(*words, code=2).stderr.splitlines()
        assert line.startswith(f"error: {said}")
        assert line.endswith("Try --help.")


def test_generate_prints_the_bank_and_reports_progress(make_fit_folder, tmp_path):
    fitted = make_fit_folder()
    result = run("generate", fitted, "-n", 2, "--seed", 3, "--out", tmp_path / "bank")
    assert result.stdout == f"{tmp_path / 'bank'}\n"
    assert "sample 2/2" in result.stderr
    bank = Bank(tmp_path / "bank")
    assert len(bank) == 2
    assert bank.manifest["seed"] == 3


def test_recipe_and_flags_reach_the_bank(make_fit_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("generate: {n: 5, seed: 8, coco: true}\n")
    out = tmp_path / "bank"
    run("generate", make_fit_folder(), "--out", out, "--recipe", recipe, "-n", 2)
    assert Bank(out).manifest["config"]["seed"] == 8
    assert len(Bank(out)) == 2
    assert (out / "instances.json").exists()


def test_names_of_classes_reach_the_bank_and_its_coco_file(pair_files, tmp_path):
    names, fitted, out = tmp_path / "names.txt", tmp_path / "fitted", tmp_path / "bank"
    names.write_text("table\ncoin\n")
    run("fit", *pair_files, "--preset", "patch", "--names", names, "--out", fitted)
    run("generate", fitted, "-n", 1, "--coco", "--out", out)
    assert Bank(out).classes.names == ("table", "coin")
    coco = json.loads((out / "instances.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["coin"]
    assert coco["info"]["background_name"] == "table"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit", ["I", "M", "--out", "o"]),
        ("generate", ["G", "--out", "o"]),
        ("filter", ["B"]),
        ("demo", []),
    ],
)
def test_dry_run_prints_a_recipe_and_does_nothing(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run(command, *words, "--dry-run", "--set", f"{command}.{_option(command)}").stdout
    assert set(yaml.safe_load(text)) == {command}
    name, _, value = _option(command).partition("=")
    assert yaml.safe_load(text)[command][name] == yaml.safe_load(value)
    assert list(tmp_path.iterdir()) == []


def _option(command):
    return "drop=0.5" if command == "filter" else "seed=9"


def test_filter_drops_prints_reasons_and_renews_the_coco_file(bank):
    result = run("filter", bank, "--drop", 0.5, "--network", "efficientnet_lite0")
    filtered = Bank(bank)
    assert f"kept {len(filtered)} of 6 samples" in result.stderr
    dropped = [r for r in filtered.all_records if not r["kept"]]
    assert dropped
    for reason in {reason for record in dropped for reason in record["reasons"]}:
        assert reason in result.stdout
    images = json.loads((bank / "instances.json").read_text())["images"]
    assert [i["file_name"] for i in images] == [r["image"] for r in filtered.records]


def test_filter_prints_json(bank):
    result = run("filter", bank, "--json", "--network", "efficientnet_lite0")
    assert json.loads(result.stdout)["samples"] == 6


def test_evaluate_prints_a_table_and_json(bank, monkeypatch):
    words = ("evaluate", bank, "--network", "efficientnet_lite0", "--no-agreement")
    table = run(*words).stdout
    value = json.loads(run(*words, "--json").stdout)
    assert value["samples"] == 6
    rows = {line[:36].strip(): line[36:].split() for line in table.splitlines()[1:]}
    both = ("bank", "standard")
    assert rows[""] == [*both, "augmentation"]
    assert rows["SIFID-1"] == [f"{value['sifid'][side][0]:.3f}" for side in both]
    assert rows["perceptual diversity"] == [f"{value['diversity'][side]:.3f}" for side in both]
    assert "mask agreement" not in table


def test_fit_hands_over_what_was_asked(pair_files, tmp_path, monkeypatch):
    from synthaug import fitting

    seen = {}

    def fit(image, mask, out, **options):
        seen.update(options, image=image, mask=mask, out=out)
        return out

    monkeypatch.setattr(fitting, "fit", fit)
    words = ["--iterations", 9, "--no-flip", "--seed", 4, "--set", "fit.checkpoint_s=5"]
    result = run("fit", *pair_files, "--out", tmp_path / "out", *words)
    assert result.stdout == f"{tmp_path / 'out'}\n"
    assert (seen["image"], seen["mask"]) == pair_files
    assert seen["config"] == FitConfig(iterations=9, flip=False, seed=4, checkpoint_s=5)
    assert not seen["resume"]
    assert not seen["overwrite"]


def test_a_fit_goes_on_where_it_is_told(make_fit_folder, monkeypatch):
    from synthaug import fitting

    seen = {}

    def fit(image, mask, out, **options):
        seen.update(options, out=out)
        return out

    monkeypatch.setattr(fitting, "fit", fit)
    fitted = make_fit_folder()
    run("fit", "--resume", "--out", fitted, "--accelerator", "cuda", "--devices", 2)
    assert (seen["out"], seen["resume"]) == (fitted, True)
    assert (seen["config"].accelerator, seen["config"].devices) == ("cuda", 2)


def test_a_full_gpu_is_one_line(pair_files, tmp_path, monkeypatch):
    import torch

    from synthaug import fitting

    def fit(*_, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(fitting, "fit", fit)
    line = run("fit", *pair_files, "--out", tmp_path / "out", code=2).stderr
    assert line.startswith("error: the GPU's memory is full: take a smaller --batch-size")
    assert line.count("\n") == 1


def test_compositions_are_fitted_and_generated_like_any_generator(pair_files, tmp_path):
    words = ["--preset", "compose", "--shift", "near", "--no-flip"]
    fitted, bank = tmp_path / "composed", tmp_path / "bank"
    result = run("fit", *pair_files, "--out", fitted, *words)
    assert result.stdout == f"{fitted}\n"
    assert "1 movable object" in result.stderr
    run("generate", fitted, "-n", 2, "--out", bank)
    assert Bank(bank).manifest["generator"]["shift"] == "near"
    assert not Bank(bank).manifest["generator"]["flip"]
    again = run("fit", *pair_files, "--out", fitted, *words, code=2)
    assert "--overwrite" in again.stderr
    run("fit", *pair_files, "--out", fitted, *words, "--overwrite", "--objects", bank)
    assert json.loads((fitted / "manifest.json").read_text())["config"]["objects"] == str(bank)


def test_big_pictures_are_read_without_a_warning(pair_files, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    run("fit", *pair_files, "--preset", "patch", "--out", tmp_path / "fitted")
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


def test_interrupted_command_exits_130(make_fit_folder, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("synthaug.generation.generate", stop)
    run("generate", make_fit_folder(), "--out", tmp_path / "bank", code=130)


@pytest.mark.parametrize("words", [["--out=~/bank"], ["--out", "~/bank"], ["-o", "~/bank"]])
def test_a_path_in_the_home_folder_is_found(make_fit_folder, tmp_path, monkeypatch, words):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = run("generate", make_fit_folder(), "-n", 1, *words)
    assert result.stdout == f"{tmp_path / 'bank'}\n"
    assert not (tmp_path / "~").exists()


@pytest.fixture
def version(monkeypatch):
    """Run ``synthaug --version`` with a given stdout; returns the exit code."""

    def ask(stdout):
        monkeypatch.setattr("synthaug.cli.signal.signal", lambda *_: None)
        monkeypatch.setattr(sys, "argv", ["synthaug", "--version"])
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return ask


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("at_once", [False, True])
def test_a_full_disk_behind_stdout_is_one_line(version, capsys, at_once):
    with open("/dev/full", "wb", 0) as disk, TextIOWrapper(disk, write_through=at_once) as stdout:
        assert version(stdout) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write output: No space left on device; ")


def test_what_stdout_cannot_encode_is_escaped(version, monkeypatch):
    monkeypatch.setattr("synthaug.cli.__version__", "1.é")
    written = BytesIO()
    assert version(TextIOWrapper(written, encoding="ascii")) == 0
    assert written.getvalue() == b"synthaug 1.\\xe9\n"


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_stops_batch_jobs_stops_as_ctrl_c_does(
    make_fit_folder, tmp_path, monkeypatch, name, background
):
    """A shell script starts its background jobs with Ctrl-C ignored."""

    def stop(*args, **options):
        signal.raise_signal(getattr(signal, name))

    words = ["generate", str(make_fit_folder()), "--out", str(tmp_path / "bank")]
    monkeypatch.setattr("synthaug.generation.generate", stop)
    monkeypatch.setattr(sys, "argv", ["synthaug", *words])
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(getattr(signal, name), signal.SIG_DFL)  # nohup has SIGHUP ignored
    if background:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stopped.value.code == 130


def test_options_without_effect_are_refused(make_fit_folder, pair_files, tmp_path):
    words = ("generate", make_fit_folder(), "--drop", 0.5, "--out", tmp_path / "bank")
    assert "drop=0.5 goes with a filter" in run(*words, code=2).stderr
    words = ("fit", *pair_files, "--preset", "fast", "--shift", "near", "--out", tmp_path / "out")
    for more in ((), ("--dry-run",)):
        assert "shift is for the preset compose" in run(*words, *more, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_info_shows_versions_devices_and_weights():
    value = json.loads(run("info", "--json").stdout)
    assert "torch" in value["versions"]
    assert "cores" in value["devices"]["cpu"]
    assert value["weights"]["efficientnet_lite0"] == "bundled, hash verified"
    assert "torch" in run("info").stdout


def test_info_detects_two_opencvs(monkeypatch):
    versions = {"opencv-python-headless": "5.0", "opencv-python": "4.14"}
    monkeypatch.setattr(
        info_room, "_installed", lambda names: {n: versions[n] for n in names if n in versions}
    )
    [problem] = info_room.find_problems()
    assert problem.startswith("opencv-python-headless and opencv-python overwrite")
    versions.popitem()
    assert info_room.find_problems() == []
    versions["albumentationsx"] = "2.5"
    assert "albumentationsx replaces" in info_room.find_problems()[0]


def test_generate_renders_filters_and_overwrites(make_fit_folder, tmp_path):
    fitted, out = make_fit_folder(), tmp_path / "bank"
    words = ("-n", 4, "--render", "patches", "--filter", "sifid", "--drop", 0.5, "--out", out)
    for more in ((), ("--overwrite",)):
        run("generate", fitted, *words, *more)
    manifest = Bank(out).manifest
    assert (manifest["config"]["render"], manifest["filter"]["drop"]) == ("patches", 0.5)


def test_a_failure_inside_is_exit_code_1(make_fit_folder, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("synthaug.generation.generate", fail)
    result = run("generate", make_fit_folder(), "--out", tmp_path / "bank", code=1)
    assert "error: " not in result.stderr
