from __future__ import annotations

import pytest
import torch

from synthaug.rendering.atlas import NOWHERE, _principal_directions, build_atlas

SIZES = [(40, 48), (33, 61), (16, 20)]


@pytest.fixture(scope="module")
def atlas():
    pictures = [
        torch.randint(0, 256, (4, *size), generator=torch.Generator().manual_seed(i)).float()
        for i, size in enumerate(SIZES)
    ]
    return build_atlas([*pictures, pictures[0].flip(2)], 3, torch.device("cpu"))


@pytest.mark.parametrize("octave", range(3))
def test_no_patch_straddles_two_pictures_or_a_border(atlas, octave):
    whole = [(h >> octave, w >> octave) for h, w in [*SIZES, SIZES[0]]]
    expected = sum(max(0, h - 4) * max(0, w - 4) for h, w in whole)
    assert len(atlas[octave].places) == expected


def test_descriptors_are_whole_numbers_and_nowhere_is_far(atlas):
    for octave in atlas:
        known = octave.descriptors[octave.places]
        assert torch.equal(known, known.round())
        farthest = (known - known.mean(0)).square().sum(1).max()
        assert 4 * farthest < 16 * NOWHERE**2
        there = torch.ones(len(octave.descriptors), dtype=torch.bool)
        there[octave.places] = False
        assert (octave.descriptors[there] == NOWHERE).all()


def test_a_patch_has_the_descriptor_of_its_place(atlas):
    finest = atlas[0]
    h, w = finest.shape
    picture = finest.pixels.T.view(1, -1, h, w)[..., : SIZES[0][0], : SIZES[0][1]]
    described = finest.describe(picture).flatten(0, 2)
    rows = torch.arange(2, SIZES[0][0] - 2)[:, None] * w + torch.arange(2, SIZES[0][1] - 2)
    assert torch.equal(described, finest.descriptors[rows.flatten()])


def test_more_places_than_float32_counts_are_in_reach():
    """Photographs of 12 megapixels ended in an index out of bounds."""
    sheet = torch.randint(0, 256, (1, 3, 20, 20), generator=torch.Generator().manual_seed(0))
    places = torch.full((2**24 + 4,), 10 * 20 + 10)
    found = _principal_directions(sheet.float(), places)
    assert found.shape == (16, 3, 5, 5)
    assert not found.any()  # one patch has no directions
