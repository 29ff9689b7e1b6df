"""``synthaug evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from synthaug.cli import options

if TYPE_CHECKING:
    from synthaug.quality.features import Network


def evaluate_command(
    bank: Annotated[Path, typer.Argument(help="Folder that generate wrote.")],
    seed: options.Seed = None,
    network: Annotated[
        str, typer.Option(help="Of SIFID: auto, inception_v3 or efficientnet_lite0.")
    ] = "auto",
    weights: Annotated[
        str | None, typer.Option(help="File of InceptionV3 weights.", metavar="FILE")
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement/--no-agreement", help="Train a segmenter on the bank.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Measure a bank beside standard augmentation of its pair."""
    from synthaug.evaluation import evaluate as run_evaluate

    value = run_evaluate(
        bank,
        seed=seed or 0,
        network=cast("Network", network),
        weights=weights,
        progress=lambda part: print(f"{part} ...", file=sys.stderr, flush=True),
        **({} if agreement else {"agreement_steps": 0}),
    )
    if as_json:
        print(json.dumps(value, indent=2))
        return
    print(f"{value['samples']} samples, SIFID by {value['network']}")
    print(f"{'':36}{'bank':>10}{'standard augmentation':>24}")
    for name, ours, standard in _rows(value):
        print(f"{name:36}{_figure(ours):>10}{_figure(standard):>24}")


def _rows(value: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for depth, pair in enumerate(zip(*value["sifid"].values(), strict=True), start=1):
        yield f"SIFID-{depth}", *pair
    diversity = value["diversity"]
    yield "perceptual diversity", diversity["bank"], diversity["standard"]
    yield "  relative", diversity["ratio"], 1.0
    yield "  of the bank, augmented, relative", diversity["combined_ratio"], None
    nearest = value["nearest_training_distance"]
    for kind in ("mean", "min"):
        yield f"nearest-training distance, {kind}", nearest["bank"][kind], nearest["standard"][kind]
    copies = value["memorised"]
    yield "near copies of the training pair", copies["bank"], copies["standard"]
    if value["mask_agreement"] is not None:
        yield "mask agreement, IoU of objects", value["mask_agreement"]["foreground_iou"], None
        yield "mask agreement, mIoU", value["mask_agreement"]["miou"], None


def _figure(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
