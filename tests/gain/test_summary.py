from __future__ import annotations

from typing import Any

import pytest

from synthaug.gain.summary import paired, summarise


def run(value: float, iou: float | None = 0.5, seconds: float = 2.0) -> dict[str, Any]:
    return {
        "measures": {"mIoU": value},
        "per_class": {"0": 0.9, "10": iou},
        "seconds": {"train": seconds, "test": 1.0},
        "peak_memory_gb": None,
    }


def cells(values: dict[str, list[float]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(unit, seed): run(v) for unit, row in values.items() for seed, v in enumerate(row)}


def summary(results: dict[str, Any], **options: Any) -> dict[str, Any]:
    settings = {"units": ["a", "b"], "baseline": "standard", "measures": ["mIoU"]}
    return summarise(results, **{**settings, "complete": True, **options})


def test_gains_are_paired_by_unit_and_seed() -> None:
    first, base = cells({"a": [0.6, 0.5], "b": [0.9]}), cells({"a": [0.4, 0.4, 0.1], "c": [0.2]})
    assert paired(first, base, "mIoU") == {"a": [pytest.approx(0.2), pytest.approx(0.1)]}


def test_units_count_alike_however_many_seeds_they_have() -> None:
    found = summary({"standard": cells({"a": [0.2, 0.2, 0.2], "b": [0.8]})})
    assert found["arms"]["standard"]["mean"]["mIoU"] == pytest.approx(0.5)
    assert found["arms"]["standard"]["runs"] == 4
    assert found["units"]["b"]["standard"]["mean"]["mIoU"] == pytest.approx(0.8)


def test_the_order_in_which_runs_end_changes_no_bit() -> None:
    given = cells({"a": [0.1, 0.7, 0.3], "b": [0.2, 0.9, 0.4]})
    for number, found in enumerate(given.values()):
        found["per_class"]["10"] = 0.1 + number / 7
    turned = dict(reversed(list(given.items())))
    assert summary({"standard": given}) == summary({"standard": turned})


def test_cost_is_the_mean_time_and_the_most_memory() -> None:
    given = {("a", seed): run(0.5, seconds=2.0 + seed) for seed in range(3)}
    given["a", 0]["peak_memory_gb"] = 1.5
    given["a", 1]["peak_memory_gb"] = 2.25
    found = summary({"standard": given, "mine": cells({"a": [0.5]})})["arms"]
    assert (found["standard"]["seconds"], found["standard"]["peak_memory_gb"]) == (3.0, 2.25)
    assert found["mine"]["peak_memory_gb"] is None


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.1, "helps"), (0.0, "no difference shown"), (-0.1, "hurts")]
)
def test_a_steady_gain_is_called_by_its_sign(gain: float, verdict: str) -> None:
    base = {"a": [0.5, 0.6, 0.7], "b": [0.1, 0.3, 0.2]}
    other = {unit: [v + gain for v in row] for unit, row in base.items()}
    found = summary({"standard": cells(base), "mine": cells(other)})
    assert found["arms"]["mine"]["verdict"] == verdict
    assert found["arms"]["mine"]["gain"]["mIoU"]["mean"] == pytest.approx(gain)
    assert found["units"]["a"]["mine"]["gain"]["mIoU"]["low"] == pytest.approx(gain)


def test_gains_that_scatter_show_no_difference() -> None:
    base = {"a": [0.5, 0.5, 0.5], "b": [0.5, 0.5, 0.5]}
    other = {"a": [0.7, 0.4, 0.5], "b": [0.3, 0.5, 0.6]}
    found = summary({"standard": cells(base), "mine": cells(other)})["arms"]["mine"]
    assert found["verdict"] == "no difference shown"
    assert found["gain"]["mIoU"]["low"] < 0 < found["gain"]["mIoU"]["high"]


@pytest.mark.parametrize(("arms", "among_all"), [(1, "helps"), (7, "no difference shown")])
def test_one_of_many_arms_needs_a_clearer_gain(arms: int, among_all: str) -> None:
    base = {"a": [0.5, 0.5, 0.5]}
    other = {"a": [0.58, 0.62, 0.66]}  # at 95 % above zero, at 99.3 % not
    rivals = {f"arm {number}": cells(other) for number in range(arms)}
    for entry in list(summary({"standard": cells(base), **rivals})["arms"].values())[1:]:
        assert entry["gain"]["mIoU"]["low"] > 0
        assert (entry["verdict"], entry["among_all"]) == ("helps", among_all)
    rivals = {"standard+synthetic": cells(other), **dict(list(rivals.items())[1:])}
    [contrast] = summary({"standard": cells(base), **rivals})["contrasts"]
    assert (contrast["verdict"], contrast["among_all"]) == ("helps", among_all)


def test_arms_trained_longer_are_no_rivals() -> None:
    base, other = cells({"a": [0.5, 0.5, 0.5]}), cells({"a": [0.58, 0.62, 0.66]})
    longer = {f"longer {number}": base for number in range(6)}
    found = summary({"standard": base, "mine": other, **longer}, longer=longer)
    assert found["arms"]["mine"]["among_all"] == "helps"


def test_what_is_missing_is_null() -> None:
    found = summary({"standard": cells({"a": [0.5]}), "mine": cells({"b": [0.5]}), "empty": {}})
    assert list(found["arms"]) == ["standard", "mine"]
    assert found["arms"]["mine"]["gain"]["mIoU"] == {"mean": None, "low": None, "high": None}
    assert found["arms"]["mine"]["verdict"] == "no difference shown"
    assert found["arms"]["standard"]["gain"]["mIoU"] == {"mean": 0, "low": None, "high": None}
    assert found["contrasts"] == []
    nothing = summary({"standard": {}}, complete=False)
    assert nothing["arms"] == {}
    assert nothing["units"] == {"a": {}, "b": {}}


def test_classes_average_where_they_are_present() -> None:
    found = summary({"standard": {("a", 0): run(0.5, 0.4), ("a", 1): run(0.5, None)}})
    assert found["arms"]["standard"]["per_class"] == {"0": 0.9, "10": 0.4}
    absent = summary({"standard": {("a", 0): run(0.5, None)}})
    assert absent["arms"]["standard"]["per_class"]["10"] is None


def of_classes(*ious: float | None) -> dict[str, Any]:
    found = [value for value in ious if value is not None]
    return {
        "measures": {"mIoU": sum(found) / len(found)},
        "per_class": {str(i): value for i, value in enumerate(ious)},
        "seconds": {"train": 1.0, "test": 1.0},
        "peak_memory_gb": 0.5,
    }


def test_groups_of_classes_have_gains_of_their_own() -> None:
    base = {("a", 0): of_classes(0.9, 0.5, 0.1), ("a", 1): of_classes(0.8, 0.5, None)}
    base["b", 0] = of_classes(0.1, 0.1, 0.1)  # a unit without groups
    mine = {("a", 0): of_classes(0.9, 0.7, 0.3), ("a", 1): of_classes(0.8, 0.7, 0.2)}
    groups = {"a": [{"ids": [0], "share": 0.9}, {"ids": [2, 1], "share": 0.1}], "b": []}
    found = summary({"standard": base, "mine": mine}, groups=groups)["groups"]
    assert list(found) == ["a"]
    frequent, rare = found["a"]
    assert (rare["ids"], rare["share"]) == ([2, 1], 0.1)
    assert frequent["arms"]["mine"]["mean"] == pytest.approx(0.85)
    assert frequent["arms"]["mine"]["gain"]["mean"] == pytest.approx(0)
    assert rare["arms"]["standard"]["mean"] == pytest.approx((0.3 + 0.5) / 2)  # absent once
    gain = rare["arms"]["mine"]["gain"]
    assert gain["mean"] == pytest.approx((0.2 - 0.05) / 2)
    assert gain["low"] < 0 < gain["high"]
    assert rare["arms"]["mine"]["verdict"] == "no difference shown"


def test_classes_have_paired_gains_where_both_are_tested() -> None:
    base = {("a", 0): of_classes(0.9, 0.5, None), ("a", 1): of_classes(0.8, None, None)}
    base["b", 0] = of_classes(0.5, 0.2, None)
    mine = {("a", 0): of_classes(0.9, 0.7, None), ("a", 1): of_classes(0.9, 0.1, 0.3)}
    mine["b", 0] = of_classes(0.6, 0.4, None)
    found = summary({"standard": base, "mine": mine})["arms"]["mine"]
    assert found["per_class"]["2"] == pytest.approx(0.3)
    assert list(found["per_class_gain"]) == ["0", "1"]  # standard was never tested on 2
    gain = found["per_class_gain"]["1"]  # of seed 1 there is no pair: 0.2 in both units
    assert list(gain.values()) == pytest.approx([0.2, 0.2, 0.2])
    first = found["per_class_gain"]["0"]
    assert first["mean"] == pytest.approx((0.05 + 0.1) / 2)
    assert first["low"] < 0 < first["high"]


def test_a_class_of_one_unit_of_several_has_no_interval_over_seeds() -> None:
    base = {("a", 0): of_classes(0.9, 0.5), ("a", 1): of_classes(0.9, 0.5)}
    mine = {("a", 0): of_classes(0.9, 0.7), ("a", 1): of_classes(0.9, 0.8)}
    of_one = summary({"standard": base, "mine": mine})["arms"]["mine"]["per_class_gain"]
    assert of_one["1"]["low"] is not None
    base["b", 0] = mine["b", 0] = of_classes(0.9, None)
    found = summary({"standard": base, "mine": mine})["arms"]["mine"]["per_class_gain"]
    assert found["1"] == {"mean": pytest.approx(0.25), "low": None, "high": None}
    assert found["0"]["low"] is not None


def test_a_group_that_nobody_saw_has_no_arms() -> None:
    groups = {"a": [{"ids": [2], "share": 0.1}]}
    found = summary({"standard": {("a", 0): of_classes(0.5, 0.5, None)}}, groups=groups)
    assert found["groups"]["a"] == [{"ids": [2], "share": 0.1, "arms": {}}]


def test_contrasts_ask_what_each_source_adds() -> None:
    value = {"a": [0.5, 0.5], "b": [0.5, 0.5]}
    names = (
        "standard",
        "standard+synthetic",
        "standard+copy-paste",
        "standard+copy-paste+synthetic",
    )
    found = summary({name: cells(value) for name in names})["contrasts"]
    assert [(c["arm"], c["against"]) for c in found] == [
        ("standard+copy-paste+synthetic", "standard+copy-paste"),
        ("standard+copy-paste", "standard"),
        ("standard+synthetic", "standard"),
    ]
    assert {c["verdict"] for c in found} == {"no difference shown"}


def of_images(**scores: float | None) -> dict[str, Any]:
    per_image = [{"id": name, "mIoU": value} for name, value in scores.items()]
    return {**run(0.5), "per_image": per_image}


def test_images_of_a_single_unit_are_ranked_by_their_gain() -> None:
    base = {("a", seed): of_images(p=0.5, q=0.5, r=0.5, s=0.5, t=None) for seed in range(2)}
    mine = {
        ("a", 0): of_images(p=0.6, q=0.2, r=0.9, s=0.5, t=0.5),
        ("a", 1): of_images(p=0.6, q=0.4, r=0.5, s=0.5, t=0.5),
        ("a", 2): of_images(p=0.0, q=1.0, r=0.0, s=0.0, t=0.5),  # standard has no such seed
    }
    results = {"standard": base, "mine": mine}
    found = summary(results, units=["a"])["images"]
    assert list(found) == ["mine"]
    ranked = found["mine"]
    assert [ranked[name] for name in ("tested", "better", "worse")] == [4, 2, 1]
    assert [line["id"] for line in ranked["worst"]] == ["q", "s"]
    assert [line["id"] for line in ranked["best"]] == ["r", "p"]
    worst, steady = ranked["worst"][0]["gain"], ranked["best"][1]["gain"]
    assert worst["mean"] == pytest.approx(-0.2)
    assert worst["low"] < -0.2 < 0 < worst["high"]  # two seeds that differ
    assert list(steady.values()) == pytest.approx([0.1, 0.1, 0.1])
    assert summary(results)["images"] == {}  # several units have a table of their own
    one = {"standard": {("a", 0): of_images(p=0.5)}, "mine": {("a", 0): of_images(p=0.6)}}
    assert summary(one, units=["a"])["images"] == {}
