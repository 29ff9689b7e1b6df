from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synthaug.bank import Bank, write_bank
from synthaug.config.arms import ARMS, Arm
from synthaug.errors import InputError
from synthaug.mixing import SynthMix
from synthaug.mixing import auto as auto_room
from synthaug.mixing.auto import MixChoice, choose_mix, mix_of_bank
from synthaug.mixing.candidates import default_candidates, usual_mix
from synthaug.mixing.folds import FoldSources, StoredPairs
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream

SIZE = (40, 48)
CLASSES = ClassMap((0, 1))
HALF = Arm("half", {"real": 0.5, "synthetic": 0.5}, augment=True)


def tiny_network(num_classes: int) -> nn.Module:
    """Two small convolutions: it learns colours."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 3, padding=1)
    )


def scene(number: int, *, red: int = 160, ground: int = 90) -> Sample:
    """A reddish box on green ground, with noise."""
    rng = numpy_stream(number, "auto scene")
    mask = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(4, 16), rng.integers(4, 20)
    mask[top : top + 16, left : left + 18] = 1
    image = np.where(mask[..., None] == 1, (red, 100, 80), (ground, 125, 90))
    image = np.clip(image + rng.normal(0, 12, (*SIZE, 3)), 0, 255).astype(np.uint8)
    return Sample(image, mask, f"{number:05d}")


def noise(number: int) -> Sample:
    rng = numpy_stream(number, "auto noise")
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return Sample(image, rng.integers(0, 2, SIZE, dtype=np.uint8), f"{number:05d}")


def shuffled(number: int) -> Sample:
    """A scene with the mask of its opposite."""
    sample = scene(number)
    return Sample(sample.image, 1 - sample.mask, sample.id)


def choose(training: Sequence[Sample], samples: Sequence[Sample] | None, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "segmenter": f"{__name__}:tiny_network",
        "steps": 15,
        "batch_size": 4,
        "lr": 0.02,
        "side_px": 48,
    }
    sources = {} if samples is None else {"synthetic": StoredPairs(samples)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return choose_mix(training, sources, CLASSES, **{**settings, **options})
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("make", [noise, shuffled])
def test_a_bad_bank_is_left_out(make: Callable[[int], Sample]) -> None:
    choice = choose([scene(0)], [make(i) for i in range(100, 108)], candidates=[HALF])
    assert choice.arm == ARMS["standard"]
    assert choice.why.startswith("standard augmentation alone: half is no clear gain")
    assert "24 held-out views of the image, 2 seeds" in choice.why


def test_one_image_takes_generated_pairs_unless_they_lose() -> None:
    good = choose([scene(0)], [scene(i) for i in range(100, 108)])
    assert good.arm == ARMS["standard+synthetic"]
    assert good.why.startswith("standard+synthetic, as usual with one image: ")
    assert "no clear loss (24 held-out views of the image, 2 seeds)" in good.why
    bad = choose([scene(0)], [shuffled(i) for i in range(100, 108)], steps=30)
    assert bad.arm == ARMS["standard"]
    assert bad.why.startswith("standard augmentation alone: standard+synthetic loses, -")
    assert set(bad.scores) == {"standard", "standard+synthetic"}


@pytest.mark.parametrize(
    ("gain", "spread", "taken"),
    [
        (0.2, 0.01, True),
        (0, 0.01, True),
        (-0.2, 0.01, False),
        (-0.005, 0, True),
        (-0.03, 0.2, True),
    ],
)
def test_what_is_usual_needs_a_clear_loss_to_be_left_out(
    gain: float, spread: float, taken: bool
) -> None:
    rng = numpy_stream(0, "veto")
    base = rng.uniform(0.4, 0.6, (2, 24))
    scores = np.array([base, base + gain + rng.normal(0, spread, base.shape)])
    choice = auto_room._unless_it_loses([ARMS["standard"], HALF], scores, 2.0, "tests")
    assert choice.arm == (HALF if taken else ARMS["standard"])


def test_images_without_a_label_are_not_tested_on() -> None:
    void = Sample(scene(9).image, np.full(SIZE, 255, np.uint8), "void")
    bank = [scene(i) for i in range(100, 108)]
    choice = choose([scene(0), scene(1), scene(2), void], bank, candidates=[HALF])
    assert "3 images, cross-validated" in choice.why


def test_what_is_seen_where_nothing_is_counts_as_wrong() -> None:
    classes, empty = ClassMap((0, 1, 2)), np.zeros(SIZE, np.uint8)
    nothing = Sample(np.zeros((*SIZE, 3), np.uint8), empty)
    seen = np.zeros(SIZE, np.int64)
    assert auto_room._score(nothing, seen, classes) == 1
    seen[:5] = 1
    assert auto_room._score(nothing, seen, classes) == 0
    half = Sample(nothing.image, np.where(seen, 1, empty).astype(np.uint8))
    assert auto_room._score(half, np.where(seen, 1, 2), classes) == 0.5


def test_without_a_source_there_is_nothing_to_choose() -> None:
    choice = choose([scene(0)], None)
    assert (choice.arm, choice.scores) == (ARMS["standard"], {})
    assert "nothing to mix in" in choice.why


def test_one_image_leaves_copy_paste_out_unless_it_is_asked_for() -> None:
    both = dict.fromkeys(["copy-paste", "synthetic"])
    assert usual_mix(both) == [ARMS["standard+synthetic"]]
    pasted = {"copy-paste": StoredPairs([scene(i) for i in range(100, 104)])}
    alone = choose_mix([scene(0)], pasted, CLASSES)
    assert (alone.arm, alone.scores) == (ARMS["standard"], {})
    assert "nothing to mix in" in alone.why
    asked = choose_mix(
        [scene(0)],
        pasted,
        CLASSES,
        candidates=[ARMS["standard+copy-paste"]],
        segmenter=f"{__name__}:tiny_network",
        steps=2,
        seeds=1,
        side_px=48,
    )
    assert set(asked.scores) == {"standard", "standard+copy-paste"}


def test_several_images_are_cross_validated() -> None:
    training = [scene(i, red=105 + 5 * (i % 2), ground=100) for i in range(2)]
    bank = [scene(100 + i, red=105 + 5 * (i % 2), ground=100) for i in range(8)]
    seen: list[tuple[int, int]] = []
    choice = choose(
        training, bank, candidates=[HALF], progress=lambda done, all_: seen.append((done, all_))
    )
    assert "2 images, cross-validated, 2 seeds" in choice.why
    assert {name: len(values) for name, values in choice.scores.items()} == {
        "standard": 2,
        "half": 2,
    }
    assert all(0 <= value <= 1 for values in choice.scores.values() for value in values)
    assert seen[-1] == (120, 120)  # 2 arms x 2 seeds x 2 folds x 15 steps
    assert seen == sorted(seen)


def test_the_same_input_gives_the_same_choice() -> None:
    samples = [scene(i) for i in range(100, 104)]
    first, again, other = (
        choose([scene(0)], samples, candidates=[HALF], seeds=1, steps=30, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert other.scores["standard"] != first.scores["standard"]
    assert MixChoice.from_dict(json.loads(json.dumps(first.as_dict()))) == first


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"small": 0.2, "large": 0.2}, "small"),  # as good: the simpler one
        ({"small": 0.0, "large": 0.2}, "large"),
        ({"small": 0.1, "large": 0.3}, "large"),  # the simpler one is clearly behind
        ({"small": 0.005, "large": 0.006}, "standard"),  # certain, but too little
        ({"small": -0.1, "large": -0.2}, "standard"),
    ],
)
def test_the_simplest_of_the_clear_gains_is_taken(values: dict[str, float], expected: str) -> None:
    rng = numpy_stream(0, "scores")
    base = rng.uniform(0.4, 0.6, (2, 24))
    arms = [ARMS["standard"]]
    scores = [base]
    for name, gain in values.items():
        share = 0.25 if name == "small" else 0.5
        arms.append(Arm(name, {"real": 1 - share, "synthetic": share}, augment=True))
        spread = rng.normal(0, 0.001, base.shape)
        scores.append(base + gain + spread - spread.mean())
    choice = auto_room._decide(arms, np.array(scores), 2.0, "tests")
    assert choice.arm.name == expected


def test_an_uncertain_gain_is_not_taken() -> None:
    rng = numpy_stream(0, "uncertain")
    base = rng.uniform(0.4, 0.6, (2, 24))
    scores = np.array([base, base + 0.03 + rng.normal(0, 0.2, base.shape)])
    assert auto_room._decide([ARMS["standard"], HALF], scores, 2.0, "tests").arm.name == "standard"
    steady_views = base + np.array([[0.0], [0.06]])  # one seed gains, the other does not
    choice = auto_room._decide([ARMS["standard"], HALF], np.array([base, steady_views]), 2.0, "t")
    assert choice.arm.name == "standard"


@pytest.mark.parametrize("kinds", [[], ["copy-paste"], ["synthetic"], ["copy-paste", "synthetic"]])
def test_default_candidates_use_the_sources_there_are(kinds: list[str]) -> None:
    arms = default_candidates(dict.fromkeys(kinds))
    assert arms[0] == ARMS["standard"]
    assert {kind for arm in arms for kind in arm.needs} == set(kinds)
    assert len({arm.name for arm in arms}) == len(arms) <= 6
    assert all(arm.augment for arm in arms)


def test_folds_train_on_nothing_made_from_their_test_images() -> None:
    training = [scene(0), scene(7, red=60, ground=200)]
    made = [scene(100), scene(101, red=60, ground=200), scene(102)]
    restricted = FoldSources({"synthetic": StoredPairs(made)}, training, seed=0)
    for image, expected in ((0, [0, 2]), (1, [1])):
        source = restricted.of([image])["synthetic"]
        found = [source.fetch({"sample_id": name}).id for name in source.ids]
        assert found == [made[i].id for i in expected]
    lonely = FoldSources({"synthetic": StoredPairs(made[:1])}, training, seed=0)
    assert lonely.of([1]) == {}
    choice = choose(training, made[:1], candidates=[HALF], steps=2, seeds=1)
    assert choice.arm == ARMS["standard"]
    assert "no fold has other items" in choice.why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"margin": -1}, "margin is -1"),
        ({"candidates": [HALF, HALF]}, "two candidates are named 'half'"),
        ({"candidates": [ARMS["standard+copy-paste"]]}, "needs a source of copy-paste items"),
        ({"segmenter": "unknown"}, "unknown segmenter"),
        ({"training": []}, "no labelled image"),
    ],
)
def test_bad_settings_get_one_line(options: dict[str, Any], message: str) -> None:
    training = options.pop("training", [scene(0)])
    with pytest.raises(InputError, match=message):
        choose(training, [scene(1)], **options)


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """A bank of its own for each test, of two pairs; nothing is known of it yet."""
    monkeypatch.setattr(auto_room, "_chosen", {})
    samples = [(scene(100 + i), {"latent_seed": i}) for i in range(6)]
    return write_bank(tmp_path / "bank", samples, [scene(0), scene(1)], CLASSES, {})


class Chooser:
    """Takes the second candidate, and counts how often."""

    def __init__(self) -> None:
        self.calls: list[list[Arm]] = []

    def __call__(self, training: Any, sources: Any, classes: Any, **options: Any) -> MixChoice:
        self.calls.append(list(options["candidates"]))
        assert [sample.id for sample in training] == ["00000", "00001"]
        return MixChoice(options["candidates"][1], {"a": [0.5]}, "because")


def test_a_choice_is_stored_in_the_bank_and_used_again(
    scenes: Bank, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chooser = Chooser()
    with caplog.at_level(logging.INFO, "synthaug"):
        first = mix_of_bank(scenes.path, choose=chooser)
    assert "ratio 0.5, because" in caplog.text
    assert all(arm.weight == 1 for arm in chooser.calls[0])
    stored = json.loads((scenes.path / "mix.json").read_text())
    assert stored["samples_sha256"] == scenes.content_hash
    assert stored["why"] == "because"
    monkeypatch.setattr(auto_room, "_chosen", {})  # as in another process
    assert mix_of_bank(scenes.path, choose=chooser) == first
    assert len(chooser.calls) == 1
    scenes.rewrite([{**r, "kept": r["id"] != "00000"} for r in scenes.all_records])
    mix_of_bank(scenes.path, choose=chooser)
    assert len(chooser.calls) == 2
    (scenes.path / "mix.json").write_text("{")
    monkeypatch.setattr(auto_room, "_chosen", {})
    mix_of_bank(scenes.path, choose=chooser)
    assert len(chooser.calls) == 3


def test_the_time_left_is_told_while_it_chooses(
    scenes: Bank, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auto_room, "TELL_EVERY_S", 0)

    def slow(*_: Any, progress: Callable[[int, int], None], **__: Any) -> MixChoice:
        for done in range(80, 321, 80):
            progress(done, 320)
        return MixChoice(ARMS["standard"], {}, "because")

    mix_of_bank(scenes.path, choose=slow)
    told = [line for line in caplog.messages if "step" in line]
    assert len(told) == 3
    assert re.search(r"bank.*: step 240/320, about \d+ s left$", told[2])


def test_a_bank_of_one_pair_takes_what_is_usual(scenes: Bank, tmp_path: Path) -> None:
    samples = [(scene(100 + i), {"latent_seed": i}) for i in range(6)]
    one = write_bank(tmp_path / "one", samples, [scene(0)], CLASSES, {})

    def usual(training: Any, sources: Any, classes: Any, **options: Any) -> MixChoice:
        assert len(training) == 1
        assert options["candidates"] is None
        return MixChoice(ARMS["standard+synthetic"], {}, "as usual")

    assert mix_of_bank(one.path, choose=usual).arm.shares["synthetic"] == 0.5


def test_without_write_access_the_choice_stays_in_the_process(
    scenes: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, value: Any) -> None:
        raise InputError(f"cannot write {path}")

    monkeypatch.setattr(auto_room.files, "write_json", refuse)
    chooser = Chooser()
    assert mix_of_bank(scenes.path, choose=chooser) == mix_of_bank(scenes.path, choose=chooser)
    assert len(chooser.calls) == 1
    assert not (scenes.path / "mix.json").exists()


def test_a_mix_chooses_its_ratio_on_first_use(
    scenes: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser = Chooser()
    real = [(scene(i).image, scene(i).mask) for i in range(3)]
    whole = mix_of_bank

    def spy(path: str) -> MixChoice:
        return whole(path, choose=chooser)

    monkeypatch.setattr(auto_room, "mix_of_bank", spy)
    mix = SynthMix(real, scenes.path, length=8, provenance=True)
    assert chooser.calls == []
    sampler = mix.batch_sampler(4)
    assert len(chooser.calls) == 1
    assert mix.ratio == 0.5
    for batch in sampler:
        origins = [mix[place][2] for place in batch]
        assert sum(name.startswith("synthetic/") for name in origins) == 2
    fixed = SynthMix(real, scenes.path, 0.25, length=8)
    assert (fixed.ratio, len(chooser.calls)) == (0.25, 1)
    with pytest.raises(InputError, match="ratio is half"):
        SynthMix(real, scenes.path, "half")  # type: ignore[arg-type]
