from __future__ import annotations

import argparse

import pytest
from recipe_options import Distinct, positive, run_main

from synthaug.errors import InputError

OPTIONS = {
    "adaptation": ("seeds", "source-steps", "steps"),
    "adapted_masks": ("draws", "source-steps", "steps", "seeds", "train-steps", "batch-size"),
    "benchmark_plugins": ("rounds",),
    "benchmarks": ("samples", "memory-samples", "steps", "fit-steps", "threads"),
    "camvid_oasis": ("steps", "ablation-steps", "judge-steps", "noises"),
    "false_alarms": ("repetitions", "seeds", "steps", "jobs"),
    "limited_data": ("seeds", "steps"),
    "medgan_crops": ("seeds", "steps", "labelled"),
    "medgan_ring": ("seeds", "steps"),
    "sifid_ablation": ("seeds", "every"),
    "small_objects": ("seeds",),
}
REQUIRED = {"adaptation": ("data", "out"), "adapted_masks": ("data",), "sifid_ablation": ("runs",)}


@pytest.mark.parametrize("name", OPTIONS)
def test_numbers_below_one_are_refused(load_script, tmp_path, capsys, name):
    script, out = load_script(name), tmp_path / "out"
    needed = [f"--{option}={out}" for option in REQUIRED.get(name, ("out",))]
    for option in OPTIONS[name]:
        with pytest.raises(SystemExit):
            script.main([*needed, f"--{option}=0"])
        refused = capsys.readouterr().err.splitlines()[-1]
        assert f"argument --{option}: 0 is no whole number from 1 up" in refused
    assert not out.exists()


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many"])
def test_whole_numbers_from_one_up_are_positive(value):
    assert positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match=f"{value} is no whole number from 1 up"):
        positive(value)


def test_what_is_named_twice_counts_once():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="+", action=Distinct, choices=("a", "b"))
    parser.add_argument("--shares", nargs="+", action=Distinct, type=positive, default=[3])
    found = parser.parse_args(["--rows", "b", "a", "b"])
    assert (found.rows, found.shares) == (["b", "a"], [3])
    assert parser.parse_args(["--shares", "2", "1", "2"]).shares == [2, 1]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("no such folder"), 2, "error: no such folder"),
        (KeyboardInterrupt(), 130, "stop"),
    ],
)
def test_bad_input_and_ctrl_c_are_one_line(capsys, error, code, told):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)
