"""Hundreds of classes, nearly all pixels background, as in LVIS: OASIS trains all the same."""

from __future__ import annotations

import json
import multiprocessing
import resource

import numpy as np
import pytest
from PIL import Image

from synthaug.config import FitConfig
from synthaug.fitting import fit
from synthaug.generation import MapGenerator
from synthaug.seeding import numpy_stream

CLASSES = 200
PAIRS = 24


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Write 64x64 scenes with cells of rare classes, each of its own colour, on 5 % of the area."""
    root = tmp_path_factory.mktemp("long-tail")
    colours = numpy_stream(0, "colours").integers(0, 256, (CLASSES, 3))
    rare = numpy_stream(0, "rare").permutation(np.arange(1, CLASSES))
    for number in range(PAIRS):
        stream = numpy_stream(number, "scene")
        cells = np.zeros(16 * 16, np.uint8)
        places = stream.permutation(256)[:13]
        cells[places] = np.resize(np.roll(rare, -9 * number), 13)
        mask = np.kron(cells.reshape(16, 16), np.ones((4, 4), np.uint8))
        image = colours[mask] + stream.normal(0, 5, (64, 64, 3))
        for kind, array in (("images", image.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{number}.png")
    return {"images": root / "images", "masks": root / "masks"}


def fitted(out, config, pairs):
    """Fit, and return the most memory that this process has held, in KiB."""
    fit(out=out, config=config, echo=silent, **pairs)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def silent(line):
    """Take a line and say nothing."""


def test_a_long_tail_is_fitted_without_collapse(pairs, tmp_path):
    config = FitConfig(
        generator="oasis",
        preset="fast",
        iterations=48,
        batch_size=4,
        max_size=64,
        accelerator="cpu",
        precision="32-true",
        checkpoint_s=600,
    )
    alone = multiprocessing.get_context("spawn").Pool(1)  # its peak is that of this fit
    with alone as pool:
        peak_kib = pool.apply(fitted, (tmp_path / "fitted", config, pairs))
    assert peak_kib < 6 * 2**20
    lines = (tmp_path / "fitted" / "metrics.jsonl").read_text().splitlines()
    terms = [json.loads(line) for line in lines]
    values = [v for line in terms for v in line.values() if isinstance(v, int | float)]
    assert np.isfinite(values).all()
    judged = [line["d/real"] for line in terms if "d/real" in line]
    assert judged[-1] < 0.8 * judged[0]

    painter = MapGenerator(tmp_path / "fitted")
    assert len(painter.classes) == CLASSES
    background = np.mean([(pair.mask == 0).mean() for pair in painter.pairs])
    assert background == pytest.approx(0.95, abs=0.01)
    first, second = (painter.render(pair.mask, 0).astype(int) for pair in painter.pairs[:2])
    assert first.std() > 3  # not one grey
    changed = painter.pairs[0].mask != painter.pairs[1].mask
    assert np.abs(first - second)[changed].mean() > 2 * np.abs(first - second)[~changed].mean()
