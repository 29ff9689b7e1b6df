"""What a generator's pictures are worth beside held-out ones, in figures and on a page."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from command_line import run
from PIL import Image

from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.evaluation import picture_quality
from synthaug.evaluation.picture_quality import (
    Drawn,
    check_held_out,
    draw_pictures,
    evaluate_pictures,
    read_held_out,
)
from synthaug.generation import load_generator
from synthaug.report.pictures import write_pictures
from synthaug.sample import Sample


@pytest.fixture
def generator(make_fit_folder):
    return load_generator(make_fit_folder(masks=False))


@pytest.fixture
def drawn(generator):
    return draw_pictures(generator, samples=12, strips=2)


def others(count=8, size=(40, 56)):
    """Pictures of noise."""
    stream = np.random.default_rng(5)
    images = stream.integers(0, 256, (count, *size, 3)).astype(np.uint8)
    return [Sample(image, np.full(size, 255, np.uint8), f"{i}") for i, image in enumerate(images)]


@pytest.fixture
def held_out_folder(tmp_path):
    path = tmp_path / "held"
    path.mkdir()
    for sample in others():
        Image.fromarray(sample.image).save(path / f"{sample.id}.png")
    return path


def test_pictures_that_are_the_held_out_ones_are_perfect(generator, drawn):
    value = evaluate_pictures(generator, drawn, check_held_out(generator, drawn.samples))
    assert json.loads(json.dumps(value)) == value
    assert value["fid"]["generated"] == pytest.approx(0, abs=1e-3)
    assert value["fid"]["training"] > 1
    assert abs(value["kid"]["generated"]["value"]) < 5 * value["kid"]["generated"]["error"]
    assert value["kid"]["training"] is None  # of one picture
    assert (value["samples"], value["held_out"], value["training"]) == (12, 12, 1)
    assert value["reached"] == 1
    assert value["intra_diversity"] > 0.01
    assert value["jump"] > 1
    assert value["losses"] == {}
    assert value["smoothness"] is None


def test_the_page_judges_by_kid_within_its_error(generator, drawn, tmp_path):
    value = evaluate_pictures(generator, drawn, check_held_out(generator, others()))
    near, far = {"value": 0.1, "error": 0.01}, {"value": 0.2, "error": 0.01}
    for ours, copies, words in (
        (near, far, "are nearer to the held-out ones than the training"),
        (far, near, "are farther from the held-out ones than the training"),
        (near, {"value": 0.2, "error": 0.2}, "are about as far from the held-out ones as the"),
        (near, None, "too few training pictures"),
    ):
        quality = value | {"kid": {"generated": ours, "training": copies}}
        page = write_pictures(
            tmp_path / "page", generator, drawn, quality, images="held", seed=0, overwrite=True
        )
        assert words in page.read_text()
    options = {"images": "held", "seed": 0, "weights": "own.pth", "overwrite": True}
    page = write_pictures(tmp_path / "page", generator, drawn, value, **options)
    assert "--weights own.pth" in page.read_text()


def test_copies_of_the_training_picture_have_its_distance_and_no_diversity(generator, drawn):
    copies = Drawn(generator.pairs * 8, drawn.strips)
    value = evaluate_pictures(generator, copies, check_held_out(generator, others()))
    assert value["fid"]["generated"] == pytest.approx(value["fid"]["training"], rel=1e-4)
    assert value["intra_diversity"] == pytest.approx(0, abs=1e-5)


def test_a_sudden_change_is_a_jump(generator, drawn):
    first, last = drawn.samples[:2]
    held_out = check_held_out(generator, others())
    value = evaluate_pictures(generator, Drawn(drawn.samples, [[first] * 4 + [last]]), held_out)
    assert value["jump"] == pytest.approx(4)


def test_losses_are_means_of_the_end_of_the_fit(generator, drawn):
    generator.manifest["gan"]["smoothness"] = 5.0
    generator.manifest["snapshot_step"] = 40
    lines = [{"step": i, "g/real/4px": 1.0 * i, "g/smoothness": 10.0} for i in range(1, 41)]
    lines += [{"step": 40, "quality": 0.5}, {"step": 50, "g/real/4px": 9e9}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (generator.path / "metrics.jsonl").write_text(text)
    value = evaluate_pictures(generator, drawn, check_held_out(generator, others()))
    assert value["losses"] == {"g/real/4px": 38.5, "g/smoothness": 10.0}
    assert value["smoothness"] == 2.0


def test_seeds_count_on_from_the_first(generator):
    found = draw_pictures(generator, seed=3, samples=2, strips=1)
    assert np.array_equal(found.samples[1].image, generator.sample(4).image)
    assert len(found.strips[0]) == 9
    assert np.array_equal(found.strips[0][-1].image, generator.sample(4).image)


def test_unusable_pictures_are_refused(generator, tmp_path):
    with pytest.raises(InputError, match="3 held-out pictures: give at least 4"):
        check_held_out(generator, others(3))
    with pytest.raises(InputError, match="was fitted to 1 of the 9 held-out pictures, scene first"):
        check_held_out(generator, [*others(), *generator.pairs])
    (tmp_path / "held").mkdir()
    Image.fromarray(others(1, (48, 64))[0].image).save(tmp_path / "held" / "0.png")
    with pytest.raises(InputError, match=r"64x48 px but .* draws 56x40: bring them to that size"):
        read_held_out(generator, tmp_path / "held")


class TestCommand:
    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch):
        few = functools.partial(draw_pictures, samples=12, strips=2)
        monkeypatch.setattr(picture_quality, "draw_pictures", few)

    def test_prints_a_table_or_json(self, generator, drawn, held_out_folder):
        words = ("evaluate", generator.path, "--images", held_out_folder)
        words += ("--network", "efficientnet_lite0")
        table, value = run(*words).stdout, json.loads(run(*words, "--json").stdout)
        assert (
            value["fid"]
            == evaluate_pictures(generator, drawn, check_held_out(generator, others()))["fid"]
        )
        head, *lines = table.splitlines()
        assert head == "12 pictures beside 8 held-out ones, FID and KID by efficientnet_lite0"
        rows = {line[:36].strip(): line[36:].split() for line in lines}
        assert rows["FID"] == [f"{value['fid'][side]:.3f}" for side in ("generated", "training")]
        assert rows["KID x 1000"] == [f"{1000 * value['kid']['generated']['value']:.3f}"]
        assert rows["training pictures reached"] == ["1", "1"]
        assert "smoothness" not in table

    def test_writes_a_page_that_needs_no_other_file(self, generator, held_out_folder, tmp_path):
        lines = [{"step": 1, "d/real/8px": 0.25, "d/real/4px": 0.75, "d/r1": 3.0}]
        (generator.path / "metrics.jsonl").write_text(json.dumps(lines[0]))
        out = tmp_path / "page"
        words = ("evaluate", generator.path, "--images", held_out_folder, "--out", out)
        result = run(*words, "--json")
        assert str(out / "index.html") in result.stderr
        value = json.loads(result.stdout)
        assert json.loads((out / "quality.json").read_text()) == value
        html = (out / "index.html").read_text()
        sources = re.findall(r'(?:src|href)="([^"]*)"', html)
        assert len(sources) == 12 + 1 + 2 * 9  # samples, training picture, strips
        assert all(source.startswith("data:image/png") for source in sources)
        assert f">{value['fid']['generated']:.1f}<" in html
        assert "too few training pictures" in html  # one
        assert "seeds 2 to 3" in html
        rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in html.split("<tr>")]
        assert ["d/real", "0.250", "0.750", "–"] in rows
        assert ["d/r1", "–", "–", "3.000"] in rows
        before = (out / "index.html").read_bytes()
        assert "--overwrite" in run(*words, code=2).stderr
        assert run(*words, "--overwrite").stdout.endswith(f"{out / 'index.html'}\n")
        assert (out / "index.html").read_bytes() == before

    def test_training_pictures_are_read_once_and_refused_before_any_is_drawn(
        self, generator, held_out_folder, monkeypatch
    ):
        words = ("evaluate", generator.path, "--images", held_out_folder)
        reads, read = [], picture_quality.kept_pairs
        monkeypatch.setattr(
            picture_quality, "kept_pairs", lambda *given: reads.append(1) or read(*given)
        )
        run(*words)
        assert reads == [1]
        Image.fromarray(generator.pairs[0].image).save(held_out_folder / "seen.png")
        monkeypatch.setattr(picture_quality, "draw_pictures", pytest.fail)
        assert "was fitted to 1 of the 9 held-out pictures, seen first" in self.refused(*words[1:])

    def refused(self, *words):
        result = run("evaluate", *words, code=2)
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
        return result.stderr

    def test_options_without_effect_are_refused(
        self, generator, held_out_folder, pair_files, make_fit_folder, tmp_path
    ):
        held, out = ("--images", held_out_folder), ("--out", tmp_path / "page")
        assert "with --images alone" in self.refused(generator.path, *held, "--ignore", 3)
        assert "omit --no-agreement" in self.refused(generator.path, *held, "--no-agreement")
        assert "is a generator: draw a bank" in self.refused(generator.path)
        inside = ("--out", generator.path, "--overwrite")
        assert "which is read" in self.refused(generator.path, *held, *inside)
        run("generate", make_fit_folder(name="other"), "-n", 2, "--out", tmp_path / "bank")
        assert len(Bank(tmp_path / "bank")) == 2
        for words in (out, ("--truncation", 0.5)):
            said = self.refused(tmp_path / "bank", *words)
            assert "--out, --overwrite and --truncation are for pictures" in said
        truncated = ("--truncation", 0.5)
        assert "knows no truncation" in self.refused(generator.path, *held, *truncated)
        run("fit", *pair_files, "--preset", "compose", "--out", tmp_path / "composed")
        assert "has no latents" in self.refused(tmp_path / "composed", *held)
        assert not (tmp_path / "page").exists()
