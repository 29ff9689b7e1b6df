import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    out = tmp_path_factory.mktemp("examples")
    return out, run("01_fit_and_generate.py", "--out", out, "--iterations", 2, "-n", 4)


def test_the_first_example_makes_a_generator_a_bank_and_a_picture(first):
    out, printed = first
    assert "of 4" in printed
    assert (out / "generator" / "manifest.json").is_file()
    assert len(list((out / "bank" / "images").iterdir())) == 4
    assert (out / "samples.png").is_file()


def test_the_second_example_trains_on_a_bank(tmp_path):
    from synthaug import demo
    from synthaug.bank import write_bank

    pair = demo.coins()[0]
    bank = write_bank(tmp_path / "bank", [(pair, {}), (pair, {})], [pair], demo.CLASSES, {})
    printed = run("02_train_with_synthaug.py", bank.path, "--iterations", 2, "--workers", 1)
    assert "(303, 198, 3)" in printed
    assert "step 2/2" in printed


def test_the_third_example_edits_lays_out_and_recreates(tmp_path):
    printed = run("03_edit_and_recreate.py", "--out", tmp_path, "--iterations", 2, "--max-size", 32)
    assert "of the new maps" in printed
    assert (tmp_path / "edits.png").is_file()
    assert (tmp_path / "recreated.png").is_file()
    assert len(list((tmp_path / "bank" / "images").iterdir())) == 8


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_stay_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= 70
