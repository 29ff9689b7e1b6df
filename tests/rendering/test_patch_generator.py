from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from states import same_sample

from synthaug import files
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.generation import generate, load_generator, open_source
from synthaug.rendering import PatchGenerator
from synthaug.seeding import numpy_stream

SIZE = (64, 96)


def picture(seed=0):
    rng = numpy_stream(seed, "picture")
    image = rng.integers(60, 120, (*SIZE, 3), dtype=np.uint8)
    mask = np.full(SIZE, 2, np.uint8)
    image[20:44, 30:60, 0] += 120
    mask[20:44, 30:60] = 7
    return image, mask


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that fits pictures with the preset patch."""
    root = tmp_path_factory.mktemp("patch")

    def run(name="one", count=1, masks=True, grey=False, **options):
        out = root / name / "out"
        if (out / "manifest.json").exists() and not options:
            return out
        for index in range(count):
            image, mask = picture(index)
            for kind, array in (("images", image[..., 0] if grey else image), ("masks", mask)):
                (root / name / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / name / kind / f"{index}.png")
        return fit(
            images=root / name / "images",
            masks=root / name / "masks" if masks else None,
            out=out,
            config=FitConfig(preset="patch", seed=5),
            echo=lambda line: None,
            **options,
        )

    return run


def test_it_is_opened_like_a_generator(made):
    path = made()
    generator = load_generator(path)
    assert isinstance(generator, PatchGenerator)
    assert isinstance(open_source(path), PatchGenerator)
    assert generator.size == SIZE
    assert generator.classes.ids == (2, 7)
    assert generator.manifest["gan"] == {"name": "patch", "flip": True}
    assert generator.hash == files.sha256_file(path / "patches.json")
    assert list((path / "samples").iterdir())


def test_samples_are_pairs_that_differ_from_seed_to_seed(made):
    samples = load_generator(made()).samples(range(4))
    for sample in samples:
        assert sample.size == SIZE
        assert set(np.unique(sample.mask)) <= {2, 7}
    assert len({sample.mask.tobytes() for sample in samples}) == 4


def test_red_is_where_the_mask_says(made):
    for sample in load_generator(made()).samples(range(4)):
        red = sample.image[..., 0] > 150
        assert (red == (sample.mask == 7)).mean() > 0.97


def test_the_same_seed_gives_the_same_bits(made):
    generator = load_generator(made())
    alone = generator.sample(2**53 - 1)
    assert same_sample(alone, generator.samples([1, 2**53 - 1])[1])
    assert same_sample(alone, load_generator(made()).sample(2**53 - 1))
    assert alone.id == f"z{2**53 - 1}"


def test_several_pairs_grey_ones_and_pictures_alone(made):
    assert len(load_generator(made("several", 3)).pairs) == 3
    grey = load_generator(made("grey", grey=True)).sample(0)
    assert grey.grey
    assert (grey.image == grey.image[..., :1]).all()
    assert (load_generator(made("bare", masks=False)).sample(0).mask == 255).all()


def test_a_bank_can_be_drawn_and_filtered(made, tmp_path):
    bank = generate(made(), tmp_path / "bank", n=4, filter="sifid", drop=0.25)
    assert bank.manifest["generator"]["name"] == "patch"
    assert len(bank.all_records) == 4
    assert bank.manifest["filter"]["samples"] == 4


def test_a_damaged_folder_and_another_kind_are_refused(made):
    path = made("broken")
    (path / "patches.json").write_text("{}")
    with pytest.raises(InputError, match=r"patches\.json is damaged"):
        load_generator(path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["gan"]["name"] = "compose"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="holds no patch generator"):
        PatchGenerator(path)


def test_it_is_finished_in_one_go_and_not_written_over(made):
    path = made()
    before = files.sha256_file(path / "manifest.json")
    with pytest.raises(InputError, match="in one go"):
        fit(out=path, resume=True)
    with pytest.raises(InputError, match="is not empty"):
        made(overwrite=False)
    assert files.sha256_file(path / "manifest.json") == before
