from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from synthaug import files
from synthaug.bank import Bank, write_bank
from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample

CLASSES = ClassMap((0, 3), ("ground", "coin"))


def _sample(seed, name="scene"):
    rng = np.random.default_rng(seed)
    mask = np.zeros((36, 44), np.uint8)
    mask[5 : 10 + seed, 8:20] = 3
    return Sample(rng.integers(0, 256, (36, 44, 3), dtype=np.uint8), mask, name)


def _lines(bank):
    return [json.dumps(record) + "\n" for record in bank.all_records]


@pytest.fixture
def bank(tmp_path):
    samples = [(_sample(i), {"latent_seed": 100 + i}) for i in range(3)]
    return write_bank(tmp_path / "bank", samples, [_sample(9)], CLASSES, {"seed": 5})


def test_samples_read_back_unchanged(bank):
    assert len(bank) == 3
    for index, sample in enumerate(bank):
        assert np.array_equal(sample.image, _sample(index).image)
        assert np.array_equal(sample.mask, _sample(index).mask)
        assert sample.id == f"{index:05d}"
        assert not sample.grey
    assert bank.classes == CLASSES
    assert bank.manifest["seed"] == 5
    assert bank.records[1]["latent_seed"] == 101
    assert np.array_equal(bank.pairs()[0].mask, _sample(9).mask)


def test_dropped_samples_are_hidden_unless_asked_for(bank):
    records = [{**r, "kept": i != 1, "reasons": []} for i, r in enumerate(bank.all_records)]
    before = bank.content_hash
    bank.rewrite(records, filter={"rule": "test"})
    assert [r["id"] for r in bank.records] == ["00000", "00002"]
    again = Bank(bank.path)
    assert [s.id for s in again] == ["00000", "00002"]
    assert again.manifest["filter"] == {"rule": "test"}
    assert len(Bank(bank.path, include_dropped=True)) == 3
    assert again.content_hash != before


def test_the_current_folder_may_change(bank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened, expected = Bank("bank"), list(bank)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.array_equal(opened[1].image, expected[1].image)
    assert [pair.id for pair in opened.pairs()] == ["scene"]
    assert opened.content_hash == bank.content_hash
    opened.rewrite([{**r, "kept": r["id"] != "00000"} for r in opened.all_records])
    again = Bank(opened)
    assert [sample.id for sample in again] == ["00001", "00002"]
    (tmp_path / "bank" / "images" / "00002.png").unlink()
    with pytest.raises(InputError, match=r"^bank file bank/images/00002.png is missing"):
        opened[1]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_changed_or_missing_file_is_named(bank, kind):
    path = bank.path / kind / "00001.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert bank[0].id == "00000"
    with pytest.raises(InputError, match=f"{kind}/00001.png is damaged"):
        bank[1]
    path.unlink()
    with pytest.raises(InputError, match=f"{kind}/00001.png is missing"):
        bank[1]


def test_damaged_lines_and_manifest_are_named(bank):
    (bank.path / "samples.jsonl").write_text('{"id": ')
    with pytest.raises(InputError, match=r"samples.jsonl is damaged"):
        Bank(bank.path)
    (bank.path / "samples.jsonl").write_text("".join(_lines(bank)[:2]))
    with pytest.raises(InputError, match=r"samples.jsonl is damaged \(2 of 3 lines\)"):
        Bank(bank.path)
    for line in ('{"id": "00000"}', "[1, 2]"):
        (bank.path / "samples.jsonl").write_text("".join([*_lines(bank)[:2], line]))
        with pytest.raises(InputError, match=r"damaged \(line 3 names no image and mask\)"):
            Bank(bank.path)
    (bank.path / "samples.jsonl").unlink()
    with pytest.raises(InputError, match=r"samples.jsonl is missing"):
        Bank(bank.path)
    for classes in (None, [], {"ids": "x"}, {"ids": ["a"], "names": ["b"]}):
        manifest = {**bank.manifest, "classes": classes}
        (bank.path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=r"bank .* has a damaged manifest \(classes\)"):
            Bank(bank.path)
    (bank.path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"damaged bank manifest"):
        Bank(bank.path)
    for other in ({"format": "other"}, [1]):
        (bank.path / "manifest.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match="is not a bank"):
            Bank(bank.path)
    with pytest.raises(InputError, match=r"manifest.json is a file: name the folder of the bank"):
        Bank(bank.path / "manifest.json")


def test_lost_pairs_are_named(bank):
    shutil.rmtree(bank.path / "pairs")
    with pytest.raises(InputError, match=r"pairs/images is missing: generate the bank again"):
        Bank(bank.path).pairs()


def test_a_bank_that_does_not_count_its_lines_still_opens(bank):
    manifest = {key: value for key, value in bank.manifest.items() if key != "samples"}
    (bank.path / "manifest.json").write_text(json.dumps(manifest))
    assert len(Bank(bank.path)) == 3


def test_slices_are_lists_of_samples(bank):
    assert [sample.id for sample in bank[1:]] == ["00001", "00002"]
    assert bank[5:] == []


def test_verdicts_never_stand_beside_lines_of_others(bank, monkeypatch):
    bank.rewrite(bank.all_records, filter={"score_key": "a"})

    def full_disk(path, content):
        raise InputError("disk full")

    real = files.write_json
    written = []

    def second_fails(path, content):
        written.append(path)
        (full_disk if len(written) == 2 else real)(path, content)

    monkeypatch.setattr(files, "write_json", second_fails)
    with pytest.raises(InputError, match="disk full"):
        bank.rewrite(bank.all_records[:2], filter={"score_key": "b"})
    assert "filter" not in json.loads((bank.path / "manifest.json").read_text())


def test_fewer_lines_can_be_written(bank):
    bank.rewrite(bank.all_records[:2])
    assert len(Bank(bank.path)) == 2


def test_lines_are_in_order_and_bytes_the_same_whoever_writes_them(tmp_path, monkeypatch):
    written = []
    for writers in (1, 5):
        monkeypatch.setattr("synthaug.bank.WRITERS", writers)
        samples = ((_sample(i), {"latent_seed": i}) for i in range(17))
        made = write_bank(tmp_path / str(writers), samples, [_sample(9)], CLASSES, {})
        assert [r["latent_seed"] for r in made.records] == list(range(17))
        assert all(np.array_equal(s.image, _sample(i).image) for i, s in enumerate(made))
        written.append((made.path / "samples.jsonl").read_bytes())
    assert written[0] == written[1]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data):
        if path.name == "00004.png":
            raise InputError("no space")

    monkeypatch.setattr("synthaug.files.write_bytes", full)
    samples = ((_sample(i), {}) for i in range(30))
    with pytest.raises(InputError, match="no space"):
        write_bank(tmp_path / "bank", samples, [_sample(9)], CLASSES, {})
    assert list(tmp_path.iterdir()) == []


def test_failing_source_of_samples_leaves_nothing(tmp_path):
    def samples():
        yield _sample(0), {}
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        write_bank(tmp_path / "bank", samples(), [_sample(9)], CLASSES, {})
    assert list(tmp_path.iterdir()) == []
