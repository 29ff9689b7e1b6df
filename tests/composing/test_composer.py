from __future__ import annotations

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from states import same_sample

from synthaug import files
from synthaug.bank import write_bank
from synthaug.composing import Composer
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.generation import generate, load_generator, open_source
from synthaug.mixing.source import open_source_once
from synthaug.sample import ClassMap, Sample

SIZE = (64, 96)
GROUND, RED, BLUE = (60, 130, 80), (220, 40, 50), (40, 50, 220)
SEEDS = range(24)


def sample_of(*boxes, ground=GROUND):
    """Flat ground with a box (top, left, height, width, id, colour) per object."""
    image = np.full((*SIZE, 3), ground, np.uint8)
    mask = np.full(SIZE, 2, np.uint8)
    for top, left, height, width, class_id, colour in boxes:
        image[top : top + height, left : left + width] = colour
        mask[top : top + height, left : left + width] = class_id
    return Sample(image, mask)


ONE = sample_of((20, 30, 18, 24, 7, RED))


@pytest.fixture
def compose(tmp_path):
    """Return a function that fits pairs with the preset compose and opens the folder."""

    def run(*pairs, name="composed", masks=True, **options):
        for index, pair in enumerate(pairs):
            for kind, array in (("images", pair.image), ("masks", pair.mask)):
                (tmp_path / name / kind).mkdir(parents=True, exist_ok=True)
                grey = array[..., 0] if pair.grey and kind == "images" else array
                Image.fromarray(grey).save(tmp_path / name / kind / f"pair{index}.png")
        overwrite = options.pop("overwrite", False)
        out = tmp_path / name / "out"
        fit(
            images=tmp_path / name / "images",
            masks=tmp_path / name / "masks" if masks else None,
            out=out,
            config=FitConfig(**{"preset": "compose", **options}),
            overwrite=overwrite,
            echo=lambda line: None,
        )
        return load_generator(out)

    return run


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A folder of one pair, whose object goes anywhere, without copies."""
    root = tmp_path_factory.mktemp("one")
    Image.fromarray(ONE.image).save(root / "image.png")
    Image.fromarray(ONE.mask).save(root / "mask.png")
    config = FitConfig(preset="compose", shift="anywhere", copies=0)
    fit(root / "image.png", root / "mask.png", root / "out", config=config)
    return Composer(root / "out")


def centre(mask, class_id=7):
    rows, columns = np.nonzero(mask == class_id)
    return np.array([columns.mean(), rows.mean()])


def test_it_is_opened_like_a_generator(compose):
    composer = compose(ONE)
    assert isinstance(composer, Composer)
    assert isinstance(open_source(composer.path), Composer)
    assert composer.size == SIZE
    assert composer.classes.ids == (2, 7)
    assert same_sample(composer.pairs[0], ONE)
    assert composer.hash == files.sha256_file(composer.path / "parts.json")
    assert composer.manifest["gan"]["name"] == "compose"
    assert composer.manifest["config"]["preset"] == "compose"
    assert list((composer.path / "samples").iterdir())


def test_a_seed_gives_the_same_sample_whatever_was_drawn_before(one):
    composer = one
    alone = composer.sample(2**53 - 1)
    assert same_sample(alone, composer.samples([1, 2**53 - 1])[1])
    assert same_sample(alone, Composer(composer.path).sample(2**53 - 1))
    assert not same_sample(alone, composer.sample(1))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", None])
def test_a_seed_is_a_whole_number(one, seed):
    with pytest.raises(InputError, match=r"seed is .*: give a whole number"):
        one.sample(seed)


def test_the_object_is_where_the_mask_says_and_leaves_no_ghost(one):
    for sample in one.samples(SEEDS):
        assert sample.image.shape == (*SIZE, 3)
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        assert set(np.unique(sample.mask)) == {2, 7}
        red = sample.image[..., 0].astype(int) - sample.image[..., 1]
        inside = (sample.mask == 7).astype(np.uint8)
        assert red[cv2.erode(inside, np.ones((5, 5))) > 0].min() > 30
        assert red[cv2.dilate(inside, np.ones((7, 7))) == 0].max() < 0


def test_a_line_one_pixel_wide_stays_whole_and_as_the_mask_says(compose):
    pair = sample_of()
    for array, value in ((pair.image, RED), (pair.mask, 7)):
        cv2.line(array, (20, 20), (70, 41), value, 1)
    composer = compose(pair, copies=0)
    pieces, agreement = [], []
    for seed in SEEDS:
        sample = composer.sample(seed)
        shown, red = sample.mask == 7, sample.image[..., 0] - sample.image[..., 1].astype(int) > 60
        pieces.append(cv2.connectedComponents(shown.astype(np.uint8))[0] - 1)
        agreement.append((shown & red).sum() / (shown | red).sum())
    assert np.median(pieces) == 1
    assert np.median(agreement) > 0.7


def test_objects_move_and_change_size_and_colour(one):
    samples = one.samples(range(60))
    centres = np.array([centre(s.mask) for s in samples])
    areas = np.array([(s.mask == 7).sum() for s in samples]) / (18 * 24)
    assert centres.std(0).min() > 8
    assert 0.2 < areas.min() < 0.7
    assert 1.4 < areas.max() < 3.2
    colours = np.array([s.image[s.mask == 7].mean(0) for s in samples])
    assert colours.std(0).min() > 3
    grounds = np.array([s.image[s.mask == 2].mean(0) for s in samples])
    assert 3 < grounds.std(0).max() < 25


def test_small_objects_are_enlarged_the_more_the_smaller_they_are(compose):
    small = sample_of((30, 40, 8, 8, 7, RED))

    def sides(**options):
        composer = compose(small, copies=0, **options)
        return np.sqrt([(s.mask == 7).sum() / 64 for s in composer.samples(range(60))])

    wide = sides(name="wide")
    usual = sides(name="usual", enlarge=False)
    assert 2.8 < wide.max() < 4.2
    assert usual.max() < 1.8
    assert max(wide.min(), usual.min()) < 0.8
    many = sample_of(*((4 + 15 * (i // 6), 4 + 15 * (i % 6), 8, 8, 7, RED) for i in range(24)))
    areas = [(s.mask == 7).sum() for s in compose(many, name="many", copies=0).samples(range(8))]
    assert max(areas) < 24 * 64 * 1.6**2  # a quarter of the picture together: as before


def test_near_keeps_objects_near_their_place(compose, one):
    near = [
        centre(s.mask) for s in compose(ONE, name="near", shift="near", copies=0).samples(SEEDS)
    ]
    far = [centre(s.mask) for s in one.samples(SEEDS)]
    assert np.std(near, 0)[1] < 0.75 * np.std(far, 0)[1]


def test_half_of_the_samples_keep_objects_around_their_place(compose, one):
    far = np.array([centre(s.mask) for s in one.samples(range(80))])
    near = np.array(
        [centre(s.mask) for s in compose(ONE, name="near", shift="near").samples(range(80))]
    )
    both = np.array([centre(s.mask) for s in compose(ONE, name="both").samples(range(80))])
    assert np.std(near, 0)[1] < np.std(both, 0)[1] < np.std(far, 0)[1]
    low = np.quantile(far[:, 1], 0.9)  # farther than any stays near
    assert near[:, 1].max() < low < both[:, 1].max()


def test_copies_are_pasted_and_can_be_switched_off(compose, one):
    def most(composer):
        return max((s.mask == 7).sum() for s in composer.samples(range(60)))

    assert most(one) < most(compose(ONE, name="more", copies=4)) - 200


def test_an_object_that_is_alone_in_its_picture_stays_alone(compose, one):
    usual = compose(ONE, name="usual", shift="anywhere")
    for seed in range(20):
        assert np.array_equal(usual.sample(seed).image, one.sample(seed).image)
    two = sample_of((10, 10, 14, 14, 7, BLUE), (34, 40, 14, 14, 7, BLUE))
    count = {
        cv2.connectedComponents((s.mask == 7).astype(np.uint8))[0] - 1
        for s in compose(two, name="two").samples(range(40))
    }
    assert max(count) > 2


def test_what_is_pasted_later_covers_what_lies_below(compose):
    both = sample_of((10, 10, 26, 30, 7, RED), (36, 50, 26, 30, 9, BLUE))
    for sample in compose(both, shift="anywhere", copies=0).samples(SEEDS):
        for class_id, channel in ((7, 0), (9, 2)):
            shown = sample.image[sample.mask == class_id].astype(int)
            other = shown[:, 2 - channel]
            assert (shown[:, channel] > other).mean() > 0.95


def test_no_flip_mirrors_neither_object_nor_background(compose):
    pair = sample_of((20, 30, 18, 24, 7, RED))
    pair.image[:, :, 2] = np.linspace(20, 200, SIZE[1])[None]
    pair.image[20:38, 30:42, 0] = 120  # the left half of the object is darker

    def turned(composer):
        grounds, objects = [], []
        for sample in composer.samples(SEEDS):
            blue = np.where(sample.mask == 2, sample.image[..., 2], np.nan)
            grounds.append(np.nanmean(blue[:, -8:]) < np.nanmean(blue[:, :8]))
            columns = np.nonzero(sample.mask == 7)[1]
            left = (sample.mask == 7) & (np.arange(SIZE[1]) < np.median(columns) - 2)
            right = (sample.mask == 7) & (np.arange(SIZE[1]) > np.median(columns) + 2)
            red = sample.image[..., 0]
            objects.append(red[left].mean() > red[right].mean())
        return np.mean(grounds), np.mean(objects)

    assert turned(compose(pair, name="fixed", flip=False, copies=0)) == (0, 0)
    grounds, objects = turned(compose(pair, name="free", copies=0))
    assert 0.2 < grounds < 0.8
    assert 0.2 < objects < 0.8


def test_a_side_that_the_frame_cut_stays_at_the_frame(compose):
    pair = sample_of((44, 30, 20, 24, 7, RED))
    for sample in compose(pair, copies=0).samples(SEEDS):
        assert (sample.mask[-1] == 7).sum() >= 0.5 * (sample.mask == 7).any(0).sum()


def test_ignored_pixels_stay_ignored_unless_covered(compose):
    pair = sample_of((20, 30, 18, 24, 7, RED))
    pair.mask[:, :10] = 255
    composer = compose(pair, copies=0, flip=False)
    shares = [(s.mask == 255).mean() for s in composer.samples(SEEDS)]
    assert max(shares) > 0.08
    assert composer.classes.ids == (2, 7)
    for sample in composer.samples(SEEDS):
        columns = np.nonzero((sample.mask == 255).any(0))[0]
        assert len(columns) == 0 or columns.max() <= 13


def test_areas_that_do_not_move_stay_with_the_background(compose):
    road = sample_of((24, 0, 40, 96, 5, (90, 90, 95)), (40, 40, 10, 14, 7, RED))
    composer = compose(road)
    assert composer.manifest["gan"]["shift"] == "near"
    for sample in composer.samples(SEEDS):
        assert (sample.mask == 5).mean() > 0.3
        assert (sample.mask == 7).any()


def test_without_movable_objects_the_background_alone_varies(compose):
    samples = compose(sample_of((10, 10, 50, 70, 7, RED))).samples(SEEDS)
    assert all({2, 7} == set(np.unique(s.mask)) for s in samples)
    assert np.std([(s.mask == 7).mean() for s in samples]) > 0.01


def test_pictures_without_objects_stay_without_half_of_the_time(compose):
    composer = compose(ONE, sample_of(ground=(190, 180, 170)), copies=0)
    samples = composer.samples(range(60))
    dark = [s for s in samples if np.median(s.image) < 150]
    light = [s for s in samples if np.median(s.image) >= 150]
    assert all((s.mask == 7).any() for s in dark)
    assert 0.2 < np.mean([(s.mask == 7).any() for s in light]) < 0.8


def test_pairs_lend_each_other_their_objects(compose):
    other = sample_of((10, 10, 20, 20, 7, BLUE), ground=(190, 180, 170))
    kinds = set()
    for sample in compose(ONE, other, copies=0).samples(range(40)):
        inside = sample.image[sample.mask == 7].astype(int).mean(0)
        outside = sample.image[sample.mask == 2].astype(int).mean(0)
        kinds.add((inside[0] > inside[2], outside[0] > 120))
    assert len(kinds) == 4


def test_grey_pairs_give_grey_samples(compose):
    pair = Sample(np.repeat(ONE.image[..., :1], 3, 2), ONE.mask, grey=True)
    for sample in compose(pair).samples(range(6)):
        assert sample.grey
        assert (sample.image == sample.image[..., :1]).all()


def test_grey_pairs_of_three_channels_give_grey_samples_of_three(compose):
    pair = Sample(np.repeat(ONE.image[..., :1], 3, 2), ONE.mask)
    for sample in compose(pair).samples(range(6)):
        assert not sample.grey
        assert (sample.image == sample.image[..., :1]).all()


def bank_of(path, *samples, classes=(2, 7)):
    lines = [(sample, {}) for sample in samples]
    return write_bank(path, lines, [ONE], ClassMap(classes), {}).path


def test_generated_objects_and_backgrounds_are_taken_and_copied(compose, tmp_path):
    made = [sample_of((22, 40, 18, 24, 7, BLUE), ground=(180, 170, 60))] * 3
    bank = bank_of(tmp_path / "bank", *made)
    options = {"objects": str(bank), "copies": 0}

    def blues(composer):
        samples = composer.samples(range(40))
        objects = [s.image[s.mask == 7].mean(0) for s in samples]
        grounds = [s.image[s.mask == 2].mean(0) for s in samples]
        return np.mean([o[2] > o[0] for o in objects]), np.mean([g[0] > 120 for g in grounds])

    objects, grounds = blues(compose(ONE, name="half", **options))
    assert 0.25 < objects < 0.75
    assert grounds == 0
    assert blues(compose(ONE, name="none", generated_share=0.0, **options)) == (0, 0)
    everything = compose(ONE, name="all", generated_share=1.0, background_share=1.0, **options)
    before = everything.sample(3)
    for path in sorted(bank.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert blues(Composer(everything.path)) == (1, 1)
    assert same_sample(before, Composer(everything.path).sample(3))


def test_a_bank_that_does_not_fit_is_refused(compose, tmp_path):
    other = bank_of(tmp_path / "classes", ONE, classes=(2, 9))
    with pytest.raises(InputError, match="classes"):
        compose(ONE, objects=str(other))
    small = Sample(ONE.image[:40], ONE.mask[:40])
    with pytest.raises(InputError, match="96x40 px but the pairs have 96x64"):
        compose(ONE, objects=str(bank_of(tmp_path / "small", small)))
    with pytest.raises(InputError, match="no bank manifest"):
        compose(ONE, objects=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "fast", "objects": "bank"}, "goes with --preset compose"),
        ({"masks": False}, "give masks"),
        ({"background_share": 0.5}, "add --objects BANK"),
    ],
)
def test_options_that_do_not_fit_are_refused(compose, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        compose(ONE, **options)
    assert not (tmp_path / "composed" / "out").exists()


def test_the_folder_is_whole_or_not_there(compose, tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.fitting.untrained.write_parts", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compose(ONE)
    assert {p.name for p in (tmp_path / "composed").iterdir()} == {"images", "masks"}
    monkeypatch.undo()
    first = compose(ONE)
    with pytest.raises(InputError, match="--overwrite"):
        compose(ONE)
    assert compose(ONE, overwrite=True).hash == first.hash


def test_it_cannot_be_resumed(one):
    path = one.path
    with pytest.raises(InputError, match="finished in one go"):
        fit(out=path, resume=True)


@pytest.mark.parametrize(
    "name",
    [
        "parts.json",
        "objects/0000.png",
        "backgrounds/images/0000.png",
        "backgrounds/masks/0000.png",
        "pairs/images/image.png",
    ],
)
def test_damaged_files_are_named(one, tmp_path, name):
    shutil.copytree(one.path, tmp_path / "copy")
    path = tmp_path / "copy" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*damaged"):
        load_generator(tmp_path / "copy")
    path.unlink()
    with pytest.raises(InputError, match=f"{name}.*cannot be read"):
        load_generator(tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (r"gan\.flip", lambda manifest: manifest["gan"].pop("flip")),
        ("size", lambda manifest: manifest.update(size=[0, 0])),
    ],
)
def test_a_damaged_manifest_is_one_line(one, tmp_path, name, change):
    shutil.copytree(one.path, tmp_path / "copy")
    path = tmp_path / "copy" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"damaged manifest \({name}\)"):
        load_generator(tmp_path / "copy")


def test_a_bank_is_generated_from_it(one, tmp_path):
    composer = one
    bank = generate(composer.path, tmp_path / "bank", n=3, seed=1, coco=True)
    assert bank.manifest["generator"]["sha256"] == composer.hash
    assert bank.manifest["generator"]["name"] == "compose"
    for index, line in enumerate(bank.records):
        assert same_sample(bank[index], composer.sample(line["latent_seed"]))
    assert json.loads((bank.path / "instances.json").read_text())["annotations"]


def test_it_is_a_source_of_training_pairs_without_torch(one):
    path = str(one.path)
    source = open_source_once(path)
    choice = source.draw(lambda n: n - 1)
    assert same_sample(source.fetch(choice), Composer(path).sample(choice["latent_seed"]))
    code = (
        "import sys; from synthaug.mixing.source import Source\n"
        f"Source({path!r}).fetch({{'latent_seed': 1}}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
