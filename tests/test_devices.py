"""What happens where a GPU is seen that cannot be used, as with an old driver; bf16 on the CPU."""

from __future__ import annotations

import warnings

import pytest
import torch

from synthaug import devices
from synthaug.config import FitConfig
from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.fitting.presets import make_plan
from synthaug.generation.generator import pick_device
from synthaug.segmenters.semantic import default_device

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices._computes.cache_clear()
    yield
    devices._computes.cache_clear()


def test_a_gpu_that_does_not_compute_is_left_alone_and_told_of_once():
    with pytest.warns(UserWarning, match=r"the GPU cannot be used \(.+\): computing on the CPU"):
        assert pick_device("auto").type == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_device().type == "cpu"
        assert make_plan(FitConfig(), (384, 640), 2, 1).preset == "fast"
        assert Engine("auto").device.type == "cpu"


@pytest.mark.filterwarnings("ignore:the GPU cannot be used")
def test_one_that_is_asked_for_is_refused():
    with pytest.raises(InputError, match="no cuda device here"):
        pick_device("cuda")
    with pytest.raises(InputError, match="no cuda device here"):
        Engine("cuda")


@pytest.mark.parametrize(("named", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_taken_where_the_cpu_has_instructions_for_it(monkeypatch, named, precision):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: named)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert Engine("cpu").precision == precision
    assert Engine("cpu", precision="32-true").precision == "32-true"


def test_what_stays_on_the_cpu_does_not_ask():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_device("cpu").type == "cpu"
        assert Engine("cpu").device.type == "cpu"
