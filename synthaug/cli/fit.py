"""``synthaug fit``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli import options
from synthaug.errors import InputError


def fit_command(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the generator.")],
    image: Annotated[Path | None, typer.Argument(help="The labelled photograph.")] = None,
    mask: Annotated[Path | None, typer.Argument(help="Its mask: an index PNG of ids.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of photographs, instead of IMAGE.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, same file names.")] = None,
    no_mask: Annotated[
        bool, typer.Option("--no-mask", help="Learn from photographs alone (SIV-GAN).")
    ] = False,
    generator: Annotated[
        str | None,
        typer.Option(
            help="osmis (makes pairs), oasis (paints masks), stylegan2 or biggan (adapt "
            "--source) or transgan (many pictures). [osmis]"
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="stylegan2, biggan: folder of pretrain or convert, adapted to the images."
        ),
    ] = None,
    adaptation: Annotated[
        str | None,
        typer.Option(
            help="stylegan2, biggan: both, blocks, smoothness, plain, freezed or, stylegan2 alone, "
            "path. [both]"
        ),
    ] = None,
    smoothness: Annotated[
        float | None,
        typer.Option(
            help="both, smoothness: weight of the likeness to the source. [5]", metavar="WEIGHT"
        ),
    ] = None,
    joint_masks: Annotated[
        bool | None,
        typer.Option(
            "--joint-masks",
            help="stylegan2: let masks train the generator, too, not their head alone.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="fast, paper, small (all but osmis), compose, patch (both untrained) or "
            "auto. [auto]"
        ),
    ] = None,
    vgg: Annotated[
        Path | None,
        typer.Option(
            help="oasis: torchvision's vgg19-dcbb9e9d.pth, to pull painted pictures to the real "
            "ones in its features, too; on a CPU, steps take about twice as long.",
            metavar="FILE",
        ),
    ] = None,
    objects: Annotated[
        Path | None, typer.Option(help="compose: bank whose clean objects are pasted too.")
    ] = None,
    shift: Annotated[
        str | None,
        typer.Option(help="compose: objects go anywhere, stay near, both, or auto. [auto]"),
    ] = None,
    enlarge: Annotated[
        bool | None,
        typer.Option(
            "--enlarge/--no-enlarge",
            help="compose and fast: show small objects as if near, too; not where all pictures are "
            "taken from one distance. [enlarge]",
        ),
    ] = None,
    iterations: options.Iterations = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pairs per step. [the preset's]", metavar="N")
    ] = None,
    max_size: Annotated[
        int | None, typer.Option(help="Longer side in training. [the preset's]", metavar="PX")
    ] = None,
    flip: options.Flip = None,
    ignore: Annotated[
        list[int] | None, typer.Option(help="Id that means not labelled; repeatable.", metavar="ID")
    ] = None,
    resize: Annotated[
        bool,
        typer.Option(
            "--resize",
            help="Bring images of several sizes to the usual one; much other shapes are cropped.",
        ),
    ] = False,
    names: options.Names = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            help="maskedgan, maskedgan-spatial, maskedgan-spectral, atopk, ada, medgan, "
            "medgan-regions or medgan-object; repeatable.",
            metavar="NAME",
        ),
    ] = None,
    seed: options.Seed = None,
    accelerator: options.Accelerator = None,
    devices: options.Devices = None,
    precision: options.Precision = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    dry_run: options.DryRun = False,
) -> None:
    """Fit a generator to one labelled image, a few, or a video."""
    from synthaug.config import dump_stage, load_recipe
    from synthaug.config.fit import ADAPTED, OF_PICTURES

    config = load_recipe(
        recipe,
        overrides or (),
        {
            "fit": {
                "generator": generator,
                "source": None if source is None else str(source),
                "adaptation": adaptation,
                "smoothness": smoothness,
                "joint_masks": joint_masks,
                "preset": preset,
                "vgg": None if vgg is None else str(vgg),
                "objects": None if objects is None else str(objects),
                "shift": shift,
                "enlarge": enlarge,
                "iterations": iterations,
                "batch_size": batch_size,
                "max_size": max_size,
                "flip": flip,
                "ignore": tuple(ignore) if ignore else None,
                "resize": "crop" if resize else None,
                "names": names,
                "plugins": tuple(plugin) if plugin else None,
                "seed": seed,
                "accelerator": accelerator,
                "devices": devices,
                "precision": precision,
            }
        },
    ).fit
    if resume:
        config = options.resumed(ctx, out)
    if dry_run:
        from synthaug.fitting.presets import check_fit

        check_fit(config)
        print(dump_stage("fit", config), end="")
        return
    if not resume:
        if config.generator in ADAPTED and config.source is None:
            raise InputError(
                f"{config.generator} adapts a source: add --source FOLDER, of synthaug pretrain or "
                "convert"
            )
        alone = config.generator in OF_PICTURES and mask is None and masks is None
        _check_inputs(image, mask, images, masks, no_mask or alone)
    from synthaug.cli.progress import fit_progress, tell
    from synthaug.fitting import fit as run_fit

    path = run_fit(
        image,
        mask,
        out,
        images=images,
        masks=masks,
        resume=resume,
        overwrite=overwrite,
        progress=fit_progress(),
        echo=tell,
        config=config,
    )
    print(path)
    tell(f"next: synthaug generate {shlex.quote(str(path))} -n 100 --out BANK")


def _check_inputs(
    image: Path | None, mask: Path | None, images: Path | None, masks: Path | None, no_mask: bool
) -> None:
    if image is None and images is None:
        raise InputError("name what to learn from: IMAGE MASK, or --images DIR --masks DIR")
    if image is not None and images is not None:
        raise InputError("IMAGE and --images are both given: give one or the other")
    if (mask is None and masks is None) != no_mask:
        raise InputError(
            "give --no-mask without a mask, not with one"
            if no_mask
            else "a mask is missing: add MASK (or --masks DIR), or --no-mask to learn from "
            "photographs alone"
        )
    if (image is None and mask is not None) or (images is None and masks is not None):
        raise InputError("IMAGE goes with MASK, and --images with --masks: do not mix them")
