from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthaug.bank import Bank, write_bank
from synthaug.sample import ClassMap, Sample

CLASSES = ClassMap((0, 1, 3), ("background", "cat", "dog"))
SIZE = (36, 48)
DROPPED = "00002"


def make_sample(index: int) -> Sample:
    """A flat background of value 10 + 20 * index with one cat and, but for index 5, two dogs."""
    mask = np.zeros(SIZE, np.uint8)
    mask[4:14, 6 : 16 + index] = 1
    if index != 5:
        mask[20:30, 10:20] = 3
        mask[20:32, 30:44] = 3
    mask[0, :4] = 255
    image = np.full((*SIZE, 3), 10 + 20 * index, np.uint8)
    image[mask == 1] = (200, 30, 30)
    image[mask == 3] = (30, 200, 30)
    return Sample(image, mask, f"s{index}")


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Eight samples, one of which the filter dropped."""
    path = tmp_path_factory.mktemp("banks") / "bank"
    samples = [(make_sample(i), {"latent_seed": i}) for i in range(8)]
    made = write_bank(path, samples, [make_sample(0)], CLASSES, {})
    made.rewrite([{**r, "kept": r["id"] != DROPPED} for r in made.all_records])
    return Bank(path)


@pytest.fixture
def empty_bank(tmp_path: Path) -> Bank:
    """A bank whose samples were all dropped."""
    made = write_bank(
        tmp_path / "empty", [(make_sample(0), {})], [make_sample(0)], CLASSES, {"seed": 0}
    )
    made.rewrite([{**r, "kept": False} for r in made.all_records])
    return made


@pytest.fixture(scope="session")
def maskless(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank of pictures alone."""
    path = tmp_path_factory.mktemp("banks") / "maskless"
    unlabelled = np.full(SIZE, 255, np.uint8)
    samples = [(Sample(make_sample(i).image, unlabelled, f"s{i}"), {}) for i in range(3)]
    return write_bank(path, samples, [samples[0][0]], ClassMap(()), {})
