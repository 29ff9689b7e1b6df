from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from synthaug import files
from synthaug.bank import Bank
from synthaug.config import (
    Arm,
    CompareConfig,
    DataConfig,
    FilterConfig,
    FitConfig,
    GenerateConfig,
    Recipe,
)
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.formats.splits import Unit
from synthaug.running import sources
from synthaug.running.recipes import (
    check_training,
    compare_units,
    needed_kinds,
    read_units,
    run_recipe,
    shortened,
)
from synthaug.sample import ClassMap, Sample

ARMS = ("standard", "standard+copy-paste", "standard+copy-paste+synthetic")


@pytest.fixture(scope="module")
def davis(write_videos, tmp_path_factory):
    """Write three tiny videos laid out as DAVIS."""
    root = tmp_path_factory.mktemp("data")
    write_videos(root, ("one", "two", "three"))
    return root


@pytest.fixture(scope="module")
def recipe(davis):
    return Recipe(
        data=DataConfig(root=str(davis), videos=("one", "two", "three")),
        compare=CompareConfig(arms=ARMS, segmenter="matching", jobs=2),
    )


@pytest.fixture
def lines():
    return []


def run(recipe, out, lines, **options):
    return run_recipe(recipe, out, smoke=True, echo=lines.append, **options)


@pytest.fixture(scope="module")
def told():
    """Lines and progress of the finished run."""
    return [], []


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory, told):
    """Run the recipe's smoke version once."""
    out = tmp_path_factory.mktemp("finished") / "out"
    lines, shown = told
    run(recipe, out, lines, reproduce="x.yaml --smoke", progress=lambda *now: shown.append(now))
    return out


@pytest.fixture
def again(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def test_smoke_run_makes_everything(finished):
    page = finished / "comparison" / "index.html"
    html = page.read_text("utf-8")
    assert "x.yaml --smoke" in html
    assert 'id="incomplete"' not in html
    assert 'id="samples"' in html
    result = json.loads((finished / "comparison" / "comparison.json").read_text())
    assert result["complete"]
    assert list(result["arms"]) == list(ARMS)
    assert list(result["units"]) == ["one", "two"]


def test_smoke_tests_and_whole_runs_leave_each_others_folders_alone(again, recipe, lines):
    with pytest.raises(InputError, match="holds a smoke test, which a whole run would make again"):
        run_recipe(recipe, again, echo=lines.append)
    (again / ".smoke").unlink()
    with pytest.raises(InputError, match="holds a whole run, which a smoke test would make again"):
        run(recipe, again, lines)
    assert lines == []


def test_a_damaged_later_frame_is_found_before_anything_is_fitted(
    recipe, tmp_path, write_videos, lines
):
    root, out = tmp_path / "data", tmp_path / "out"
    write_videos(root, ("one", "two"))
    last = root / "JPEGImages" / "two" / "00001.jpg"
    last.write_bytes(last.read_bytes()[:200])
    data = DataConfig(root=str(root), videos=("one", "two"))
    with pytest.raises(InputError, match=last.name):
        run(replace(recipe, data=data), out, lines)
    assert not (out / "units").exists()


def test_videos_are_fitted_side_by_side(finished, recipe, tmp_path, told):
    lines, shown = told
    for head in ("[1/2] one", "[2/2] two"):
        of_unit = [line.removeprefix(f"{head}: ") for line in lines if line.startswith(head)]
        assert [line for line in of_unit if line.endswith("...")] == [
            f"{stage} ..." for stage in ("compose", "generator", "bank", "filter")
        ]
        assert any("preset fast: " in line for line in of_unit)
    percents = [done for what, done, _ in shown if what == "percent of all fits"]
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        one = shortened(replace(recipe, data=replace(recipe.data, videos=("one",))))
        synthetic(one, tmp_path / "alone")
    finally:
        torch.set_num_threads(threads)
    for file in (
        "generator/snapshot-000002.safetensors",
        "bank/samples.jsonl",
        "bank/images/00000.png",
    ):
        beside = finished / "units" / "one" / file
        assert (tmp_path / "alone" / file).read_bytes() == beside.read_bytes()


def test_second_call_makes_nothing(recipe, again, lines):
    kept = [*(again / "units").rglob("*.json"), *(again / "comparison" / "runs").rglob("*.json")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert run(recipe, again, lines) == again / "comparison" / "index.html"
    assert [line for line in lines if "..." in line] == []
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_changed_stage_is_made_again_with_all_that_follows(recipe, again, lines):
    changed = replace(
        recipe,
        data=replace(recipe.data, videos=("one",)),
        generate=GenerateConfig(seed=5),
        compare=replace(recipe.compare, synthetic="compose"),
    )
    run(changed, again, lines)
    assert [line for line in lines if line.startswith("[1/1] one: ") and "kept" not in line] == [
        "[1/1] one: compose is there",
        "[1/1] one: generator is there",
        "[1/1] one: bank: what decides it has changed, made again",
        "[1/1] one: bank ...",
        "[1/1] one: filter: what decides it has changed, made again",
        "[1/1] one: filter ...",
        "[1/1] one: compose-generated ...",
        *[line for line in lines if "preset compose" in line],
    ]
    unit = again / "units" / "one"
    manifest = json.loads((unit / "compose-generated" / "manifest.json").read_text())
    assert manifest["config"]["objects"] == str(unit / "bank")


def test_a_bank_is_filtered_again_once_inception_is_there(recipe, again, monkeypatch):
    one = shortened(replace(recipe, data=replace(recipe.data, videos=("one",))))
    filter_bank, networks = sources.filter_bank, []

    def noted(bank, **rules):
        networks.append(rules["network"])
        return filter_bank(bank, **{**rules, "network": "efficientnet_lite0"})

    monkeypatch.setattr(sources, "filter_bank", noted)
    synthetic(one, again / "units" / "one")
    assert networks == []
    monkeypatch.setattr(sources, "inception_v3_path", lambda: "inception_v3.pth")
    for _ in range(2):
        synthetic(one, again / "units" / "one")
    assert networks == ["auto"]


def names_in(page):
    units = json.loads((page.parent / "manifest.json").read_text())["units"]
    return [unit["classes"]["names"] for unit in units]


def test_names_make_nothing_again(recipe, again, lines):
    named = replace(recipe, data=replace(recipe.data, names="ground,thing"))
    assert names_in(run(named, again, lines)) == [["ground", "thing"]] * 2
    assert [line for line in lines if "..." in line] == []


def test_names_of_the_fit_name_all_that_is_made(recipe, tmp_path, lines):
    one = replace(recipe.data, videos=("one",))
    named = replace(recipe, data=one, fit=FitConfig(names=("ground", "thing")))
    assert names_in(run(named, tmp_path / "out", lines)) == [["ground", "thing"]]
    for made in ("generator", "bank", "compose"):
        manifest = json.loads((tmp_path / "out/units/one" / made / "manifest.json").read_text())
        assert manifest["classes"]["names"] == ["ground", "thing"]


def test_interrupted_fit_goes_on_from_its_checkpoint(recipe, tmp_path, lines, monkeypatch):
    recipe = replace(recipe, data=replace(recipe.data, videos=("one",)))
    recipe = replace(recipe, compare=replace(recipe.compare, arms=("standard+synthetic",)))
    fit, resumed = sources.fit, []

    def interrupted(**options):
        fit(**options)
        raise KeyboardInterrupt

    def noted(**options):
        resumed.append(options["resume"])
        return fit(**options)

    monkeypatch.setattr(sources, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "out", lines)
    monkeypatch.setattr(sources, "fit", noted)
    run(recipe, tmp_path / "out", lines)
    assert resumed == [True]


def test_a_fit_does_not_go_on_from_one_of_another_recipe(again, recipe, monkeypatch):
    one = replace(recipe, data=replace(recipe.data, videos=("one",)))
    other = shortened(replace(one, fit=FitConfig(seed=7)))
    fit, unit = sources.fit, again / "units" / "one"

    def stopped(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        synthetic(other, unit)
    monkeypatch.setattr(sources, "fit", fit)
    synthetic(other, unit)
    assert json.loads((unit / "generator" / "manifest.json").read_text())["seed"] == 7


def test_dropped_samples_leave_the_coco_file(recipe, again):
    one = replace(recipe, data=replace(recipe.data, videos=("one",)))
    synthetic(shortened(replace(one, generate=GenerateConfig(coco=True))), again / "units/one")
    bank = Bank(again / "units/one/bank")
    assert len(bank) < len(bank.all_records)
    pictures = json.loads((bank.path / "instances.json").read_text())["images"]
    assert len(pictures) == len(bank)


def test_only_needed_stages_run(recipe, tmp_path, lines):
    recipe = replace(recipe, compare=replace(recipe.compare, arms=("none", "standard")))
    run(recipe, tmp_path / "out", lines)
    assert not (tmp_path / "out" / "units").exists()


@pytest.fixture
def stages_alone(monkeypatch):
    """Let fit and generate note what they are given and write their manifests alone."""
    calls = []

    def fit(*, out, **options):
        calls.append(("fit", options))
        files.write_json(out / "manifest.json", {})

    def generate(generator, out, n, seed, **options):
        calls.append(("generate", options))
        classes = ClassMap((0, 1)).as_dict()
        files.write_json(out / "manifest.json", {"format": "synthaug-bank-1", "classes": classes})
        files.write_text(out / "samples.jsonl", "")

    monkeypatch.setattr(sources, "fit", fit)
    monkeypatch.setattr(sources, "generate", generate)
    return calls


def synthetic(recipe, out):
    unit = read_units(recipe.data)[0]
    sources.UnitSources(out, unit, "", None, lambda line: None).synthetic(recipe)


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b""), lambda file: file.unlink()])
@pytest.mark.parametrize(
    ("stage", "file", "made"),
    [
        ("bank", "images/00000.png", ["bank", "filter"]),
        ("bank", "masks/00005.png", ["bank", "filter"]),
        ("compose", "parts.json", ["compose"]),
    ],
)
def test_damaged_sources_are_made_again(recipe, again, lines, damage, stage, file, made):
    one = shortened(replace(recipe, data=replace(recipe.data, videos=("one",))))
    unit, before = again / "units" / "one", (again / "units/one" / stage / file).read_bytes()
    damage(unit / stage / file)
    stages = sources.UnitSources(unit, read_units(one.data)[0], "one", None, lines.append)
    stages.composed(one.fit)
    stages.synthetic(one)
    assert [line for line in lines if "..." in line] == [f"one: {name} ..." for name in made]
    assert len([line for line in lines if f"/{file}" in line]) == 1
    assert (unit / stage / file).read_bytes() == before


def test_a_damaged_generator_that_is_needed_says_what_to_delete(recipe, again):
    one = shortened(replace(recipe, data=replace(recipe.data, videos=("one",))))
    unit = again / "units" / "one"
    next((unit / "generator").glob("snapshot-*")).write_bytes(b"")
    synthetic(one, unit)  # the bank is there
    shutil.rmtree(unit / "bank")
    with pytest.raises(InputError, match=rf"damaged .*: delete {unit}/generator, the same command"):
        synthetic(one, unit)


def test_changed_layouts_and_names_of_rare_classes_make_a_new_bank(recipe, tmp_path, stages_alone):
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "a.png").write_bytes(b"1")
    drawing = GenerateConfig(layouts=str(maps), rare=("dog",), coco=True)
    recipe = replace(recipe, generate=drawing, filter=replace(recipe.filter, rule=None))
    named = [
        replace(recipe, data=replace(recipe.data, names=("0=ground", f"1={name}")))
        for name in ("dog", "cat")
    ]
    for _ in range(2):
        synthetic(named[0], tmp_path / "unit")
    assert [what for what, _ in stages_alone] == ["fit", "generate"]
    options = stages_alone[1][1]
    assert (options["rare"], options["coco"], options["layouts"]) == (("1",), True, str(maps))
    (maps / "a.png").write_bytes(b"2")
    synthetic(named[0], tmp_path / "unit")
    assert [what for what, _ in stages_alone] == ["fit", "generate", "generate"]
    with pytest.raises(InputError, match="dog"):
        synthetic(named[1], tmp_path / "unit")


def test_another_vgg_network_makes_another_fit(recipe, tmp_path, stages_alone):
    weights, unit = tmp_path / "vgg19.pth", tmp_path / "unit"
    recipe = replace(recipe, filter=replace(recipe.filter, rule=None))
    pulled = replace(recipe, fit=FitConfig(generator="oasis", vgg=str(weights)))
    for content in (b"one", b"one", b"another", b"another"):
        weights.write_bytes(content)
        synthetic(pulled, unit)
    assert [what for what, _ in stages_alone] == ["fit", "generate"] * 2
    assert stages_alone[0][1]["config"].vgg == str(weights)
    synthetic(recipe, unit)
    settings = json.loads((unit / "generator.json").read_text())["settings"]
    assert not [name for name in settings if "vgg" in name]  # earlier fits stay valid


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"segmenter": "yolo"}, "unknown segmenter 'yolo'"),
        ({"segmenter": "nowhere:net"}, "cannot import 'nowhere'"),
        ({"segmenter": "osvos", "parent": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"baseline": "salt"}, "unknown arm 'salt'"),
        ({"segmenter": "matching", "arms": ("standard-2x",)}, "matching trains no network"),
        ({"segmenter": "matching", "encoder": "resnet18"}, "matching has no use for encoder"),
    ],
)
def test_what_the_comparison_refuses_is_refused_before_the_fit(
    recipe, tmp_path, lines, stages_alone, option, words
):
    wrong = replace(recipe, compare=replace(recipe.compare, **option))
    with pytest.raises(InputError, match=words):
        check_training(wrong)
    with pytest.raises(InputError, match=words):
        run(wrong, tmp_path / "out", lines)
    assert not stages_alone
    assert not (tmp_path / "out").exists()


def test_a_recipe_filters_by_its_own_stage(recipe, tmp_path, stages_alone):
    with pytest.raises(InputError, match=r"generate.filter is for generate alone"):
        synthetic(replace(recipe, generate=GenerateConfig(filter="sifid")), tmp_path / "unit")
    assert not stages_alone


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"truncation": 0.7}, "truncation is stylegan2's"),
        ({"labelmix": 0.5}, "labelmix is oasis'"),
        ({"keep": ("dog",)}, "keep is oasis'"),
    ],
)
def test_what_the_generator_cannot_do_is_refused_before_the_fit(
    recipe, tmp_path, stages_alone, option, words
):
    with pytest.raises(InputError, match=rf"generate.{words}"):
        synthetic(replace(recipe, generate=GenerateConfig(**option)), tmp_path / "unit")
    assert not stages_alone


def test_a_generator_that_another_process_fits_is_left_alone(recipe, tmp_path, stages_alone):
    recipe = replace(recipe, filter=replace(recipe.filter, rule=None))
    synthetic(recipe, tmp_path / "unit")
    folder = tmp_path / "unit" / "generator"
    other = replace(recipe, fit=replace(recipe.fit, seed=7))
    with files.claimed(folder), pytest.raises(InputError, match="another process works on"):
        synthetic(other, tmp_path / "unit")
    assert (folder / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("options", "rule", "words"),
    [
        ({"layouts": "edited"}, None, "of layouts edited there are none"),
        ({"render": "patches"}, None, "render makes them all anew"),
        ({}, "sifid-1234", "filter.rule: null"),
    ],
)
def test_what_labelmix_does_not_go_with_is_refused_before_the_fit(
    recipe, tmp_path, stages_alone, options, rule, words
):
    own = replace(
        recipe,
        fit=replace(recipe.fit, generator="oasis"),
        generate=GenerateConfig(labelmix=0.5, **options),
        filter=replace(recipe.filter, rule=rule),
    )
    with pytest.raises(InputError, match=words):
        synthetic(own, tmp_path / "unit")
    assert not stages_alone


def test_bank_stays_whole_without_a_filter_rule(recipe, again, lines):
    unfiltered = replace(
        recipe,
        data=replace(recipe.data, videos=("one",)),
        filter=replace(recipe.filter, rule=None),
    )
    run(unfiltered, again, lines)
    assert "[1/1] one: bank ..." in lines  # a filter had marked the one that was there
    assert not [line for line in lines if "filter" in line]
    bank = Bank(again / "units" / "one" / "bank")
    assert len(bank) == len(bank.all_records) == 6
    assert "filter" not in bank.manifest


def test_parents_come_from_the_other_videos(recipe, tmp_path, lines):
    compare = CompareConfig(arms=("none", "standard"), parent="others")
    recipe, out = replace(recipe, compare=compare), tmp_path / "out"
    run(recipe, out, lines)
    manifest = json.loads((out / "comparison" / "manifest.json").read_text())
    assert manifest["settings"]["parent"] == {
        "one": str(out / "parents" / "even.safetensors"),
        "two": str(out / "parents" / "odd.safetensors"),
    }
    stage = json.loads((out / "parents" / "even.json").read_text())
    assert stage["settings"]["videos"] == ["two"]
    assert stage["settings"]["steps"] == 2  # those of a smoke run
    lines.clear()
    run(recipe, out, lines)
    assert lines == [
        "parent of two: even is there",
        "parent of one: odd is there",
        "8 of 8 runs are there already",
    ]


def test_parents_of_others_are_refused_where_there_are_none(recipe, tmp_path, lines):
    units = read_units(recipe.data)
    arms = ("none", "standard")
    for config, given, part in (
        (CompareConfig(arms=arms, parent="others"), units[:1], "at least two videos"),
        (CompareConfig(arms=arms, parent="others", segmenter="unet"), units, "not unet"),
    ):
        with pytest.raises(InputError, match=part):
            compare_units(given, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_foreign_folder_is_refused(recipe, tmp_path, lines):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").write_text("")
    nothing = replace(recipe, data=replace(recipe.data, videos=()))
    with pytest.raises(InputError, match="name what to train on"):  # the folder is no hindrance
        run(nothing, tmp_path / "out", lines)
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"out holds thesis\.tex, which synthaug did not write"):
        run(recipe, tmp_path / "out", lines)


def test_smoke_keeps_the_recipes_shape():
    recipe = Recipe(
        fit=FitConfig(preset="paper", seed=3),
        data=DataConfig(root="d", videos=("a", "b", "c")),
        compare=CompareConfig(arms=ARMS, seeds=5),
    )
    short = shortened(recipe)
    assert short.data.videos == ("a", "b")
    assert (short.fit.preset, short.fit.seed) == ("fast", 3)
    assert (short.compare.arms, short.compare.seeds) == (ARMS, 2)


@pytest.mark.parametrize(
    ("fit", "preset", "iterations"),
    [
        (FitConfig(generator="stylegan2", preset="small"), "small", 2),
        (FitConfig(generator="transgan"), "auto", 2),
        (FitConfig(preset="compose", copies=3), "compose", None),
    ],
)
def test_smoke_takes_a_preset_that_the_generator_has(fit, preset, iterations):
    short = shortened(Recipe(fit=fit)).fit
    assert (short.preset, short.iterations, short.copies) == (preset, iterations, fit.copies)


def test_a_recipes_composition_heeds_its_options(recipe, tmp_path):
    one = replace(recipe, data=replace(recipe.data, videos=("one",)))
    copies = FitConfig(preset="compose", copies=1)
    assert copies.copies != FitConfig().copies
    synthetic(shortened(replace(one, fit=copies)), tmp_path)
    manifest = json.loads((tmp_path / "generator" / "manifest.json").read_text())
    assert manifest["gan"]["copies"] == 1
    with pytest.raises(InputError, match=r"fit\.objects is for fit alone"):
        synthetic(shortened(replace(one, fit=replace(copies, objects="bank"))), tmp_path / "b")


def test_images_of_several_sizes_are_stretched_to_the_usual_one(tmp_path, lines):
    pairs = []
    for number, size in enumerate([(40, 56), (40, 56), (40, 56), (80, 112), (40, 160)]):
        mask = np.zeros(size, np.uint8)
        mask[12:24, 8:20] = mask[12:24, -20:-8] = 1
        image = np.full((*size, 3), 40 * number, np.uint8)
        image[mask > 0] = 250
        pairs.append(Sample(image, mask, f"{number}"))
    unit = Unit("own", pairs, pairs[:1], ClassMap((0, 1)), "images")
    recipe = Recipe(
        fit=FitConfig(preset="compose"),
        generate=GenerateConfig(n=1),
        filter=FilterConfig(rule=None),
    )

    def made(fitting):
        stages = sources.UnitSources(tmp_path / "out", unit, "own", None, lines.append)
        stages.synthetic(replace(recipe, fit=replace(recipe.fit, resize=fitting)))
        return Bank(tmp_path / "out" / "bank").pairs()

    usual = "own: 2 of 5 images resized to 56x40 px"
    assert (made(None)[4].mask[16] > 0).sum() == pytest.approx(24 * 56 / 160, abs=2)
    assert [line for line in lines if line.startswith(f"{usual}; preset compose")]
    lines.clear()
    made(None)
    assert lines == ["own: generator is there", "own: bank is there"]
    assert (made("crop")[4].mask[16] > 0).sum() == pytest.approx(12 / 1.5, abs=1)
    assert [line for line in lines if line.startswith(f"{usual}, 1 of them cropped first; ")]


def test_kinds_that_the_arms_need():
    assert needed_kinds(CompareConfig()) == ["copy-paste", "synthetic"]
    assert needed_kinds(CompareConfig(arms=("none",), baseline="standard+synthetic")) == [
        "synthetic"
    ]
    with pytest.raises(InputError, match="unknown arm 'salt'"):
        needed_kinds(CompareConfig(arms=("salt",)))
    pasted = Arm("pasted", {"copy-paste": 1.0}, augment=True)
    assert needed_kinds(CompareConfig(arms=("none", pasted), baseline="pasted")) == ["copy-paste"]


def test_an_arm_of_the_recipes_own_is_compared(recipe, tmp_path, lines):
    light = Arm("light", {"real": 0.5, "copy-paste": 0.5}, augment=True, weight=0.3)
    config = replace(recipe.compare, arms=("none", light), baseline="light")
    own = replace(recipe, data=replace(recipe.data, videos=("one",)), compare=config)
    folder = run(own, tmp_path / "out", lines).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["arms"][1], manifest["baseline"]) == (light.as_dict(), "light")
    assert (folder / "samples" / "one" / "copy-paste").is_dir()
    config = replace(config, arms=("none", replace(light, shares={"synthetic": 1.0})))
    with pytest.raises(InputError, match="an arm needs synthetic items: name their bank"):
        compare_units(read_units(own.data), tmp_path / "other", config)


@pytest.mark.parametrize(
    "data", [DataConfig(), DataConfig(root="d"), DataConfig(kind="folders", images="i")]
)
def test_data_must_be_named(data):
    with pytest.raises(InputError, match="name what to train on"):
        read_units(data)


@pytest.mark.parametrize(
    ("data", "idle"),
    [
        (DataConfig(root="d", videos=("v",), train=2, test_images="t"), "test_images, train"),
        (DataConfig(kind="folders", images="i", masks="m", every=3), "every"),
    ],
)
def test_data_of_the_other_kind_is_refused(data, idle):
    with pytest.raises(InputError, match=f"has no use for {idle}: leave"):
        read_units(data)


def test_ids_are_ignored_in_videos_too(davis):
    [unit] = read_units(DataConfig(root=str(davis), videos=("one",)))
    assert len(unit.classes) > 1
    with pytest.raises(InputError, match="class"):
        read_units(DataConfig(root=str(davis), videos=("one",), ignore=unit.classes.ids[1:]))


@pytest.mark.parametrize(("option", "kind"), [("bank", "synthetic"), ("compose", "copy-paste")])
def test_a_source_that_no_arm_shows_is_refused(recipe, tmp_path, option, kind):
    units, config = read_units(recipe.data), CompareConfig(arms=("none", "standard"))
    with pytest.raises(InputError, match=f"--{option} is given, but no arm shows {kind} items"):
        compare_units(units, tmp_path / "out", config, **{option: tmp_path / "nowhere"})
    assert not (tmp_path / "out").exists()


def test_one_bank_is_not_enough_for_two_videos(recipe, tmp_path):
    units = read_units(recipe.data)
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="one source for 3 videos"):
        compare_units(units, tmp_path / "out", recipe.compare, bank=tmp_path / "bank")
    assert not (tmp_path / "out").exists()


def test_given_test_folders_seed_and_ids_to_ignore_reach_the_split(tmp_path):
    for kind, numbers in (("train", range(6)), ("val", (6, 7))):
        for number in numbers:
            mask = np.zeros((32, 40), np.uint8)
            mask[8:16], mask[24:] = 1, 2
            image = np.full((32, 40, 3), 20 * number, np.uint8)
            folder.write_pair(tmp_path / kind, f"{number:03d}", Sample(image, mask))
    own = {kind: str(tmp_path / "train" / kind) for kind in ("images", "masks")}
    val = {f"test_{kind}": str(tmp_path / "val" / kind) for kind in ("images", "masks")}
    [unit] = read_units(DataConfig(**own, **val, ignore=(2,)))
    assert [sample.id for sample in unit.test] == ["006", "007"]
    assert (len(unit.training), unit.classes.ids) == (6, (0, 1))
    drawn = [read_units(DataConfig(**own, seed=seed))[0].training for seed in range(5)]
    assert len({tuple(sample.id for sample in training) for training in drawn}) > 1
