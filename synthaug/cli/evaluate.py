"""``synthaug evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from synthaug.cli import options
from synthaug.cli.progress import stage_progress

if TYPE_CHECKING:
    from synthaug.quality.features import Network


def evaluate_command(
    folder: Annotated[
        Path, typer.Argument(help="Folder that generate wrote, or fit with --generator oasis.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Painter: held-out photographs.", metavar="DIR")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Painter: their masks.", metavar="DIR")] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help='Painter: id that means "not labelled"; repeatable.', metavar="ID"),
    ] = None,
    seed: options.Seed = None,
    network: Annotated[
        str, typer.Option(help="Of SIFID, FID and KID: auto, inception_v3 or efficientnet_lite0.")
    ] = "auto",
    weights: Annotated[
        str | None, typer.Option(help="File of InceptionV3 weights.", metavar="FILE")
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement/--no-agreement", help="Train a segmenter for mIoU.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Measure a bank beside standard augmentation of its pair, or a painter beside real pictures.

    A painter paints held-out masks (--images and --masks), each once.
    """
    common: dict[str, Any] = {
        "seed": seed or 0,
        "network": cast("Network", network),
        "weights": weights,
        "progress": stage_progress(),
    }
    if images is not None or masks is not None or ignore:
        if not agreement:
            common["segmenter_steps"] = 0
        value = _evaluate_painter(folder, images, masks, ignore or (), common)
    else:
        from synthaug.evaluation import evaluate as run_evaluate

        _refuse_generator(folder)
        if not agreement:
            common["agreement_steps"] = 0
        value = run_evaluate(folder, **common)
    if as_json:
        print(json.dumps(value, indent=2))
    elif "fid" in value:
        print(f"{value['samples']} held-out pictures, FID and KID by {value['network']}")
        _print_table(("painted", "real"), _painter_rows(value))
    else:
        print(f"{value['samples']} samples, SIFID by {value['network']}")
        _print_table(("bank", "standard augmentation"), _rows(value))


def _evaluate_painter(
    folder: Path,
    images: Path | None,
    masks: Path | None,
    ignore: Sequence[int],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    from synthaug.errors import InputError
    from synthaug.map_generator import MapGenerator
    from synthaug.painting_quality import evaluate_painter
    from synthaug.training_pairs import read_training_pairs, require_one_size

    if images is None or masks is None:
        raise InputError("a painter is measured on held-out pairs: give both --images and --masks")
    painter = MapGenerator(folder, accelerator="auto")
    ids = sorted({*painter.manifest["config"].get("ignore", ()), *ignore})
    pairs = read_training_pairs(None, None, images, masks, ids)
    require_one_size(pairs, f"bring all images of {images} to one size")
    return evaluate_painter(painter, pairs, **settings)


def _refuse_generator(folder: Path) -> None:
    """Say how a generator is measured; what else is no bank, `Bank` refuses."""
    from synthaug.bank import GENERATOR_FORMAT, read_manifest
    from synthaug.errors import InputError

    manifest = read_manifest(folder, "bank")
    if isinstance(manifest, dict) and manifest.get("format") == GENERATOR_FORMAT:
        raise InputError(
            f"{folder} is a generator: draw a bank with synthaug generate and name that, or, if "
            "it paints masks, add held-out --images DIR --masks DIR"
        )


def _print_table(heads: tuple[str, str], rows: Iterable[tuple[str, Any, Any]]) -> None:
    print(f"{'':36}{heads[0]:>10}{heads[1]:>24}")
    for name, ours, theirs in rows:
        print(f"{name:36}{_figure(ours):>10}{_figure(theirs):>24}")


def _painter_rows(value: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield "FID (real: training pictures)", value["fid"]["painted"], value["fid"]["training"]
    kids = value["kid"]["painted"], value["kid"]["training"]
    yield "KID x 1000", *(1000 * kid["value"] for kid in kids)
    yield "  standard error", *(1000 * kid["error"] for kid in kids)
    if value["miou"] is not None:
        yield "mIoU (real: held-out pictures)", value["miou"]["painted"], value["miou"]["real"]
        for group in value["miou"]["groups"]:
            name = f"  classes of {100 * group['share']:.1f} % of the pixels"
            yield name, group["painted"], group["real"]
    for kind in ("colour", "texture"):
        yield f"{kind} distance", value[kind]["painted"], value[kind]["training"]
    diversity = value["diversity"]
    yield f"MS-SSIM of {diversity['noises']} pictures per map", diversity["ms_ssim"], None
    yield "perceptual diversity per map", diversity["perceptual"], None
    yield "seconds per picture", value["seconds_per_picture"], None


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
