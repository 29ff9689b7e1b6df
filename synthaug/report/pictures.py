"""The page of a generator's pictures: figures, samples, and strips between two latents."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthaug import files
from synthaug.config import versions
from synthaug.evaluation.picture_quality import LAST_SHARE, LEAST_SHARE, MOST_TRAINING, Drawn
from synthaug.generation import Generator
from synthaug.mixing.source import working_size
from synthaug.report import figures
from synthaug.report.page import Score
from synthaug.report.templates import render
from synthaug.sample import Sample, resize_image

FORMAT = "synthaug-picture-quality-1"
TRAINING, SAMPLES, STRIPS = 16, 48, 8
"""Training pictures, samples and strips that are shown at most."""
TILE_PX = 256
"""Longest side of a picture on the page."""
SHARP_PX = 64
"""Pictures of no longer side are kept without losses and enlarged pixel by pixel."""


def write_pictures(
    out: str | Path,
    generator: Generator,
    drawn: Drawn,
    quality: Mapping[str, Any],
    *,
    images: str | Path,
    seed: int,
    weights: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``index.html``, one file that needs no other, ``quality.json`` and ``manifest.json``.

    The folder appears when all of it is written.

    Args:
        out: the folder.
        generator: what has drawn the pictures.
        drawn: they.
        quality: what `synthaug.evaluation.picture_quality.evaluate_pictures` found.
        images: where the held-out pictures lie.
        seed: of the first sample.
        weights: file of the feature network's weights, where one was named.
        overwrite: replace an earlier output.

    Returns:
        Path of the page.

    Raises:
        InputError: the output folder is in use or cannot be written.
    """
    command = ["synthaug", "evaluate", generator.path, "--images", images, "--seed", seed]
    if generator.truncation != 1:
        command += ["--truncation", generator.truncation]
    command += ["--network", quality["network"]]
    if weights is not None:
        command += ["--weights", weights]
    command += ["--out", out]
    html = render(
        "pictures.html.j2",
        title=f"Pictures of {generator.path.name}",
        quality=quality,
        verdict=_verdict(quality),
        scores=_scores(quality),
        losses=_by_block(quality["losses"]),
        last_share=LAST_SHARE,
        training=_uris(generator.pairs[:TRAINING]),
        samples=_uris(drawn.samples[:SAMPLES]),
        strips=[
            (f"seeds {seed + 2 * i} to {seed + 2 * i + 1}", _uris(row))
            for i, row in enumerate(drawn.strips[:STRIPS])
        ],
        counts=(len(drawn.samples), len(drawn.strips)),
        sharp=max(generator.size) <= SHARP_PX,
        settings=_settings(generator, quality, images, seed),
        command=shlex.join(map(str, command)),
    )
    with files.new_directory(out, overwrite=overwrite, becomes=FORMAT) as staging:
        files.write_text(staging / "index.html", html)
        files.write_json(staging / "quality.json", dict(quality))
        manifest = {
            "format": FORMAT,
            "generator": {"path": str(generator.path), "sha256": generator.hash},
            "images": str(images),
            "seed": seed,
            "truncation": generator.truncation,
            "versions": versions(),
        }
        files.write_json(staging / "manifest.json", manifest)
    return Path(out) / "index.html"


def _verdict(quality: Mapping[str, Any]) -> str:
    ours, copies = quality["kid"]["generated"], quality["kid"]["training"]
    if copies is None:  # FID falls with the number of pictures: it cannot tell
        line = "There are too few training pictures to set the generated ones against."
    else:
        gap = ours["value"] - copies["value"]
        sure = abs(gap) > 2 * math.hypot(ours["error"], copies["error"])
        how = f"{'nearer to' if gap < 0 else 'farther from'}" if sure else "about as far from"
        line = (
            f"By KID the generated pictures are {how} the held-out ones {'than' if sure else 'as'} "
            "the training pictures themselves are."
        )
    if quality["reached"] is not None:
        line += f" Of these {quality['training']}, {quality['reached']} are reached."
    return line


def _scores(quality: Mapping[str, Any]) -> list[Score]:
    """Lay out the figures, a row per measure."""

    def kid(side: str) -> str:
        found = quality["kid"][side]
        return "" if found is None else f"{1000 * found['value']:.1f} ± {1000 * found['error']:.1f}"

    fids = quality["fid"]
    rows = [
        Score(
            "FID",
            f"{fids['generated']:.1f}",
            f"{fids['training']:.1f}",
            f"distance to the held-out pictures, by {quality['network']}; lower is closer",
        ),
        Score(
            "KID × 1000",
            kid("generated"),
            kid("training"),
            "the same with a kernel, ± its standard error; on average the same for few pictures",
        ),
    ]
    if quality["reached"] is None:
        note = f"not measured: {quality['training']} training pictures, more than {MOST_TRAINING}"
        rows.append(Score("intra-diversity", "", note=note))
    else:
        intra = quality["intra_diversity"]
        rows += [
            Score(
                "intra-diversity",
                "" if intra is None else f"{intra:.3f}",
                note="perceptual distance among samples nearest to the same training picture; "
                "copies have 0",
            ),
            Score(
                "training pictures reached",
                str(quality["reached"]),
                str(quality["training"]),
                f"{100 * LEAST_SHARE:.0f} % of the samples or more are nearest to it",
            ),
        ]
    rows.append(
        Score(
            "jump",
            f"{quality['jump']:.2f}",
            note="largest over mean perceptual step between two latents; 1 is even",
        )
    )
    if quality["smoothness"] is not None:
        rows.append(
            Score(
                "smoothness",
                f"{quality['smoothness']:.3f}",
                note="distance between derivatives of generator and source at the end of the fit, "
                "as its loss had it; 0 is the source's",
            )
        )
    return rows


def _by_block(losses: Mapping[str, float]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Lay out losses whose names end in the side of a block: columns, and rows of values.

    A loss that is not of a block has its value in a last column.
    """
    whole = "in all"
    split = [(*name.rpartition("/"), value) for name, value in losses.items()]
    blocks = list(dict.fromkeys(last for _, _, last, _ in split if last.endswith("px")))
    rows: dict[str, dict[str, str]] = {}
    for first, slash, last, value in split:
        inside = last in blocks
        name = first if inside else first + slash + last
        rows.setdefault(name, {})[last if inside else whole] = f"{value:.3f}"
    heads = [*blocks, *([whole] if any(whole in row for row in rows.values()) else [])]
    return heads, [(name, [row.get(head, "") for head in heads]) for name, row in rows.items()]


def _uris(samples: Sequence[Sample]) -> list[str]:
    size = working_size(samples[0].size, TILE_PX) if samples else (0, 0)
    lossless = max(size) <= SHARP_PX
    return [figures.data_uri(resize_image(s.image, size), lossless=lossless) for s in samples]


def _settings(
    generator: Generator, quality: Mapping[str, Any], images: str | Path, seed: int
) -> dict[str, object]:
    config = generator.manifest["config"]
    source = {key: config[key] for key in ("source", "adaptation") if config.get("source")}
    return {
        "generator": generator.path,
        "GAN": generator.manifest["gan"]["name"],
        **source,
        "held-out pictures": images,
        "size": f"{generator.size[1]} × {generator.size[0]} px",
        "seed": seed,
        **({} if generator.truncation == 1 else {"truncation": generator.truncation}),
        "network": quality["network"],
        **versions(),
    }
