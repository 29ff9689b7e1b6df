from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.mixing.arms import Arm

MakeUnit = Callable[..., Unit]
MakeBank = Callable[..., Path]
TWICE = Arm("again", {"real": 1.0}, augment=True)


def tiny_network(num_classes: int) -> nn.Module:
    """Two small convolutions: it learns colours."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 3, padding=1)
    )


def learn(units: list[Unit], out: Path, **options: Any) -> dict[str, Any]:
    """Compare with the tiny network on one thread."""
    settings = {"segmenter": f"{__name__}:tiny_network", "steps": 60, "batch_size": 4, "lr": 0.02}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return compare(units, out, **{**settings, **options})
    finally:
        torch.set_num_threads(threads)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def runs(out: Path) -> dict[str, str]:
    """Every run file and its content."""
    return {str(p.relative_to(out / "runs")): p.read_text() for p in out.glob("runs/*/*/*.json")}


def test_two_equal_arms_show_no_difference(tmp_path: Path, make_unit: MakeUnit) -> None:
    result = learn([make_unit()], tmp_path / "out", arms=["standard", TWICE], seeds=3)
    arm = result["arms"]["again"]
    assert arm["gain"]["J&F"] == {"mean": 0, "low": 0, "high": 0}
    assert arm["mean"] == result["arms"]["standard"]["mean"]
    assert arm["mean"]["J"] > 0.8
    assert arm["verdict"] == "no difference shown"
    assert result["complete"]


@pytest.mark.parametrize(
    "bad", [{"masks": "inverted"}, {"masks": "random"}, {"masks": "random", "picture": "noise"}]
)
def test_a_bad_bank_hurts(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank, bad: dict[str, str]
) -> None:
    arm = Arm("standard+synthetic", {"real": 0.5, "synthetic": 0.5}, True, weight=3.0)
    result = learn(
        [make_unit()],
        tmp_path / "out",
        arms=[arm],
        seeds=3,
        sources={"toy": {"synthetic": make_bank(**bad)}},
    )
    found = result["arms"]["standard+synthetic"]
    assert found["gain"]["J&F"]["high"] < 0
    assert found["verdict"] == "hurts"
    assert result["contrasts"] == [
        {
            "arm": "standard+synthetic",
            "against": "standard",
            "gain": found["gain"]["J&F"],
            "verdict": "hurts",
        }
    ]


def test_a_good_bank_of_unseen_scenes_does_no_harm(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank
) -> None:
    result = learn(
        [make_unit()],
        tmp_path / "out",
        arms=["standard+synthetic"],
        seeds=3,
        sources={"toy": {"synthetic": make_bank()}},
    )
    assert result["arms"]["standard+synthetic"]["verdict"] != "hurts"
