"""Bad input: one clear line on stderr, exit code 2, nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from synthaug.cli import app


def _run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def _tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def refused(tmp_path):
    """Run a command that must be refused in one line, leaving the folder as it was."""

    def run(*words):
        before = _tree(tmp_path)
        result = _run(*words)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("error: ")
        assert _tree(tmp_path) == before
        return result.stderr

    return run


@pytest.fixture
def fitted(make_fit_folder):
    return make_fit_folder()


@pytest.fixture
def bank(fitted, tmp_path):
    result = _run("generate", fitted, "-n", 3, "--out", tmp_path / "bank")
    assert result.exit_code == 0, result.output
    return tmp_path / "bank"


def _damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


class TestFit:
    @pytest.fixture(autouse=True)
    def _out(self, tmp_path):
        self.out = tmp_path / "out"

    def test_stylegan2_without_a_source_or_pictures(self, refused, pair_files):
        line = refused("fit", pair_files[0], "--generator", "stylegan2", "--out", self.out)
        assert "add --source FOLDER" in line
        assert "--images DIR" in refused("pretrain", "--out", self.out)

    def test_a_source_that_is_none(self, refused, pair_files, tmp_path):
        words = ["--generator", "stylegan2", "--source", tmp_path, "--out", self.out]
        assert "no source to adapt" in refused("fit", pair_files[0], *words)

    def _refused_mask(self, refused, pair_files, ids):
        Image.fromarray(ids).save(pair_files[1])
        return refused("fit", *pair_files, "--out", self.out)

    def test_missing_file(self, refused, pair_files, tmp_path):
        assert "no image at" in refused("fit", tmp_path / "no.png", pair_files[1], "-o", self.out)
        assert "no mask at" in refused("fit", pair_files[0], tmp_path / "no.png", "-o", self.out)

    def test_paths_that_the_system_refuses(self, refused, pair_files, tmp_path):
        loop = tmp_path / "loop.png"
        loop.symlink_to(loop)
        assert str(loop) in refused("fit", loop, pair_files[1], "--out", self.out)
        long = tmp_path / ("x" * 300)
        assert str(long) in refused("fit", *pair_files, "--out", long)

    def test_truncated_image(self, refused, pair_files):
        pair_files[0].write_bytes(pair_files[0].read_bytes()[:2000])
        line = refused("fit", *pair_files, "--out", self.out)
        assert "cannot read image" in line
        assert str(pair_files[0]) in line

    def test_image_and_mask_of_two_sizes(self, refused, pair_files):
        line = self._refused_mask(refused, pair_files, np.zeros((40, 64), np.uint8))
        assert "64x48 px but mask" in line
        assert "64x40" in line

    def test_images_of_two_sizes(self, refused, pair_files, tmp_path):
        folders = []
        for path, kind in zip(pair_files, ("images", "masks"), strict=True):
            (tmp_path / kind).mkdir()
            for name, size in (("a", (64, 48)), ("b", (80, 48))):
                Image.open(path).resize(size, 0).save(tmp_path / kind / f"{name}.png")
            folders += [f"--{kind}", tmp_path / kind]
        line = refused("fit", *folders, "--out", self.out)
        assert "image b is 80x48 px but a is 64x48: add --resize, or bring all images of" in line
        line = refused("fit", *pair_files, "--resize", "--out", self.out)
        assert "one image has one size: leave --resize out" in line

    def test_colour_mask(self, refused, pair_files):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:20] = (255, 0, 0)
        line = self._refused_mask(refused, pair_files, picture)
        assert "is a colour picture (2 colours, " in line
        assert "write ids 0, 1, 2" in line

    def test_one_class(self, refused, pair_files):
        line = self._refused_mask(refused, pair_files, np.ones((48, 64), np.uint8))
        assert "only one class" in line

    def test_too_many_classes(self, refused, pair_files):
        ids = np.arange(48 * 64, dtype=np.int64).reshape(48, 64) % 65
        line = self._refused_mask(refused, pair_files, ids.astype(np.uint8))
        assert "65 classes, at most 64" in line

    def test_small_image(self, refused, pair_files):
        for path in pair_files:
            Image.open(path).crop((0, 0, 31, 48)).save(path)
        assert "31x48 px: at least 32" in refused("fit", *pair_files, "--out", self.out)

    def test_folder_in_use(self, refused, pair_files):
        self.out.mkdir()
        (self.out / "thesis.tex").write_text("years of work")
        line = refused("fit", *pair_files, "--out", self.out)
        assert "is not empty" in line
        assert "--overwrite" in line

    def test_unknown_option_in_a_recipe(self, refused, pair_files, tmp_path):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("fit:\n  iteration: 5\n")
        line = refused("fit", *pair_files, "--out", self.out, "--recipe", recipe)
        assert f"{recipe}: unknown option fit.iteration: did you mean iterations?" in line

    def test_value_out_of_range(self, refused, pair_files):
        line = refused("fit", *pair_files, "--out", self.out, "--iterations", 0)
        assert "fit.iterations" in line
        assert "fit.preset" in refused("fit", *pair_files, "--out", self.out, "--preset", "slow")

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("--plugin", "atopc"), "unknown plug-in atopc: did you mean atopk?"),
            (("--plugin", "ada", "--generator", "oasis"), "ada does not go with oasis"),
            (("--preset", "patch", "--plugin", "ada"), "patch trains nothing"),
            (("--preset", "compose", "--iterations", 5), "trains nothing: leave out iterations"),
            (("--preset", "patch", "--set", "fit.devices=2"), "trains nothing: leave out devices"),
            (("--preset", "patch", "--max-size", 64, "--batch-size", 2), "batch_size, max_size"),
            (("--preset", "small"), "osmis has no preset small"),
            (("--set", "fit.ablate=noise"), "ablate=noise goes with --generator oasis"),
            (("--vgg", "vgg19.pth"), "the VGG loss goes with --generator oasis"),
        ],
    )
    def test_settings_that_do_not_fit_together(self, refused, pair_files, words, answer):
        line = refused("fit", *pair_files, "--out", self.out, *words)
        assert answer in line
        assert refused("fit", *pair_files, "--out", self.out, *words, "--dry-run") == line

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            ((), "name what to learn from"),
            (("I",), "a mask is missing"),
            (("I", "M", "--images", "d", "--masks", "d"), "give one or the other"),
            (("I", "--masks", "d"), "do not mix them"),
            (("I", "M", "--no-mask"), "--no-mask without a mask"),
        ],
    )
    def test_inputs_that_do_not_fit_together(self, refused, pair_files, words, answer):
        files = {"I": pair_files[0], "M": pair_files[1]}
        assert answer in refused("fit", *(files.get(w, w) for w in words), "--out", self.out)

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("--names", "table"), "no file of class names at table"),
            (("--names", "1=coin,2=lid"), "class id 0 has no name"),
        ],
    )
    def test_names_that_do_not_fit(self, refused, pair_files, words, answer):
        assert answer in refused("fit", *pair_files, "--out", self.out, *words)

    def test_names_without_masks(self, refused, pair_files):
        words = (pair_files[0], "--no-mask", "--names", "table,coin", "--out", self.out)
        assert "give masks, or leave them out" in refused("fit", *words)

    @pytest.mark.parametrize(
        ("words", "name"),
        [
            (("I", "M"), "IMAGE"),
            (("--iterations", 9), "--iterations"),
            (("--no-flip",), "--flip"),
            (("--set", "fit.seed=1"), "--set"),
            (("--dry-run",), "--dry-run"),
        ],
    )
    def test_nothing_stands_beside_resume(self, refused, pair_files, fitted, words, name):
        given = {"I": pair_files[0], "M": pair_files[1]}
        line = refused("fit", "--resume", "--out", fitted, *(given.get(w, w) for w in words))
        assert f"{fitted} keeps: leave out {name}" in line

    def test_a_fit_is_resumed_by_the_command_that_began_it(self, refused, fitted):
        line = refused("pretrain", "--resume", "--out", fitted)
        assert f"go on with synthaug fit --resume --out {fitted}" in line
        manifest = json.loads((fitted / "manifest.json").read_text())
        manifest["config"]["generator"] = "stylegan2"
        (fitted / "manifest.json").write_text(json.dumps(manifest))
        line = refused("fit", "--resume", "--out", fitted)
        assert f"go on with synthaug pretrain --resume --out {fitted}" in line

    def test_full_disk(self, refused, pair_files, full_disk):
        line = refused("fit", *pair_files, "--out", self.out, "--iterations", 1)
        assert "No space left on device; free some space" in line


class TestGenerate:
    def test_no_generator(self, refused, tmp_path):
        line = refused("generate", tmp_path, "--out", tmp_path / "out")
        assert "no generator manifest" in line

    def test_bank_in_place_of_a_generator(self, refused, bank, tmp_path):
        assert "is not a generator" in refused("generate", bank, "--out", tmp_path / "out")

    def test_damaged_snapshot(self, refused, fitted, tmp_path):
        _damage(fitted / "snapshot.safetensors")
        line = refused("generate", fitted, "--out", tmp_path / "out")
        assert "snapshot.safetensors is damaged (hash differs" in line

    def test_truncation_where_there_is_none(self, refused, fitted, pair_files, tmp_path):
        assert _run("fit", *pair_files, "--preset", "patch", "-o", tmp_path / "p").exit_code == 0
        for generator in (fitted, tmp_path / "p"):
            line = refused("generate", generator, "--truncation", 0.7, "-o", tmp_path / "out")
            assert f"{generator} knows no truncation" in line
        line = refused("generate", fitted, "--truncation", 1.2, "-o", tmp_path / "out")
        assert "option generate.truncation: Input should be less" in line

    def test_no_sample(self, refused, fitted, tmp_path):
        assert "generate.n" in refused("generate", fitted, "-n", 0, "--out", tmp_path / "out")

    def test_folder_in_use(self, refused, fitted, bank):
        assert "is not empty" in refused("generate", fitted, "--out", bank)

    def test_full_disk(self, refused, fitted, tmp_path, full_disk):
        line = refused("generate", fitted, "-n", 2, "--out", tmp_path / "out")
        assert "No space left on device" in line


class TestFilter:
    def test_no_bank(self, refused, tmp_path):
        assert "no bank manifest" in refused("filter", tmp_path)

    @pytest.mark.parametrize("name", ["images/00001.png", "masks/00002.png"])
    def test_damaged_sample(self, refused, bank, name):
        _damage(bank / name)
        line = refused("filter", bank, "--network", "efficientnet_lite0")
        assert f"{name} is damaged (hash differs" in line.replace("\\", "/")

    def test_value_out_of_range(self, refused, bank):
        assert "filter.drop" in refused("filter", bank, "--drop", 1)
        assert "filter.rule" in refused("filter", bank, "--rule", "fid")


class TestEvaluate:
    def test_no_bank(self, refused, tmp_path):
        assert "no bank manifest" in refused("evaluate", tmp_path)
