"""Fitting a TransGAN to a folder of pictures, and drawing from it."""

from __future__ import annotations

import pytest
from fit_contract import PicturesContract, photographs

from synthaug.errors import InputError
from synthaug.fitting import fit
from synthaug.gans import transgan


class TestTransGAN(PicturesContract):
    generator = "transgan"
    plugins = ("maskedgan", "atopk", "ada")
    kept_weights = ("snapshot",)

    def small(self, patch):
        patch.setitem(transgan.WIDTHS, 32, [32, 32, 32])

    def test_masks_single_pictures_and_sources_are_refused(self, tmp_path):
        images, out = photographs(tmp_path / "many"), tmp_path / "out"
        with pytest.raises(InputError, match="transgan learns from a folder of pictures alone"):
            self.fit(images, out, masks=images)
        with pytest.raises(InputError, match="transgan learns from a folder of pictures alone"):
            fit(images / "0.png", out=out, config=self.config())
        with pytest.raises(InputError, match="go with --generator stylegan2"):
            self.fit(images, out, source=str(tmp_path))
        assert not out.exists()
