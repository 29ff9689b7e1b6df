"""``synthaug evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from synthaug.cli import options
from synthaug.cli.progress import stage_progress, tell

if TYPE_CHECKING:
    from synthaug.generation import Generator
    from synthaug.quality.features import Network


def evaluate_command(
    folder: Annotated[Path, typer.Argument(help="Folder that generate, fit or convert wrote.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Generator: held-out photographs.", metavar="DIR"),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Painter (oasis): their masks.", metavar="DIR")
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help='Painter: id that means "not labelled"; repeatable.', metavar="ID"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Generator but for painters: folder of a page with the figures, samples and "
            "pictures between latents.",
        ),
    ] = None,
    seed: options.Seed = None,
    truncation: options.Truncation = None,
    network: Annotated[
        str, typer.Option(help="Of SIFID, FID and KID: auto, inception_v3 or efficientnet_lite0.")
    ] = "auto",
    weights: Annotated[
        str | None, typer.Option(help="File of InceptionV3 weights.", metavar="FILE")
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement/--no-agreement", help="Train a segmenter for mIoU.")
    ] = True,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Measure a bank beside standard augmentation of its pair, or a generator beside real pictures.

    A painter paints held-out masks (--images and --masks), each once; of a converted one there are
    no training pictures to set beside it or to train the segmenter of mIoU on. The pictures of any
    other generator that has latents are compared with held-out ones (--images alone).
    """
    from synthaug.errors import InputError

    common: dict[str, Any] = {
        "seed": seed or 0,
        "network": cast("Network", network),
        "weights": weights,
        "progress": stage_progress(),
    }
    generator = None
    if images is not None or masks is not None or ignore:
        generator = _open(folder, images, masks, ignore, truncation)
    if generator is not None and not generator.paints_masks:
        assert images is not None
        if not agreement:
            raise InputError("pictures alone are measured, no segmenter: omit --no-agreement")
        _evaluate_pictures(generator, images, out, overwrite, common, as_json)
        return
    if out is not None or overwrite or truncation is not None:
        raise InputError(
            "--out, --overwrite and --truncation are for pictures of a generator: leave them out"
        )
    if generator is not None:
        _evaluate_painter(generator, images, masks, ignore or (), agreement, common, as_json)
    else:
        _evaluate_bank(folder, agreement, common, as_json)


def _open(
    folder: Path,
    images: Path | None,
    masks: Path | None,
    ignore: Sequence[int] | None,
    truncation: float | None,
) -> Generator:
    """Open a generator that can be measured on what is named."""
    from synthaug.errors import InputError
    from synthaug.generation import Generator, load_generator

    psi = 1.0 if truncation is None else truncation
    generator = load_generator(folder, accelerator="auto", truncation=psi)
    if generator.paints_masks and (images is None or masks is None):
        raise InputError("a painter is measured on held-out pairs: give both --images and --masks")
    if not generator.paints_masks and (images is None or masks is not None or ignore):
        raise InputError(
            f"{folder} does not paint masks: measure its pictures, with --images alone"
        )
    if not isinstance(generator, Generator):
        raise InputError(
            f"{folder} has no latents to draw pictures from: draw a bank with synthaug generate "
            "and name that"
        )
    return generator


def _evaluate_bank(
    folder: Path, agreement: bool, settings: Mapping[str, Any], as_json: bool
) -> None:
    from synthaug.evaluation.bank_quality import evaluate

    _refuse_generator(folder)
    steps: dict[str, Any] = {} if agreement else {"agreement_steps": 0}
    value = evaluate(folder, **settings, **steps)
    head = f"{value['samples']} samples, SIFID by {value['network']}"
    _show(value, head, ("bank", "standard augmentation"), _rows(value), as_json)


def _evaluate_painter(
    painter: Generator,
    images: Path | None,
    masks: Path | None,
    ignore: Sequence[int],
    agreement: bool,
    settings: Mapping[str, Any],
    as_json: bool,
) -> None:
    from synthaug.evaluation.painting_quality import evaluate_painter
    from synthaug.fitting.training_pairs import read_training_pairs, require_one_size
    from synthaug.generation import MapGenerator

    assert isinstance(painter, MapGenerator)
    ids = sorted({*painter.manifest["config"].get("ignore", ()), *ignore})
    pairs, _ = read_training_pairs(None, None, images, masks, ids, white=painter.white_is_object)
    require_one_size(pairs, f"bring all images of {images} to one size")
    steps: dict[str, Any] = {} if agreement else {"segmenter_steps": 0}
    value = evaluate_painter(painter, pairs, **settings, **steps)
    head = f"{value['samples']} held-out pictures, FID and KID by {value['network']}"
    _show(value, head, ("painted", "real"), _painter_rows(value), as_json)


def _evaluate_pictures(
    generator: Generator,
    images: Path,
    out: Path | None,
    overwrite: bool,
    settings: Mapping[str, Any],
    as_json: bool,
) -> None:
    from synthaug.evaluation import picture_quality
    from synthaug.files import check_output_folder
    from synthaug.quality.features import load_feature_net
    from synthaug.report.pictures import FORMAT

    if out is not None:
        reads = (generator.path, images)
        check_output_folder(out, overwrite=overwrite, reads=reads, becomes=FORMAT)
    seed, progress = settings["seed"], settings["progress"]
    held_out = picture_quality.read_held_out(generator, images, seed=seed)
    net = load_feature_net(settings["network"], settings["weights"])
    drawn = picture_quality.draw_pictures(generator, seed=seed, progress=progress)
    value = picture_quality.evaluate_pictures(
        generator, drawn, held_out, seed=seed, net=net, progress=progress
    )
    truncated = "" if generator.truncation == 1 else f", truncation {generator.truncation:g},"
    head = (
        f"{value['samples']} pictures{truncated} beside {value['held_out']} held-out ones, FID and "
        f"KID by {value['network']}"
    )
    _show(value, head, ("generated", "training pictures"), _picture_rows(value), as_json)
    if out is not None:
        from synthaug.report.pictures import write_pictures

        page = write_pictures(
            out,
            generator,
            drawn,
            value,
            images=images,
            seed=seed,
            weights=settings["weights"],
            overwrite=overwrite,
        )
        (tell if as_json else print)(str(page))


def _refuse_generator(folder: Path) -> None:
    """Say how a generator is measured; what else is no bank, `Bank` refuses."""
    from synthaug.bank import GENERATOR_FORMAT, read_manifest
    from synthaug.errors import InputError

    manifest = read_manifest(folder, "bank")
    if isinstance(manifest, dict) and manifest.get("format") == GENERATOR_FORMAT:
        raise InputError(
            f"{folder} is a generator: draw a bank with synthaug generate and name that, or add "
            "held-out --images DIR and, if it paints masks, --masks DIR"
        )


def _show(
    value: Mapping[str, Any],
    head: str,
    sides: tuple[str, str],
    rows: Iterable[tuple[str, Any, Any]],
    as_json: bool,
) -> None:
    if as_json:
        print(json.dumps(value, indent=2))
    else:
        print(head)
        _print_table(sides, rows)


def _print_table(heads: tuple[str, str], rows: Iterable[tuple[str, Any, Any]]) -> None:
    print(f"{'':36}{heads[0]:>10}{heads[1]:>24}")
    for name, ours, theirs in rows:
        print(f"{name:36}{_figure(ours):>10}{_figure(theirs):>24}")


def _painter_rows(value: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield "FID (real: training pictures)", value["fid"]["painted"], value["fid"]["training"]
    yield from _kid_rows(value["kid"]["painted"], value["kid"]["training"])
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


def _picture_rows(value: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield "FID", value["fid"]["generated"], value["fid"]["training"]
    yield from _kid_rows(value["kid"]["generated"], value["kid"]["training"])
    if value["reached"] is not None:  # few training pictures
        yield "intra-diversity around them", value["intra_diversity"], None
        yield "training pictures reached", value["reached"], value["training"]
    yield "jump between latents", value["jump"], None
    if value["smoothness"] is not None:
        yield "smoothness: distance to the source", value["smoothness"], None


def _kid_rows(*kids: Mapping[str, float] | None) -> Iterator[tuple[str, Any, Any]]:
    for name, key in (("KID x 1000", "value"), ("  standard error", "error")):
        ours, theirs = (None if kid is None else 1000 * kid[key] for kid in kids)
        yield name, ours, theirs


def _rows(value: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    from synthaug.report.scores import near_copies

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
    label = "near copies of the training pair, before filtering"
    yield label, near_copies(copies), copies["standard"]
    if value["mask_agreement"] is not None:
        yield "mask agreement, IoU of objects", value["mask_agreement"]["foreground_iou"], None
        yield "mask agreement, mIoU", value["mask_agreement"]["miou"], None


def _figure(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
