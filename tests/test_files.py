from __future__ import annotations

import errno
import hashlib
from contextlib import nullcontext
from pathlib import Path

import pytest

from synthaug import files
from synthaug.errors import InputError


def test_hashes_agree(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    assert files.sha256_file(path) == files.sha256_bytes(b"abc")
    assert files.sha256_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_json_round_trip_creates_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    files.write_json(path, {"x": [1, None]})
    assert files.read_json(path, "test file") == {"x": [1, None]}
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_full_disk_keeps_the_old_file(tmp_path, full_disk):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(InputError, match=r"metrics.json: No space left on device; free"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_failed_rename_leaves_no_temporary_file(tmp_path, monkeypatch):
    def replace(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(InputError, match="No space left"):
        files.write_bytes(tmp_path / "x.bin", b"1")
    assert list(tmp_path.iterdir()) == []


def test_read_json_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"no bank manifest at .*m.json"):
        files.read_json(tmp_path / "m.json", "bank manifest")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(InputError, match=r"damaged bank manifest .*m.json"):
        files.read_json(tmp_path / "m.json", "bank manifest")


def test_new_directory_appears_whole(tmp_path):
    with files.new_directory(tmp_path / "out") as staging:
        (staging / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "1"


@pytest.mark.parametrize(
    ("error", "seen"),
    [(KeyError("x"), KeyError), (OSError(errno.ENOSPC, "No space left on device"), InputError)],
)
def test_new_directory_vanishes_on_any_error(tmp_path, error, seen):
    def fill():
        with files.new_directory(tmp_path / "out") as staging:
            (staging / "a").write_text("1")
            raise error

    with pytest.raises(seen):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_new_directory_respects_what_is_there(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with files.new_directory(out) as staging:
        files.write_json(staging / "manifest.json", {"format": "synthaug-bank-1"})
    with pytest.raises(InputError, match="not empty"), files.new_directory(out):
        pytest.fail("the folder is in use")
    with files.new_directory(out, overwrite=True) as staging:
        (staging / "b").write_text("2")
    assert [p.name for p in out.iterdir()] == ["b"]
    with (
        pytest.raises(InputError, match="is a file"),
        files.new_directory(out / "b", overwrite=True),
    ):
        pytest.fail("a file stands there")


def test_files_follow_the_umask_and_comparisons_are_never_replaced(tmp_path):
    files.write_text(tmp_path / "a" / "manifest.json", '{"format": "synthaug-comparison-1"}')
    mode = (tmp_path / "a" / "manifest.json").stat().st_mode
    assert mode & 0o777 == 0o666 & ~files.UMASK
    with pytest.raises(InputError, match="holds a comparison"):
        files.check_output_folder(tmp_path / "a", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_others_wrote_meanwhile_stays(tmp_path, overwrite):
    def fill():
        with files.new_directory(tmp_path / "out", overwrite=overwrite) as staging:
            (staging / "a").write_text("1")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis").write_text("2")

    with pytest.raises(InputError, match="did not write" if overwrite else "not empty"):
        fill()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "thesis"]


@pytest.mark.parametrize("manifest", [None, "{}", '{"manifest_version": 3}', "[]", "half a man"])
def test_overwrite_never_removes_a_strangers_folder(tmp_path, manifest):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_text("dear")
    if manifest is not None:
        (photos / "manifest.json").write_text(manifest)
    with (
        pytest.raises(InputError, match="did not write"),
        files.new_directory(photos, overwrite=True),
    ):
        pytest.fail("these are not ours to remove")
    assert (photos / "holiday.jpg").read_text() == "dear"


PAIRS = ("pairs/images/a.png", "pairs/masks/a.png")
BANK = (*PAIRS, "samples.jsonl", "images/00000.png", "masks/00000.png", "instances.json")
FIT = (*PAIRS, "metrics.jsonl", "checkpoint.pt", "snapshot-000002.safetensors", "samples/0.png")


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        ("bank", (*BANK, "mix.json")),
        ("generator", (*FIT, "checkpoint.pt.sha256", "discriminator-000002.safetensors")),
        ("generator", (*PAIRS, "parts.json", "objects/0.png", "backgrounds/images/0.png")),
        ("generator", ("snapshot.safetensors", "patches.json")),
        ("begun", (*PAIRS, "crops.npy", ".partial-x.safetensors", ".DS_Store")),
        ("weights", ("weights.safetensors",)),
        ("versions", ("version-000.png", "mask.png", "sheet.png")),
        ("masks", ("photo.png",)),
        ("picture-quality", ("index.html", "quality.json")),
        (
            "demo",
            ("index.html", "samples.png", "pair/coins.png", "bank/.partial-x/new/images/0.png"),
        ),
        ("demo", ("generator/manifest.json", "generator/checkpoint.pt", "bank/images/0.png")),
    ],
)
@pytest.mark.parametrize(
    "stranger", ["notes.txt", "comparison/manifest.json", "images/mine/0.png", "manifest.json.bak"]
)
def test_overwrite_takes_what_commands_write_and_no_stranger(tmp_path, kind, held, stranger):
    out, written = tmp_path / "out", f"synthaug-{kind}-1"
    files.write_json(out / "manifest.json", {"format": written})
    for name in held:
        files.write_text(out / name, "")
    (out / "empty").mkdir()
    files.check_output_folder(out, overwrite=True, becomes=written)
    files.write_text(out / stranger, "dear")
    with pytest.raises(InputError, match=f"holds {stranger}, which is no part of"):
        files.check_output_folder(out, overwrite=True, becomes=written)


@pytest.mark.parametrize(
    ("kind", "becomes", "line"),
    [
        ("generator", "bank", "holds a generator, and would become a bank"),
        ("bank", "generator", "holds a bank, and would become a generator"),
        ("weights", "generator", None),
        ("begun", "generator", None),
        ("versions", "masks", "holds painted pictures, and would become predicted masks"),
    ],
)
def test_an_output_replaces_its_own_kind(tmp_path, kind, becomes, line):
    out = tmp_path / "out"
    files.write_json(out / "manifest.json", {"format": f"synthaug-{kind}-1"})
    with pytest.raises(InputError, match=line) if line else nullcontext():
        files.check_output_folder(out, overwrite=True, becomes=f"synthaug-{becomes}-1")


def test_what_a_desktop_leaves_in_an_empty_folder_is_replaced(tmp_path):
    files.write_text(tmp_path / "out" / ".DS_Store", "")
    with files.new_directory(tmp_path / "out", overwrite=True):
        pass


@pytest.mark.parametrize("read", [".", "pairs", "pairs/images/a.png", "../link/pairs"])
def test_an_output_never_takes_the_place_of_what_it_is_made_from(tmp_path, read):
    out = tmp_path / "out"
    files.write_json(out / "manifest.json", {"format": "synthaug-generator-1"})
    files.write_text(out / "pairs" / "images" / "a.png", "")
    (tmp_path / "link").symlink_to(out)
    files.check_output_folder(out, overwrite=True, reads=[tmp_path, tmp_path / "other", None])
    with pytest.raises(InputError, match=r"which is read: choose another folder"):
        files.check_output_folder(out, overwrite=True, reads=[None, out / read])


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path):
    files.write_text(tmp_path / "photo.png", "")
    for below in ("photo.png", "photo.png/sub/bank"):
        with pytest.raises(InputError, match=r"photo\.png is a file: name a folder with --out"):
            files.check_output_folder(tmp_path / below, overwrite=False)


def test_clearing_keeps_a_link_and_what_links_lead_to(tmp_path):
    files.write_text(tmp_path / "mine" / "thesis.tex", "years of work")
    files.write_text(tmp_path / "disk" / "sub" / "a", "1")
    (tmp_path / "disk" / "mine").symlink_to(tmp_path / "mine")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    files.clear_directory(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "mine" / "thesis.tex").exists()
    files.clear_directory(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_mounted_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os.path, "ismount", lambda path: path == tmp_path / "disk")
    with (
        pytest.raises(InputError, match="is where a disk is mounted: name a folder in it"),
        files.new_directory(tmp_path / "disk"),
    ):
        pytest.fail("work was begun")


@pytest.mark.parametrize("name", [".", "..", "../here"])
def test_the_current_folder_is_refused(tmp_path, monkeypatch, name):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with (
        pytest.raises(InputError, match="is the current folder or holds it: name a new one"),
        files.new_directory(name, overwrite=True),
    ):
        pytest.fail("work was begun")
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_stop_between_the_two_renames_brings_the_old_folder_back(tmp_path, monkeypatch, error):
    target = tmp_path / "bank"
    with files.new_directory(target) as staging:
        files.write_json(staging / "manifest.json", {"format": "synthaug-bank-1"})
    rename = Path.rename

    def stopped(self, to):
        if self.name == "new":
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", stopped)
    raised = InputError if error is OSError else error
    with pytest.raises(raised), files.new_directory(target, overwrite=True) as staging:
        (staging / "manifest.json").write_text("new")
    assert "synthaug-bank-1" in (target / "manifest.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


@pytest.mark.parametrize("content", ["null", "[]", "{"])
def test_a_record_that_is_none_is_named(tmp_path, content):
    (tmp_path / "fit.json").write_text(content)
    with pytest.raises(InputError, match=r"damaged stage .*fit\.json.*delete this file alone"):
        files.read_record(tmp_path / "fit.json", "stage")


def test_a_folder_is_worked_on_by_one_process(tmp_path):
    out = tmp_path / "out"
    files.write_json(out / "manifest.json", {"format": "synthaug-bank-1"})
    with files.claimed(out):
        with pytest.raises(InputError, match="another process works on"), files.claimed(out):
            pass
        with (
            pytest.raises(InputError, match="another process works on"),
            files.new_directory(out, overwrite=True),
        ):
            pass
    with files.new_directory(out, overwrite=True):
        pass
    assert not any(out.iterdir())


def test_a_folder_is_written_by_one_process(tmp_path):
    out = tmp_path / "out"
    with files.new_directory(out) as staging:
        files.write_text(staging / "a", "1")
        with (
            pytest.raises(InputError, match=r"another process works on .*out: wait for it"),
            files.new_directory(out),
        ):
            pytest.fail("its work would be for nothing")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


@pytest.mark.parametrize("old", [False, True])
def test_what_a_killed_process_left_goes_and_what_it_moved_away_comes_back(tmp_path, old):
    out, kept = tmp_path / "out", {"out"}
    with files.new_directory(out) as staging:
        work = staging.parent
    for name in (work.name + "x", work.name.replace("out-", "out-b-"), ".partial-out-abcdefgh"):
        files.write_text(tmp_path / name / "new" / "a", "of others")
        kept.add(name)
    out.rmdir()
    files.write_text(work / "new" / "a", "")
    if old:
        files.write_json(work / "old" / "manifest.json", {"format": "synthaug-bank-1"})
        with pytest.raises(InputError, match="is not empty"), files.new_directory(out):
            pytest.fail("the old one is there again")
        assert (out / "manifest.json").is_file()
    else:
        with files.new_directory(out):
            pass
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_claimed_folder_is_made_and_goes_again_if_it_stays_empty(tmp_path):
    out = tmp_path / "sub" / "out"
    with files.claimed(out):
        assert out.is_dir()
        with pytest.raises(InputError, match="another process works on"), files.claimed(out):
            pass
        assert out.is_dir()
    assert not out.exists()
    with files.claimed(out):
        files.write_text(out / "a", "1")
    with files.claimed(out):
        files.clear_directory(out)
    assert out.is_dir()  # it was there before
    files.write_text(tmp_path / "file", "")
    with pytest.raises(InputError, match=r"cannot write .*choose another folder"):
        files.claimed(tmp_path / "file" / "out").__enter__()


def test_a_folder_that_went_before_it_was_locked_is_not_worked_on(tmp_path, monkeypatch):
    opened = files.os.open

    def late(path, *options):
        found = opened(path, *options)
        Path(path).rmdir()  # by the process that had it
        return found

    monkeypatch.setattr(files.os, "open", late)
    with pytest.raises(InputError, match="another process works on"), files.claimed(tmp_path / "a"):
        pytest.fail("its lock would be on nothing")
