"""What painters are worth: one that knows the held-out pictures, and one that paints noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from synthaug import files
from synthaug.cli import app
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.evaluation.painting_quality import evaluate_painter, train_judge
from synthaug.fitting import fit
from synthaug.generation import MapGenerator, load_generator
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream

SIZE = (48, 64)
CLASSES = ClassMap((0, 3, 7))
COLOURS = {0: (40, 120, 200), 3: (60, 60, 70), 7: (210, 50, 40)}


def scenes(count: int, seed: int) -> list[Sample]:
    """Sky over a road with a rare box, each class of its own colour with some grain."""
    found = []
    for number in range(count):
        stream = numpy_stream(number, "scene", seed)
        mask = np.zeros(SIZE, np.uint8)
        mask[int(stream.integers(12, 30)) :] = 3
        top, left = int(stream.integers(10, 30)), int(stream.integers(0, 44))
        mask[top : top + 12, left : left + 16] = 7
        image = np.zeros((*SIZE, 3))
        for value, colour in COLOURS.items():
            image[mask == value] = colour
        image = image + stream.normal(0, 6, image.shape)
        mask[:3] = 255
        found.append(Sample(image.clip(0, 255).astype(np.uint8), mask, f"{seed}-{number}"))
    return found


class Painter(MapGenerator):
    """Paints by a function of mask and seed, without any network."""

    def __init__(self, render, pairs) -> None:
        self.path, self.pairs, self.classes = Path("painter"), pairs, CLASSES
        self.manifest = {}
        self.render = render


HELD_OUT = scenes(8, 1)
TRAINING = scenes(9, 0)


def remembered(mask, seed):
    return next(s.image for s in HELD_OUT if np.array_equal(s.mask, mask))


def noise(mask, seed):
    return numpy_stream(seed, "picture").integers(0, 256, (*mask.shape, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def judge():
    return train_judge(TRAINING, CLASSES, steps=40, batch_size=4)


@pytest.fixture(scope="module")
def figures(judge):
    """Figures of both painters."""
    return {
        render.__name__: evaluate_painter(
            Painter(render, TRAINING), HELD_OUT, segmenter=judge, noises=3, diversity_maps=2
        )
        for render in (remembered, noise)
    }


def test_the_held_out_pictures_themselves_are_perfect(figures):
    value = figures["remembered"]
    assert json.loads(json.dumps(value)) == value
    assert value["fid"]["painted"] == pytest.approx(0, abs=1e-3)
    assert value["colour"]["painted"] == value["texture"]["painted"] == 0
    assert value["miou"]["painted"] == value["miou"]["real"] > 0.6
    assert value["diversity"]["ms_ssim"] == pytest.approx(1, abs=1e-4)
    assert value["diversity"]["perceptual"] == pytest.approx(0, abs=1e-4)
    assert (value["diversity"]["maps"], value["diversity"]["noises"]) == (2, 3)


def test_noise_is_worse_than_training_pictures_in_everything_but_diversity(figures):
    value = figures["noise"]
    for kind in ("fid", "colour", "texture"):
        assert value[kind]["painted"] > 2 * value[kind]["training"] > 0
    kid = value["kid"]
    assert kid["painted"]["value"] > 10 * kid["painted"]["error"] > 0
    assert abs(kid["training"]["value"]) < kid["painted"]["value"] / 10
    assert value["miou"]["painted"] < 0.4
    assert value["miou"]["real"] == figures["remembered"]["miou"]["real"]
    assert value["diversity"]["ms_ssim"] < 0.2
    assert value["diversity"]["perceptual"] > 0.01


def test_classes_are_reported_by_id_and_by_frequency(figures):
    value = figures["remembered"]["miou"]
    assert set(value["iou"]["painted"]) == {"0", "3", "7"}
    ids = [i for group in value["groups"] for i in group["ids"]]
    assert ids == [3, 0, 7]
    assert sum(group["share"] for group in value["groups"]) == pytest.approx(1)
    means = [group["real"] for group in value["groups"]]
    weights = [len(group["ids"]) for group in value["groups"]]
    assert np.average(means, weights=weights) == pytest.approx(value["real"])
    assert set(figures["noise"]["colour"]["per_class"]) == {"0", "3", "7"}


def test_the_same_seed_gives_the_same_figures(judge, figures):
    again = evaluate_painter(
        Painter(noise, TRAINING), HELD_OUT, segmenter=judge, noises=3, diversity_maps=2
    )
    for kind in ("fid", "kid", "miou", "diversity", "colour", "texture"):
        assert again[kind] == figures["noise"][kind]


def test_unusable_pictures_are_refused():
    painter = Painter(noise, TRAINING)
    with pytest.raises(InputError, match="3 held-out pictures against 9"):
        evaluate_painter(painter, HELD_OUT[:3])
    with pytest.raises(InputError, match="fitted to 2 of the 10 held-out pictures, 0-3 first"):
        evaluate_painter(painter, [*HELD_OUT, TRAINING[3], TRAINING[5]])
    resized = Painter(noise, TRAINING)
    resized.manifest = {"learned_from": [files.sha256_bytes(HELD_OUT[2].image.tobytes())]}
    with pytest.raises(InputError, match="fitted to 1 of the 8 held-out pictures, 1-2 first"):
        evaluate_painter(resized, HELD_OUT)
    strange = Sample(HELD_OUT[0].image, np.full(SIZE, 11, np.uint8), "strange")
    with pytest.raises(InputError, match=r"mask strange holds ids \[11\] .* --ignore"):
        evaluate_painter(painter, [*HELD_OUT, strange])
    empty = Sample(HELD_OUT[0].image, np.full(SIZE, 255, np.uint8), "empty")
    with pytest.raises(InputError, match="mask empty has no labelled pixel"):
        evaluate_painter(painter, [*HELD_OUT, empty])


class TestCommand:
    @pytest.fixture(scope="class")
    def folders(self, tmp_path_factory):
        """A painter fitted for two steps, and folders of held-out pairs with a void id 11."""
        root = tmp_path_factory.mktemp("painter")
        for name, pairs in (("train", TRAINING), ("val", HELD_OUT)):
            for pair in pairs:
                for kind in ("images", "masks"):
                    (root / name / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pair.image).save(root / name / "images" / f"{pair.id}.png")
                mask = np.where(pair.mask == 255, np.uint8(11), pair.mask)
                Image.fromarray(mask).save(root / name / "masks" / f"{pair.id}.png")
        config = FitConfig(
            generator="oasis",
            preset="fast",
            iterations=2,
            batch_size=2,
            max_size=32,
            ignore=(11,),
            accelerator="cpu",
        )
        train = {kind: root / "train" / kind for kind in ("images", "masks")}
        fit(out=root / "fitted", config=config, echo=lambda line: None, **train)
        return root

    def run(self, *words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in ("evaluate", *words)])
        assert result.exit_code == code, result.output
        return result

    def test_prints_a_table_or_json(self, folders, monkeypatch):
        import synthaug.evaluation.painting_quality as room

        def short(painter, samples, **settings):
            assert settings.pop("segmenter_steps") == 0
            return evaluate_painter(
                painter, samples, segmenter_steps=2, noises=2, diversity_maps=1, **settings
            )

        monkeypatch.setattr(room, "evaluate_painter", short)
        held = ("--images", folders / "val" / "images", "--masks", folders / "val" / "masks")
        words = (folders / "fitted", *held, "--no-agreement", "--network", "efficientnet_lite0")
        text = self.run(*words).stdout
        for name in ("FID", "KID", "mIoU", "colour", "texture", "MS-SSIM", "perceptual"):
            assert name in text
        assert "8 held-out pictures, FID and KID by efficientnet_lite0" in text
        value = json.loads(self.run(*words, "--json").stdout)
        assert value["miou"]["groups"][0]["ids"] == [3, 0]
        rows = {line[:36].strip(): line[36:].split() for line in text.splitlines()[1:]}
        assert rows[""] == ["painted", "real"]
        fids = [f"{value['fid'][side]:.3f}" for side in ("painted", "training")]
        assert rows["FID (real: training pictures)"] == fids

    def test_the_painter_of_a_folder_is_measured(self, folders):
        value = evaluate_painter(
            load_generator(folders / "fitted"),
            HELD_OUT,
            segmenter_steps=0,
            noises=2,
            diversity_maps=1,
        )
        assert value["miou"] is None
        assert value["fid"]["painted"] > value["fid"]["training"]
        assert value["seconds_per_picture"] > 0

    def refused(self, *words):
        result = self.run(*words, code=2)
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
        return result.stderr

    def test_missing_folders_are_said_in_one_line(self, folders):
        painter, val = folders / "fitted", folders / "val"
        assert "is a generator: draw a bank" in self.refused(painter)
        for words in (("--images", val / "images"), ("--masks", val), ("--ignore", 11)):
            assert "give both --images and --masks" in self.refused(painter, *words)
        held = ("--images", val / "images", "--masks", folders / "no")
        assert "no folder of masks" in self.refused(painter, *held)

    def test_other_generators_are_said_in_one_line(self, folders, make_fit_folder):
        held = ("--images", folders / "val" / "images", "--masks", folders / "val" / "masks")
        assert "does not paint masks" in self.refused(make_fit_folder(), *held)
