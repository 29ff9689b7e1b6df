from __future__ import annotations

import pytest

from synthaug.config import (
    Arm,
    CompareConfig,
    DataConfig,
    FilterConfig,
    FitConfig,
    GenerateConfig,
    Recipe,
    dump_stage,
    load_recipe,
    make,
    versions,
)
from synthaug.errors import InputError


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def test_no_recipe_is_all_defaults():
    assert load_recipe() == Recipe()
    assert load_recipe().fit == FitConfig()


def test_recipe_fills_stages_and_keeps_other_defaults(recipe_file):
    recipe = load_recipe(recipe_file("fit:\n  preset: paper\n  iterations: 50\ngenerate:\n"))
    assert recipe.fit == FitConfig(preset="paper", iterations=50)
    assert recipe.generate == GenerateConfig()


def test_flags_override_the_file_and_set_overrides_both(recipe_file):
    path = recipe_file("fit: {seed: 1, iterations: 10, checkpoint_s: 5}")
    flags = {"fit": {"seed": 2, "iterations": 20, "preset": None}}
    fit = load_recipe(path, ["fit.seed=3"], flags).fit
    assert (fit.seed, fit.iterations, fit.checkpoint_s, fit.preset) == (3, 20, 5.0, "auto")


@pytest.mark.parametrize(
    ("item", "value"),
    [("fit.checkpoint_s=1e-4", 1e-4), ("fit.flip=false", False), ("fit.iterations=null", None)],
)
def test_set_values_are_yaml(item, value):
    option = item.partition("=")[0].partition(".")[2]
    assert getattr(load_recipe(overrides=[item]).fit, option) == value


def test_unknown_option_names_file_option_and_nearest(recipe_file):
    path = recipe_file("fit:\n  iteration: 5\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert str(caught.value) == (f"{path}: unknown option fit.iteration: did you mean iterations?")


def test_unknown_option_far_from_all_lists_the_known(recipe_file):
    with pytest.raises(InputError, match=r"unknown option demo.zzz: known are seed, iterations"):
        load_recipe(recipe_file("demo: {zzz: 1}"))


def test_unknown_stage_names_the_nearest(recipe_file):
    with pytest.raises(InputError, match=r"unknown stage generat: did you mean generate\?"):
        load_recipe(recipe_file("generat: {n: 5}"))
    with pytest.raises(InputError, match=r"--set fitt.seed=1: unknown stage fitt"):
        load_recipe(overrides=["fitt.seed=1"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fit: {iterations: 0}", "option fit.iterations: .*greater than or equal to 1, got 0"),
        ("fit: {iterations: many}", "option fit.iterations: .*valid integer.*'many'"),
        ("fit: {iterations: yes}", "option fit.iterations: give a number .*, got True"),
        ("fit: {checkpoint_s: on}", "option fit.checkpoint_s: give a number"),
        ("fit: {ignore: [true]}", "option fit.ignore: give a number"),
        ("fit: {ignore: 5}", r"option fit.ignore: give a list, as \[5\]"),
        ("compare: {arms: 'none,standard'}", r"arms: give a list, as \[none, standard\]"),
        ("fit: {nope: 3}", "unknown option fit.nope: known are generator"),
        ("fit: {preset: slow}", "option fit.preset: .*'paper', 'compose' or 'patch'"),
        ("generate: {drop: 1.0}", "option generate.drop: .*less than 1"),
        ("filter: {rule: sifid-9}", "option filter.rule"),
        ("filter: {max_stray: -1}", "option filter.max_stray"),
        ("compare: {lr: .inf}", "option compare.lr: .*less than inf"),
        ("fit: 3", "stage fit must hold options"),
        ("- fit", "must hold stages"),
        ("fit: {", "line 1, column 7: expected the node content, but found '<stream end>': write"),
        ("fit:\n  seed: 1\n x: 2", "line 3, column 2: expected <block end>"),
        ("fit: {n: 1}\nfilter:\nfit:", "line 3, column 1: fit stands .* the first is in line 1"),
        ("fit: {seed: 1, seed: 1}", "line 1, column 16: seed stands there a second time"),
        ("compare: {arms: [none, {name: a, name: b}]}", "column 34: name stands there a second"),
    ],
)
def test_wrong_values_are_named_in_one_line(recipe_file, text, words):
    path = recipe_file(text)
    with pytest.raises(InputError, match=words) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_may_share_blocks(recipe_file):
    text = "fit: &f {seed: 4}\ngenerate: {<<: *f, n: 3}\ndemo: {<<: *f, seed: 5}"
    recipe = load_recipe(recipe_file(text))
    assert (recipe.generate.seed, recipe.generate.n, recipe.demo.seed) == (4, 3, 5)
    text = "fit: &f {seed: 4}\nfilter: &g {drop: 0.2}\ngenerate:\n  <<: *f\n  <<: {n: 3}\n"
    assert load_recipe(recipe_file(text)).generate.seed == 4


def test_wrong_value_names_where_it_came_from(recipe_file):
    path = recipe_file("fit: {seed: 1}")
    with pytest.raises(InputError, match=r"^--set fit.iterations=-1: option fit.iterations"):
        load_recipe(path, ["fit.iterations=-1"])
    with pytest.raises(InputError, match=r"^command line: option fit.iterations"):
        load_recipe(path, (), {"fit": {"iterations": -1}})


@pytest.mark.parametrize(
    "item",
    [
        *("fit.seed", "seed=1", "=", "fit.seed=[1", "fit.objects=2024-31-01", "fit.seed=0b_"),
        "compare.arms=[{name: a, name: b}]",
    ],
)
def test_malformed_set_is_explained(item):
    with pytest.raises(InputError, match="--set"):
        load_recipe(overrides=[item])


def test_missing_or_binary_recipe(tmp_path):
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot read recipe"):
        load_recipe(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="is a folder: name a YAML file"):
        load_recipe(tmp_path)


def test_a_recipe_may_begin_as_windows_writes_it(tmp_path):
    (tmp_path / "a.yaml").write_text("fit: {seed: 7}", encoding="utf-8-sig")
    assert load_recipe(tmp_path / "a.yaml").fit.seed == 7


def test_resolved_stage_reads_back_as_a_recipe(recipe_file):
    config = FitConfig(preset="fast", iterations=7, flip=False)
    assert load_recipe(recipe_file(dump_stage("fit", config))).fit == config


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (FitConfig(), "fit"),
        (FitConfig(generator="transgan"), "fit"),
        (FitConfig(generator="biggan"), "pretrain"),
        (FitConfig(generator="biggan", source="other"), "fit"),
    ],
)
def test_a_fit_is_gone_on_with_by_its_command(config, command):
    assert config.resuming("my cats") == f"synthaug {command} --resume --out 'my cats'"


def test_make_checks_keywords_of_an_api_call():
    assert make(GenerateConfig, {"n": 3}) == GenerateConfig(n=3)
    with pytest.raises(InputError, match="option n"):
        make(GenerateConfig, {"n": 0})


def test_filter_options_are_those_of_filter_bank():
    import inspect
    from dataclasses import asdict

    from synthaug.filtering import filter_bank

    parameters = inspect.signature(filter_bank).parameters
    for name, default in asdict(FilterConfig()).items():
        assert parameters[name].default == default


def test_versions_name_what_decides_results():
    import torch

    found = versions()
    assert torch.__version__.startswith(found["torch"])
    assert {"synthaug", "python", "numpy"} <= set(found)


def test_recipe_of_a_comparison(recipe_file):
    path = recipe_file(
        "data: {root: davis, videos: [dog, cows], every: 2}\n"
        "compare: {arms: [none, standard], seeds: 5, lr: 1.0e-4}\n"
    )
    recipe = load_recipe(path)
    assert recipe.data == DataConfig(root="davis", videos=("dog", "cows"), every=2)
    assert recipe.compare == CompareConfig(arms=("none", "standard"), seeds=5, lr=1e-4)
    assert recipe.compare == load_recipe(recipe_file(dump_stage("compare", recipe.compare))).compare


@pytest.mark.parametrize(
    ("item", "option"),
    [
        ("compare.seeds=0", "compare.seeds"),
        ("data.kind=films", "data.kind"),
        ("compare.arms=standard", "compare.arms"),
        ("data.train=-1", "data.train"),
    ],
)
def test_bad_values_of_a_comparison_are_refused(item, option):
    with pytest.raises(InputError, match=option.replace(".", r"\.")):
        load_recipe(overrides=[item])


LIGHT = "{name: light, shares: {real: 0.5, synthetic: 0.5}, augment: true, weight: 0.3}"


def test_a_recipe_may_hold_arms_of_its_own(recipe_file):
    path = recipe_file(f"compare:\n  arms:\n  - none\n  - {LIGHT}\n  baseline: light\n")
    config = load_recipe(path).compare
    light = Arm("light", {"real": 0.5, "synthetic": 0.5}, augment=True, weight=0.3)
    assert (config.arms, config.baseline) == (("none", light), "light")
    chosen = load_recipe(path, flags={"compare": {"arms": ("light", "wide")}}).compare
    assert chosen.arms == (light, "wide")
    chosen = load_recipe(path, ("compare.arms=[copy-paste]",)).compare
    assert chosen.arms == ("copy-paste", light)  # the baseline
    assert load_recipe(recipe_file(dump_stage("compare", config))).compare == config
    assert load_recipe(overrides=[f"compare.arms=[none, {LIGHT}]"]).compare.arms == config.arms


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (LIGHT.replace("weight", "wieght"), r": unknown field wieght: did you mean weight\?"),
        (LIGHT.replace("0.3", "heavy"), ", weight: .*valid number.*'heavy'"),
        (LIGHT.replace("true", "maybe"), ", augment: .*valid boolean"),
        (LIGHT.replace("0.5", "yes", 1), ", shares: give a number"),
        (LIGHT.replace("0.5", "0.6", 1), ": arm 'light' has shares .* must sum to 1"),
        (LIGHT.replace("synthetic", "fake"), ": arm 'light' has items of kind 'fake'"),
        (LIGHT.replace("light", "wide"), ": wide is a built-in arm: rename yours"),
        (LIGHT.replace("light", "none"), ": none is a built-in arm"),
        (f"{LIGHT}, {LIGHT}", ": arm light is there already"),
        ("none", ": arm none is there already"),
        ("{shares: {real: 1}, augment: true}", ", name: is missing"),
        ("5", ": give an arm's name, or its fields, got 5"),
    ],
)
def test_a_wrong_arm_is_named_with_its_place(recipe_file, entry, words):
    path = recipe_file(f"compare: {{arms: [none, {entry}]}}")
    with pytest.raises(InputError, match=rf"option compare\.arms, entry [23]{words}") as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
