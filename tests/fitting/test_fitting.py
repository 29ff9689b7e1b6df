from __future__ import annotations

import dataclasses
import json
import signal
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from PIL import Image
from states import same

from synthaug import files, gans
from synthaug.config import FitConfig
from synthaug.errors import InputError
from synthaug.fitting import fit, fitting
from synthaug.fitting.fit_folder import FitFolder
from synthaug.fitting.monitoring import Verdict
from synthaug.generation import load_generator

QUICK = FitConfig(
    preset="fast",
    iterations=6,
    batch_size=2,
    max_size=32,
    accelerator="cpu",
    precision="32-true",
    checkpoint_s=600,
)


def write_pair(folder, size=(48, 64), ids=(0, 1), grey=False, ignore=False, name="scene"):
    """Draw a gradient with a box; return the paths of image and mask."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 200 // height, columns * 200 // width, rows * 0 + 90], 2)
    mask = np.full(size, ids[0], np.uint8)
    box = np.s_[height // 4 : height // 2, width // 4 : width // 2]
    image[box], mask[box] = (230, 40, 20), ids[1]
    if ignore:
        mask[-4:] = 255
    image = image.astype(np.uint8)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    paths = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
    Image.fromarray(image[..., 0] if grey else image).save(paths[0])
    Image.fromarray(mask).save(paths[1])
    return paths


def quick(tmp_path, out="out", pair=None, **changes):
    options = {k: changes.pop(k) for k in ("progress", "echo", "resume") if k in changes}
    options.setdefault("echo", lambda line: None)
    config = dataclasses.replace(QUICK, **changes)
    pair = pair or write_pair(tmp_path)
    return fit(*pair, tmp_path / out, config=config, **options)


def snapshot(path):
    manifest = json.loads((path / "manifest.json").read_text())
    return (path / manifest["snapshot"]).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return quick(tmp_path_factory.mktemp("whole"))


def test_the_folder_holds_everything(whole):
    names = {path.name for path in whole.iterdir()}
    assert {"manifest.json", "checkpoint.pt", "metrics.jsonl", "pairs", "samples"} <= names
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["format"] == "synthaug-generator-1"
    assert manifest["size"] == [48, 64]
    assert manifest["classes"]["ids"] == [0, 1]
    assert FitConfig(**manifest["config"] | {"ignore": (), "names": (), "plugins": ()}) == QUICK
    assert manifest["snapshot_sha256"] == files.sha256_bytes(snapshot(whole))
    assert {"torch", "synthaug"} <= set(manifest["versions"])
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 6
    assert any("quality" in line and "diversity" in line for line in lines)
    assert any(name.startswith("d/") for line in lines for name in line)
    grid = Image.open(whole / "samples" / "000006.png")
    assert (grid.width % 64, grid.height % 48) == (0, 0)
    assert not [name for name in names if name.startswith(".partial")]


def test_the_generator_draws_pairs_of_the_training_size(whole):
    generator = load_generator(whole)
    one, two = generator.samples([1, 2])
    assert one.image.shape == (48, 64, 3)
    assert set(np.unique(one.mask)) <= {0, 1}
    assert not np.array_equal(one.image, two.image)


def test_the_seed_decides(whole, tmp_path):
    assert snapshot(quick(tmp_path, "again")) == snapshot(whole)
    assert snapshot(quick(tmp_path, "other", seed=1)) != snapshot(whole)


def test_an_interrupted_fit_resumes_bit_for_bit(whole, tmp_path):
    lines, steps = [], []

    def interrupt(progress):
        steps.append(progress.step)
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, progress=interrupt, echo=lines.append)
    assert signal.getsignal(signal.SIGINT) is before
    assert steps[-1] < 6
    assert "--resume" in lines[-1]
    assert str(tmp_path / "out") in lines[-1]
    load_generator(tmp_path / "out").sample(0)  # usable as it is
    torch.rand(3)
    resumed, later = [], []
    out = fit(out=tmp_path / "out", resume=True, echo=later.append, progress=resumed.append)
    assert [progress.step for progress in resumed] == list(range(steps[-1] + 1, 7))
    assert snapshot(out) == snapshot(whole)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in metrics if "seconds" in line]
    assert seconds == sorted(seconds)
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (out, whole)]
    assert same(*states)


def test_a_fit_begun_on_a_gpu_goes_on_without_one(tmp_path):
    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, progress=interrupt, echo=lambda line: None)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"] |= {"accelerator": "cuda", "devices": 1}
    path.write_text(json.dumps(manifest))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no cuda device here: use --accelerator cpu"):
            fit(out=path.parent, resume=True, echo=lambda line: None)
    place = FitConfig(accelerator="cpu", iterations=99)
    out = fit(out=path.parent, resume=True, config=place, echo=lambda line: None)
    manifest = json.loads(path.read_text())
    assert manifest["config"]["iterations"] == 6
    assert snapshot(out)


def test_the_best_snapshot_is_kept_over_a_resume_too(tmp_path, monkeypatch):
    seen = iter((0.5, 0.1, 0.9, 0.7, 0.8))  # of steps 2 to 6
    monkeypatch.setattr(
        "synthaug.fitting.monitoring.Monitor.judge", lambda *_: Verdict(1, 1, next(seen))
    )
    plan = fitting.make_plan
    monkeypatch.setattr(
        fitting, "make_plan", lambda *given: dataclasses.replace(plan(*given), watch_every=1)
    )
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, progress=lambda p: p.step == 4 and signal.raise_signal(signal.SIGINT))
    out = fit(out=tmp_path / "out", resume=True, echo=lambda line: None)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["snapshot_step"], manifest["chosen_by"]["score"]) == (3, 0.1)


def test_resuming_a_finished_fit_changes_nothing(whole):
    before = snapshot(whole), files.sha256_file(whole / "checkpoint.pt")
    fit(out=whole, resume=True, echo=lambda line: None)
    assert (snapshot(whole), files.sha256_file(whole / "checkpoint.pt")) == before


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = quick(tmp_path, iterations=1) / "checkpoint.pt"

    def resume():
        fit(out=path.parent, resume=True, echo=pytest.fail)

    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], data[:1000] + b"x" + data[1001:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"checkpoint .*checkpoint.pt is damaged"):
            resume()
    path.write_bytes(data)
    path.with_name("checkpoint.pt.sha256").unlink()
    with pytest.raises(InputError, match="checkpoint"):
        resume()
    path.unlink()
    with pytest.raises(InputError, match=r"no checkpoint at .*checkpoint.pt"):
        resume()


def test_a_checkpoint_outlives_two_kills_between_its_hash_and_itself(tmp_path, monkeypatch):
    folder = FitFolder(quick(tmp_path, iterations=1))
    state, write = folder.read_checkpoint(), files.write_bytes

    def killed(path, data):
        if path.name != "checkpoint.pt":
            write(path, data)

    monkeypatch.setattr(files, "write_bytes", killed)
    for step in (2, 3):
        folder.write_checkpoint({"step": step})
    assert folder.read_checkpoint().keys() == state.keys()


def test_an_error_before_anything_is_saved_leaves_nothing(tmp_path, monkeypatch):
    def fail(spec):
        raise InputError("no room for it")

    monkeypatch.setattr(gans, "build", fail)
    with pytest.raises(InputError, match="no room"):
        quick(tmp_path)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_the_first_checkpoint_cannot_be_written(tmp_path, monkeypatch):
    def full(path, state):
        raise InputError("cannot write checkpoint.pt: no space left")

    monkeypatch.setattr(FitFolder, "write_checkpoint", full)
    with pytest.raises(InputError, match="no space"):
        quick(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_fit_killed_before_its_first_save_can_be_begun_again(tmp_path):
    FitFolder(tmp_path / "out").create([], overwrite=False)  # the pairs; then it was killed
    with pytest.raises(InputError, match=r"before its first save: fit again, with --overwrite"):
        fit(out=tmp_path / "out", resume=True)
    pair, lines = write_pair(tmp_path), []
    with pytest.raises(InputError, match="add --overwrite"):
        fit(*pair, tmp_path / "out", config=QUICK)
    config = dataclasses.replace(QUICK, iterations=1)
    fit(*pair, tmp_path / "out", config=config, overwrite=True, echo=lines.append)
    load_generator(tmp_path / "out").sample(0)


def test_ctrl_c_in_the_last_step_is_heard(whole, tmp_path):
    def interrupt(progress):
        if progress.step == progress.total:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, progress=interrupt)
    assert snapshot(tmp_path / "out") == snapshot(whole)
    assert snapshot(fit(out=tmp_path / "out", resume=True, echo=lambda line: None))


def test_a_fit_keeps_the_preset_that_auto_stood_for(tmp_path):
    out = quick(tmp_path, preset="auto", iterations=1)
    assert json.loads((out / "manifest.json").read_text())["config"]["preset"] == "fast"


def test_objects_too_small_for_the_preset_are_refused_or_named(tmp_path):
    image, path = write_pair(tmp_path, size=(240, 320))
    mask = np.zeros((240, 320), np.uint8)
    mask[30:33, 40:43] = 1
    Image.fromarray(mask).save(path)
    with pytest.raises(InputError, match=r"at 32x32 px.*smaller than a pixel: use --preset comp"):
        quick(tmp_path, pair=(image, path))
    assert not (tmp_path / "out").exists()
    mask[100:180, 100:180] = 2
    Image.fromarray(mask).save(path)
    lines = []
    quick(tmp_path, pair=(image, path), iterations=1, echo=lines.append)
    assert "no pixel is left of class_1: --preset compose moves objects at full size" in lines[0]


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match="no generator manifest"):
        fit(out=tmp_path / "nowhere", resume=True)


def test_a_resumed_fit_takes_no_other_pictures(whole, tmp_path):
    with pytest.raises(InputError, match="has its pictures in"):
        fit(*write_pair(tmp_path), whole, resume=True)


def test_grey_pictures_give_grey_samples(tmp_path):
    generator = load_generator(quick(tmp_path, iterations=1, pair=write_pair(tmp_path, grey=True)))
    sample = generator.sample(0)
    assert generator.grey
    assert (sample.image == sample.image[..., :1]).all()


@pytest.mark.parametrize(
    ("size", "max_size"), [((32, 32), 32), ((40, 200), 160), ((61, 107), 64), ((200, 40), 160)]
)
def test_odd_sizes(tmp_path, size, max_size):
    out = quick(tmp_path, iterations=2, max_size=max_size, pair=write_pair(tmp_path, size))
    assert load_generator(out).sample(0).size == size


def test_ids_survive_and_ignored_pixels_are_no_class(tmp_path):
    pair = write_pair(tmp_path, ids=(3, 7), ignore=True)
    generator = load_generator(quick(tmp_path, iterations=2, pair=pair))
    assert generator.classes.ids == (3, 7)
    assert set(np.unique(generator.sample(0).mask)) == {3, 7}


def test_several_pairs_and_a_frame_without_labels(tmp_path):
    for name in ("b", "c"):
        write_pair(tmp_path, name=name)
    _, mask = write_pair(tmp_path, name="a")
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(mask)
    folders = {"images": tmp_path / "images", "masks": tmp_path / "masks"}
    config = dataclasses.replace(QUICK, iterations=2)
    steps = []
    out = fit(out=tmp_path / "out", config=config, echo=steps.append, **folders)
    generator = load_generator(out)
    assert [pair.id for pair in generator.pairs] == ["a", "b", "c"]
    assert generator.classes.ids == (0, 1)
    before = snapshot(out)
    assert snapshot(fit(out=out, resume=True, echo=steps.append)) == before


def test_pictures_of_two_sizes_are_refused(tmp_path):
    write_pair(tmp_path, name="a")
    write_pair(tmp_path, (50, 64), name="b")
    folders = {"images": tmp_path / "images", "masks": tmp_path / "masks"}
    with pytest.raises(InputError, match="image b is 64x50 px but a is 64x48: add --resize, or"):
        fit(out=tmp_path / "out", config=QUICK, **folders)
    assert not (tmp_path / "out").exists()


def resizing(folder, out, **options):
    folders = {"images": folder / "images", "masks": folder / "masks"}
    config = dataclasses.replace(QUICK, resize="crop")
    return fit(out=folder / out, config=config, **folders, **{"echo": lambda line: None} | options)


def test_pictures_of_several_sizes_are_resized_if_asked(tmp_path):
    write_pair(tmp_path, name="a")
    large, _ = write_pair(tmp_path, (90, 130), name="b")
    write_pair(tmp_path, name="c")
    lines = []
    out = resizing(tmp_path, "out", echo=lines.append)
    assert lines[0].startswith("1 of 3 images resized to 64x48 px; preset fast")
    generator = load_generator(out)
    assert [pair.size for pair in generator.pairs] == [(48, 64)] * 3
    assert set(np.unique(generator.pairs[1].mask)) == {0, 1}
    assert generator.sample(0).size == (48, 64)
    original = files.sha256_bytes(np.asarray(Image.open(large)).tobytes())
    assert generator.manifest["learned_from"] == [original]

    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        resizing(tmp_path, "again", progress=interrupt)
    again = fit(out=tmp_path / "again", resume=True, echo=lines.append)
    assert snapshot(again) == snapshot(out)
    assert load_generator(again).manifest["learned_from"] == [original]


def test_resizing_leaves_pictures_of_one_size_as_they_are(whole, tmp_path):
    pair = write_pair(tmp_path)
    out = resizing(tmp_path, "out")
    assert snapshot(out) == snapshot(whole)
    assert "learned_from" not in json.loads((out / "manifest.json").read_text())
    with pytest.raises(InputError, match="one image has one size: leave --resize out"):
        quick(tmp_path, "one", pair=pair, resize="crop")
    assert not (tmp_path / "one").exists()


def test_without_a_mask_pictures_alone_are_learned(tmp_path):
    image, _ = write_pair(tmp_path)
    out = quick(tmp_path, iterations=2, pair=(image, None))
    generator = load_generator(out)
    assert generator.classes.ids == ()
    assert (generator.sample(0).mask == 255).all()
    fit(out=out, resume=True, echo=lambda line: None)


def test_the_paper_preset(tmp_path):
    lines = []
    out = quick(tmp_path, preset="paper", iterations=2, max_size=64, echo=lines.append)
    assert load_generator(out).sample(0).size == (48, 64)
    assert lines[0].startswith("preset paper: as asked; ")
    assert lines[0].endswith(" 2 steps, 2 classes: ids 0, 1")


def test_the_paper_preset_goes_on_at_its_size(tmp_path):
    """Its manifest holds the picture's size, from which its rule makes another one."""
    options = {"preset": "paper", "iterations": 2, "max_size": 64}
    pair = write_pair(tmp_path, (61, 107))
    whole = quick(tmp_path, out="whole", pair=pair, **options)

    def interrupt(progress):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, pair=pair, progress=interrupt, **options)
    lines = []
    fit(out=tmp_path / "out", resume=True, echo=lines.append)
    assert lines[0].startswith("goes on; 64x32 px")
    assert snapshot(tmp_path / "out") == snapshot(whole)


def test_image_and_masks_of_two_kinds_are_refused(tmp_path):
    image, mask = write_pair(tmp_path)
    for given in ({"image": image, "masks": mask.parent}, {"images": image.parent, "mask": mask}):
        with pytest.raises(InputError, match="IMAGE goes with MASK, and --images with --masks"):
            fit(**given, out=tmp_path / "out", config=QUICK)


def test_sample_sheets_stay_small(tmp_path):
    large = np.zeros((600, 2048, 3), np.uint8), np.full((600, 2048), 1, np.uint8)
    FitFolder(tmp_path).write_grid([large] * 3, 7)
    assert Image.open(tmp_path / "samples" / "000007.png").size == (3 * 512, 2 * 150)


def test_arrays_and_plain_dicts_are_told_what_to_give_instead(tmp_path):
    with pytest.raises(InputError, match="image is a ndarray: give the path"):
        fit(np.zeros((64, 64, 3), np.uint8), None, tmp_path / "out")
    with pytest.raises(InputError, match="config is a dict"):
        fit(*write_pair(tmp_path), tmp_path / "out", config={"preset": "fast"})


def test_settings_made_in_python_are_checked_too(tmp_path):
    for change, words in (({"accelerator": "tpu"}, "accelerator"), ({"ignore": 255}, "ignore")):
        with pytest.raises(InputError, match=f"option {words}"):
            quick(tmp_path, **change)
    assert not (tmp_path / "out").exists()
    out = quick(tmp_path, seed=np.int64(4), iterations=1)
    assert json.loads((out / "manifest.json").read_text())["seed"] == 4
    assert np.array_equal(
        load_generator(out).sample(np.int64(3)).image, load_generator(out).sample(3).image
    )


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    for batch_size in (2, 3):
        with pytest.raises(InputError, match=rf"{batch_size} pairs.*2 devices.*use --batch-size 4"):
            quick(tmp_path, batch_size=batch_size, devices=2)
    assert not (tmp_path / "out").exists()


def test_two_processes_write_a_generator(tmp_path):
    steps = []
    out = quick(
        tmp_path, iterations=2, batch_size=4, devices=2, progress=lambda p: steps.append(p.step)
    )
    assert steps == [1, 2]
    assert load_generator(out).sample(0).size == (48, 64)


def test_a_full_folder_is_kept_unless_told_otherwise(whole, tmp_path):
    pair = write_pair(tmp_path)
    before = snapshot(whole)
    with pytest.raises(InputError, match="--overwrite"):
        fit(*pair, whole, config=QUICK)
    assert snapshot(whole) == before
    out = tmp_path / "out"
    for seed in (0, 1):
        config = dataclasses.replace(QUICK, iterations=1, seed=seed)
        fit(*pair, out, config=config, overwrite=True, echo=lambda line: None)
    assert load_generator(out).manifest["seed"] == 1


def test_an_output_may_be_a_link_to_a_folder(tmp_path):
    pair, config = write_pair(tmp_path), dataclasses.replace(QUICK, iterations=1)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for seed in (0, 1):
        given = dataclasses.replace(config, seed=seed)
        fit(*pair, tmp_path / "out", config=given, overwrite=True, echo=lambda line: None)
    assert (tmp_path / "out").is_symlink()
    assert load_generator(tmp_path / "disk").manifest["seed"] == 1


@pytest.mark.parametrize("place", ["folder.write_pair", "manifest_header"])
def test_nothing_is_left_of_a_fit_that_was_stopped_before_it_began(tmp_path, monkeypatch, place):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    room = "synthaug.fitting.fit_folder." if "." in place else "synthaug.fitting.fitting."
    pair = write_pair(tmp_path)
    monkeypatch.setattr(room + place, stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(*pair, tmp_path / "out", config=QUICK, echo=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished", [False, True])
def test_a_folder_that_another_fit_has_begun_meanwhile_is_left_alone(
    tmp_path, monkeypatch, finished
):
    plan, out = fitting.make_plan, tmp_path / "out"
    with ExitStack() as other:

        def late(*given):
            if not finished:
                other.enter_context(files.claimed(out))
            files.write_json(out / "manifest.json", {"format": "synthaug-begun-1"})
            return plan(*given)

        monkeypatch.setattr(fitting, "make_plan", late)
        words = "add --overwrite" if finished else "another process works on"
        with pytest.raises(InputError, match=words):
            quick(tmp_path)
        assert [path.name for path in out.iterdir()] == ["manifest.json"]


def test_overwrite_never_removes_what_fit_did_not_write(tmp_path):
    pair = write_pair(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="did not write"):
        fit(*pair, tmp_path / "thesis", config=QUICK, overwrite=True, echo=lambda line: None)
    assert (tmp_path / "thesis" / "thesis.tex").exists()
