from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from synthaug.bank import Bank
from synthaug.config.arms import ARMS, KINDS, Arm
from synthaug.errors import InputError
from synthaug.mixing.arms import ArmStream
from synthaug.mixing.source import Source
from synthaug.sample import ClassMap, Sample
from synthaug.segmenters.contract import Item

SIZE = (32, 48)


def real(count: int) -> list[Sample]:
    """Noise whose red channel is the sample's number."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        image[..., 0] = number
        mask = np.zeros((64, 96), np.uint8)
        mask[10:30, 20:50] = 1
        samples.append(Sample(image, mask, f"real{number}"))
    return samples


class Live:
    """Draws flat pictures of the latent seed's colour, without end."""

    classes = ClassMap((0, 1))
    ids: Sequence[str] = ()

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def draw(self, pick: Callable[[int], int]) -> dict[str, Any]:
        return {"latent_seed": pick(2**53)}

    def fetch(self, choice: dict[str, Any]) -> Sample:
        self.fetched.append(choice["latent_seed"])
        return Sample(
            np.full((*SIZE, 3), choice["latent_seed"] % 256, np.uint8), np.ones(SIZE, np.uint8)
        )


class Stored(Live):
    """A bank of flat pictures."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.ids = [str(i) for i in range(count)]

    def fetch(self, choice: dict[str, Any]) -> Sample:
        value = int(choice["sample_id"])
        self.fetched.append(value)
        return Sample(np.full((*SIZE, 3), value, np.uint8), np.ones(SIZE, np.uint8))


def stream(arm: str | Arm = "standard+copy-paste+synthetic", **options: Any) -> ArmStream:
    arm = ARMS[arm] if isinstance(arm, str) else arm
    training = options.pop("training", None) or real(3)
    sources = options.pop("sources", {"synthetic": Stored(5), "copy-paste": Live()})
    settings = {"steps": 12, "batch_size": 8, "seed": 0, "size": SIZE, **options}
    return ArmStream(arm, training, sources, **settings)


def same(first: list[Item], second: list[Item]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) and a[2:] == b[2:]
        for a, b in zip(first, second, strict=True)
    )


def of_kind(batch: list[Item], kind: str) -> list[Item]:
    return [item for item in batch if item.origin == kind]


@pytest.mark.parametrize("name", [name for name in ARMS if name != "auto"])
def test_built_in_arms_fill_batches_exactly(name: str) -> None:
    mixed = stream(name)
    for step in range(mixed.steps):
        batch = mixed.batch(step)
        found = Counter(item.origin for item in batch)
        shares = ARMS[name].shares_at(step, mixed.steps)
        assert found == {k: int(8 * share) for k, share in shares.items() if share}
        assert [i.origin for i in batch] == sorted((i.origin for i in batch), key=KINDS.index)
        for item in batch:
            assert item.image.shape == (*SIZE, 3)
            assert item.image.dtype == item.mask.dtype == np.uint8
            assert item.mask.shape == SIZE
            assert item.weight == 1.0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(
    "shares",
    [
        {"real": 0.5, "synthetic": 0.5},
        {"real": 0.5, "copy-paste": 0.25, "synthetic": 0.25},
        {"real": 1 / 3, "copy-paste": 1 / 3, "synthetic": 1 / 3},
        {"real": 0.7, "synthetic": 0.3},
        {"synthetic": 1.0},
    ],
)
def test_remainders_rotate_until_the_share_is_exact(
    shares: dict[str, float], batch_size: int
) -> None:
    mixed = stream(Arm("mine", shares, augment=False), steps=60, batch_size=batch_size)
    total: Counter[str] = Counter()
    for step in range(60):
        counts = mixed.counts(step)
        assert sum(counts.values()) == batch_size
        total.update(counts)
        for kind in KINDS:
            assert abs(total[kind] - (step + 1) * batch_size * shares.get(kind, 0)) < 1 + 1e-6
    for kind, share in shares.items():
        assert total[kind] == round(60 * batch_size * share)


def test_synthetic_first_ends_on_real_items_alone() -> None:
    mixed = stream(
        Arm("mine", {"real": 0.7, "synthetic": 0.3}, True, schedule="synthetic-first"),
        steps=11,
        batch_size=5,
    )
    others = [mixed.counts(step)["synthetic"] for step in range(11)]
    assert others == [3] * 6 + [0] * 5
    most = stream(
        Arm("mine", {"real": 0.2, "copy-paste": 0.4, "synthetic": 0.4}, True, 1, "synthetic-first"),
        steps=4,
    )
    assert [most.counts(step)["real"] for step in range(4)] == [0, 0, 8, 8]
    assert most.counts(0) == {"real": 0, "copy-paste": 4, "synthetic": 4}


def test_warm_up_rises_to_the_full_share() -> None:
    arm = Arm("mine", {"real": 0.5, "synthetic": 0.5}, augment=False, schedule="warm-up")
    mixed = stream(arm, steps=16)
    others = [mixed.counts(step)["synthetic"] for step in range(16)]
    assert others[0] == 0
    assert others[8:] == [4] * 8
    assert others[:8] == sorted(others[:8])
    assert sum(others[:8]) == pytest.approx(sum(4 * step / 8 for step in range(8)), abs=1)


def test_the_same_step_gives_the_same_bits_in_any_order() -> None:
    first, second = stream(), stream()
    forwards = [first.batch(step) for step in range(12)]
    backwards = [second.batch(step) for step in reversed(range(12))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert same(a, b)
    assert not same(forwards[0], forwards[1])
    assert not same(forwards[0], stream(seed=1).batch(0))


def test_real_items_are_the_same_in_every_arm_that_augments() -> None:
    alone = stream("standard")
    for name in ("standard+synthetic", "standard+copy-paste", "standard+copy-paste+synthetic"):
        mixed = stream(name)
        for step in range(12):
            assert same(of_kind(mixed.batch(step), "real"), alone.batch(step)[:4])
    plain = stream("none")
    assert same(of_kind(stream("synthetic").batch(3), "real"), plain.batch(3)[:4])
    assert not same(plain.batch(3), alone.batch(3))


def test_another_source_changes_nothing_else() -> None:
    first = stream()
    second = stream(sources={"synthetic": Live(), "copy-paste": Live()})
    for step in range(3):
        for kind in ("real", "copy-paste"):
            assert same(of_kind(first.batch(step), kind), of_kind(second.batch(step), kind))
        assert not same(first.batch(step), second.batch(step))


def test_every_item_is_augmented_differently() -> None:
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mixed = stream("standard", training=[Sample(image, np.zeros(SIZE, np.uint8))])
    images = {item.image.tobytes() for step in range(5) for item in mixed.batch(step)}
    assert len(images) >= 36  # sometimes no transform fires


def test_banks_go_round_in_shuffled_passes_and_are_read_once() -> None:
    bank = Stored(5)
    mixed = stream("synthetic", sources={"synthetic": bank}, steps=20)
    shown = [
        int(item.image[0, 0, 0])
        for step in range(20)
        for item in of_kind(mixed.batch(step), "synthetic")
    ]
    passes = [shown[start : start + 5] for start in range(0, 80, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 5
    assert sorted(bank.fetched) == [0, 1, 2, 3, 4]


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthaug.mixing.arms.CACHE_BYTES", 4 * SIZE[0] * SIZE[1] * 2)
    bank = Stored(5)
    mixed = stream("synthetic", sources={"synthetic": bank}, steps=10)
    wide = stream("synthetic", steps=10)
    for step in range(10):
        assert same(mixed.batch(step), wide.batch(step))
    assert len(bank.fetched) > 20


def test_live_sources_never_repeat_a_latent_seed() -> None:
    live = Live()
    mixed = stream("copy-paste", sources={"copy-paste": live})
    for step in range(12):
        mixed.batch(step)
    assert len(set(live.fetched)) == len(live.fetched) == 48


def test_the_training_set_is_shown_in_full_passes() -> None:
    mixed = stream("none", training=real(4), steps=6)
    shown = [int(item.image[0, 0, 0]) for step in range(6) for item in mixed.batch(step)]
    assert all(sorted(shown[s : s + 4]) == [0, 1, 2, 3] for s in range(0, 48, 4))


def test_weight_is_that_of_items_that_are_not_real() -> None:
    mixed = stream(Arm("mine", {"real": 0.5, "synthetic": 0.5}, True, weight=0.3))
    assert {(item.origin, item.weight) for item in mixed.batch(0)} == {
        ("real", 1.0),
        ("synthetic", 0.3),
    }


def test_borders_of_synthetic_masks_are_not_labelled() -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 20:30] = 1
    mask[:, 40:] = 255  # no class: nothing is ignored beside it

    class Drawn(Live):
        def fetch(self, choice: dict[str, Any]) -> Sample:
            return Sample(np.zeros((*SIZE, 3), np.uint8), mask)

    arm = Arm("mine", {"real": 0.25, "copy-paste": 0.25, "synthetic": 0.5}, False, border_px=2)
    sources = {"synthetic": Drawn(), "copy-paste": Drawn()}
    items = stream(arm, sources=sources).batch(0)
    expected = mask.copy()
    expected[:, [18, 19, 20, 21, 28, 29, 30, 31]] = 255
    for item in items:
        if item.origin == "synthetic":
            np.testing.assert_array_equal(item.mask, expected)
        else:
            assert (item.mask[:, :40] < 255).all()
    assert Counter(item.origin for item in items)["synthetic"] == 4
    assert Arm(**arm.as_dict()) == arm


def test_a_real_bank_feeds_a_stream(bank: Bank) -> None:
    mixed = stream("synthetic", sources={"synthetic": Source(str(bank.path))})
    values = {int(item.image[-1, -1, 0]) for step in range(4) for item in mixed.batch(step)[4:]}
    assert values <= {10 + 20 * i for i in range(8) if i != 2}
    assert len(values) == 7


@pytest.mark.parametrize("name", ["half + half", "5 %", "é", "console", "a.b", "com"])
def test_an_arm_may_have_any_name_of_a_folder(name: str) -> None:
    assert Arm(name, {"real": 1.0}, augment=True).name == name


def test_an_arm_survives_json() -> None:
    arm = Arm("mine", {"real": 0.75, "synthetic": 0.25}, True, 0.3, "warm-up")
    assert Arm(**arm.as_dict()) == arm


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"shares": {"real": 0.5}}, "sum to 1"),
        ({"shares": {}}, "sum to 1"),
        ({"shares": {"real": 1.5, "synthetic": -0.5}}, "sum to 1"),
        ({"shares": {"real": 0.5, "fake": 0.5}}, "fake"),
        ({"weight": -1}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"schedule": "later"}, "schedule"),
        ({"name": "a/b"}, "slash"),
        ({"name": "_test"}, "name a folder"),
        *(({"name": name}, "name a folder") for name in ("", " ", " a", "a\t", "a\nb", "a\x00b")),
        *(
            ({"name": name}, "name a folder")
            for name in ("a.", ".a", "con", "NUL", "Com1.x", "a:b")
        ),
        ({"weight": 0.5}, "real items alone"),
        ({"schedule": "warm-up"}, "real items alone"),
        ({"border_px": 2}, "no synthetic items"),
        ({"length": 0.0}, "length 0.0: give a positive number"),
        ({"length": float("nan")}, "length nan: give a positive number"),
        ({"shares": {"synthetic": 1.0}, "border_px": -1}, "border_px -1: give 0 to 32"),
        ({"augment": False, "wide": True}, "does not augment"),
        ({"schedule": "auto", "augment": False}, "leaves its mix to auto"),
    ],
)
def test_a_wrong_arm_is_refused(values: dict[str, Any], part: str) -> None:
    settings: dict[str, Any] = {"name": "mine", "shares": {"real": 1.0}, "augment": True}
    with pytest.raises(InputError, match=part):
        Arm(**{**settings, **values})


def test_a_stream_without_what_it_needs_is_refused() -> None:
    with pytest.raises(InputError, match="source of synthetic"):
        stream("standard+synthetic", sources={})
    with pytest.raises(InputError, match="labelled sample"):
        ArmStream(ARMS["none"], [], {}, steps=1, batch_size=1, seed=0, size=SIZE)
    with pytest.raises(InputError, match="0 steps"):
        stream(steps=0)
    with pytest.raises(IndexError):
        stream().batch(12)


def test_the_wide_arm_shows_objects_larger() -> None:
    wide, usual = (
        [(item.mask == 1).sum() for step in range(12) for item in stream(name).batch(step)]
        for name in ("wide", "standard")
    )
    assert max(wide) > 1.5 * max(usual)
