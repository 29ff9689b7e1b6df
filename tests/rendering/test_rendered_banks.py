from __future__ import annotations

import numpy as np
import pytest

from synthaug.errors import InputError
from synthaug.generation import generate
from synthaug.rendering import PatchRenderer


def test_a_bank_is_rendered_from_the_same_latents(make_fit_folder, tmp_path):
    path = make_fit_folder()
    plain = generate(path, tmp_path / "plain", n=3, seed=1)
    rendered = generate(path, tmp_path / "rendered", n=3, seed=1, render="patches")
    assert plain.manifest["config"]["render"] is None
    assert rendered.manifest["config"]["render"] == "patches"
    expected = PatchRenderer(plain.pairs(), plain.classes).render(list(plain))
    for index, sample in enumerate(expected):
        assert rendered.records[index]["latent_seed"] == plain.records[index]["latent_seed"]
        assert np.array_equal(rendered[index].image, sample.image)
        assert np.array_equal(rendered[index].mask, sample.mask)
        assert not np.array_equal(rendered[index].image, plain[index].image)


def test_a_bank_without_masks_is_rendered(make_fit_folder, tmp_path):
    bank = generate(make_fit_folder(masks=False), tmp_path / "bank", n=2, render="patches")
    assert all((sample.mask == 255).all() for sample in bank)


def test_another_rendering_is_refused_and_nothing_written(make_fit_folder, tmp_path):
    with pytest.raises(InputError, match=r"render.*patches"):
        generate(make_fit_folder(), tmp_path / "bank", n=2, render="bicubic")
    assert not (tmp_path / "bank").exists()
