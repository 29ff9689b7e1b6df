from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import torch
from states import same_sample

from synthaug import files
from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.filtering import filter_bank
from synthaug.generation import Generator, generate, load_generator, open_source
from synthaug.seeding import derive_seed, torch_stream


@pytest.fixture
def fitted(make_fit_folder):
    return make_fit_folder()


def test_opens_what_fit_wrote(fitted):
    generator = load_generator(fitted)
    assert generator.size == (40, 56)
    assert generator.classes.ids == (2, 7, 9)
    assert generator.hash == files.sha256_file(fitted / "snapshot.safetensors")
    assert [pair.id for pair in generator.pairs] == ["scene"]
    assert generator.pairs[0].mask[15, 10] == 7


def test_sample_has_the_pairs_size_and_ids(fitted):
    sample = load_generator(fitted).sample(3)
    assert sample.image.shape == (40, 56, 3)
    assert sample.image.dtype == np.uint8
    assert sample.mask.shape == (40, 56)
    assert set(np.unique(sample.mask)) <= {2, 7, 9}
    assert sample.image.std() > 5


def test_sample_does_not_depend_on_its_neighbours_or_on_history(fitted):
    generator = load_generator(fitted)
    alone = generator.sample(5)
    among = generator.samples([1, 2, 5, 8])
    assert same_sample(alone, among[2])
    assert not same_sample(alone, among[1])
    assert same_sample(alone, generator.samples([5, 5])[1])
    assert same_sample(alone, load_generator(fitted).sample(5))


def test_sampling_leaves_the_global_random_state_alone(fitted, tmp_path):
    before = torch.get_rng_state()
    load_generator(fitted).samples([1, 2, 3])
    assert torch.equal(before, torch.get_rng_state())
    filter_bank(generate(fitted, tmp_path / "bank", 3))
    assert torch.equal(before, torch.get_rng_state())


def test_sample_is_the_networks_output_resized(make_fit_folder):
    sample = load_generator(make_fit_folder()).sample(5)
    with torch.no_grad():
        z = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
        pair = make_fit_folder.network()(z)
    resize = torch.nn.functional.interpolate
    image = resize(pair.images[0], (40, 56), mode="bicubic")[0].permute(1, 2, 0).numpy()
    error = np.abs(((image + 1) * 127.5).clip(0, 255) - sample.image)
    assert error.max() <= 1
    ids = np.array([2, 7, 9])
    soft = ids[resize(pair.mask, (40, 56), mode="bilinear")[0].argmax(0).numpy()]
    hard = ids[resize(pair.mask, (40, 56))[0].argmax(0).numpy()]
    assert np.array_equal(sample.mask, soft)
    assert not np.array_equal(sample.mask, hard)


def test_grey_generator_gives_grey_pictures(make_fit_folder, tmp_path):
    from PIL import Image

    bank = generate(make_fit_folder(grey=True), tmp_path / "bank", n=2)
    assert (bank[0].image == bank[0].image[..., :1]).all()
    assert bank[0].grey
    assert Image.open(bank.path / "images" / "00000.png").mode == "L"


def test_grey_pairs_of_three_channels_give_grey_pictures_of_three(make_fit_folder):
    path = make_fit_folder(grey=True)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"grey": False}))
    generator = load_generator(path)
    for sample in [generator.sample(0), *generator.interpolate(0, 1, 2)]:
        assert not sample.grey
        assert (sample.image == sample.image[..., :1]).all()


def test_generator_without_masks_marks_every_pixel_as_unlabelled(make_fit_folder):
    sample = load_generator(make_fit_folder(masks=False)).sample(1)
    assert (sample.mask == 255).all()


@pytest.mark.parametrize("option", [{"filter": "sifid"}, {"coco": True}])
def test_filter_and_coco_need_masks(make_fit_folder, tmp_path, option):
    with pytest.raises(InputError, match="images without masks"):
        generate(make_fit_folder(masks=False), tmp_path / "bank", n=2, **option)
    assert not (tmp_path / "bank").exists()


def test_bank_lines_say_where_each_sample_comes_from(fitted, tmp_path):
    bank = generate(fitted, tmp_path / "bank", n=3, seed=4)
    generator = load_generator(fitted)
    record = generator.manifest["pairs"][0]
    expected_source = files.sha256_bytes((record["image_sha256"] + record["mask_sha256"]).encode())
    assert len(bank) == 3
    for index, line in enumerate(bank.records):
        assert line["latent_seed"] == derive_seed(4, "latent", index)
        assert line["generator_sha256"] == generator.hash
        assert line["source_sha256"] == expected_source
        assert same_sample(bank[index], generator.sample(line["latent_seed"]))
    assert bank.manifest["generator"]["sha256"] == generator.hash
    assert bank.manifest["config"]["n"] == 3
    assert bank.manifest["seed"] == 4
    assert {"synthaug", "torch", "python"} <= set(bank.manifest["versions"])
    assert same_sample(bank.pairs()[0], generator.pairs[0])


def test_latent_seed_is_the_named_stream():
    z = torch.randn(8, generator=torch_stream(4, "latent", 2))
    again = torch.randn(8, generator=torch.Generator().manual_seed(derive_seed(4, "latent", 2)))
    assert torch.equal(z, again)


def test_larger_bank_begins_with_the_smaller_one(fitted, tmp_path):
    small = generate(fitted, tmp_path / "small", n=2, seed=1)
    large = generate(fitted, tmp_path / "large", n=4, seed=1)
    other = generate(fitted, tmp_path / "other", n=2, seed=2)
    assert [r["image_sha256"] for r in small.records] == [
        r["image_sha256"] for r in large.records[:2]
    ]
    assert small.records[0]["image_sha256"] != other.records[0]["image_sha256"]


def test_progress_counts_every_sample(fitted, tmp_path):
    seen = []
    generate(fitted, tmp_path / "bank", n=3, progress=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_coco_on_request(fitted, tmp_path):
    bank = generate(load_generator(fitted), tmp_path / "bank", n=2, coco=True)
    value = json.loads((bank.path / "instances.json").read_text())
    assert [image["file_name"] for image in value["images"]] == [
        "images/00000.png",
        "images/00001.png",
    ]


def test_filter_is_part_of_the_bank(fitted, tmp_path, monkeypatch):
    asked = {}

    def drop_first(bank, *, drop, progress):
        asked["drop"] = drop
        assert not (tmp_path / "bank").exists()
        records = [{**r, "kept": i > 0} for i, r in enumerate(bank.all_records)]
        bank.rewrite(records, filter={"drop": drop})
        return Bank(bank.path)

    monkeypatch.setattr("synthaug.generation.drawing.filter_bank", drop_first)
    bank = generate(fitted, tmp_path / "bank", n=3, filter="sifid", drop=0.3, coco=True)
    assert asked == {"drop": 0.3}
    assert [r["id"] for r in bank.records] == ["00001", "00002"]
    assert len(json.loads((bank.path / "instances.json").read_text())["images"]) == 2


def test_failing_filter_leaves_no_bank(fitted, tmp_path, monkeypatch):
    def refuse(bank, **options):
        raise InputError("no such weights")

    monkeypatch.setattr("synthaug.generation.drawing.filter_bank", refuse)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(InputError, match="no such weights"):
        generate(fitted, tmp_path / "bank", n=2, filter="sifid")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n: Input should be greater than or equal to 1"),
        ({"n": 2, "drop": 1.0}, "drop: Input should be less than 1"),
        ({"n": 2, "filter": "fid"}, "filter: Input should be 'sifid'"),
        ({"n": 2, "accelerator": "tpu"}, "accelerator"),
    ],
)
def test_options_out_of_range_are_named(fitted, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        generate(fitted, tmp_path / "bank", **options)
    assert not (tmp_path / "bank").exists()


def test_output_in_use_is_refused_and_replaced_on_request(fitted, tmp_path):
    generate(fitted, tmp_path / "bank", n=2)
    with pytest.raises(InputError, match=r"not empty.*--overwrite"):
        generate(fitted, tmp_path / "bank", n=1)
    assert len(Bank(tmp_path / "bank")) == 2
    assert len(generate(fitted, tmp_path / "bank", n=1, overwrite=True)) == 1


def test_overwrite_never_removes_what_the_bank_is_made_from(fitted):
    for out in (fitted / ".", fitted / ".."):
        with pytest.raises(InputError, match=r"holds .*, which is read: choose another folder"):
            generate(fitted, out, n=1, overwrite=True)
    assert load_generator(fitted).hash


@pytest.mark.parametrize(
    "name", ["snapshot.safetensors", "pairs/images/scene.png", "pairs/masks/scene.png"]
)
def test_damaged_generator_file_is_named(fitted, name):
    path = fitted / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*damaged"):
        load_generator(fitted)
    path.unlink()
    with pytest.raises(InputError, match=f"{name}.*cannot be read"):
        load_generator(fitted)


def test_snapshot_of_other_networks_is_refused(fitted):
    from safetensors.torch import save_file

    save_file({"stem.weight": torch.zeros(1)}, fitted / "snapshot.safetensors")
    manifest = json.loads((fitted / "manifest.json").read_text())
    manifest["snapshot_sha256"] = files.sha256_file(fitted / "snapshot.safetensors")
    (fitted / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="does not fit this version") as caught:
        load_generator(fitted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gan", None),
        ("gan", []),
        ("config", None),
        ("pairs", None),
        ("pairs", [{"id": "scene"}]),
        ("size", [40]),
        ("grey", "no"),
        ("snapshot", None),
        ("snapshot_sha256", None),
        ("classes", None),
    ],
)
def test_damaged_generator_manifest_is_named(fitted, key, value):
    manifest = json.loads((fitted / "manifest.json").read_text())
    (fitted / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(InputError, match=rf"generator .*fitted has a damaged manifest \({key}\)"):
        load_generator(fitted)


def test_open_source_tells_banks_from_generators(fitted, tmp_path):
    generate(fitted, tmp_path / "bank", n=1)
    assert isinstance(open_source(fitted), Generator)
    assert isinstance(open_source(tmp_path / "bank"), Bank)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"format": "else"}')
    with pytest.raises(InputError, match="neither a bank nor a generator"):
        open_source(tmp_path / "other")
    with pytest.raises(InputError, match="is not a generator"):
        load_generator(tmp_path / "bank")
    with pytest.raises(InputError, match="no bank or generator manifest"):
        open_source(tmp_path / "nowhere")


def test_full_disk_leaves_nothing_behind(fitted, tmp_path, monkeypatch):
    written = []

    def fsync(handle):
        written.append(handle)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="No space left on device"):
        generate(fitted, tmp_path / "bank", n=4)
    assert len(written) > 3
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", None])
def test_a_seed_is_a_whole_number(fitted, seed):
    with pytest.raises(InputError, match=r"seed is .*: give a whole number from 0"):
        load_generator(fitted).sample(seed)
