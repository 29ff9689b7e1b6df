"""Files as the public implementation writes them, made here by hand."""

from __future__ import annotations

import os
import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

from synthaug.errors import InputError
from synthaug.gans.oasis.checkpoints import (
    load_official_discriminator,
    load_official_generator,
)

LABELS = 4
WIDTHS = [2 * factor for factor in (16, 16, 16, 8, 4, 2, 1)]


def _spade(channels):
    return nn.ModuleDict(
        {
            "first_norm": nn.BatchNorm2d(channels, affine=False),
            "mlp_shared": nn.Sequential(nn.Conv2d(64 + LABELS, 8, 3, padding=1), nn.ReLU()),
            "mlp_gamma": nn.Conv2d(8, channels, 3, padding=1),
            "mlp_beta": nn.Conv2d(8, channels, 3, padding=1),
        }
    )


def _conv(c_in, c_out, kernel, bias=True):
    return spectral_norm(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias))


def _generator():
    blocks = []
    for c_in, c_out in pairwise(WIDTHS):
        middle = min(c_in, c_out)
        block = {
            "conv_0": _conv(c_in, middle, 3),
            "conv_1": _conv(middle, c_out, 3),
            "norm_0": _spade(c_in),
            "norm_1": _spade(middle),
        }
        if c_in != c_out:
            block |= {"conv_s": _conv(c_in, c_out, 1, bias=False), "norm_s": _spade(c_in)}
        blocks.append(nn.ModuleDict(block))
    return nn.ModuleDict(
        {
            "fc": nn.Conv2d(64 + LABELS, WIDTHS[0], 3, padding=1),
            "conv_img": nn.Conv2d(WIDTHS[-1], 3, 3, padding=1),
            "body": nn.ModuleList(blocks),
        }
    )


def _block(c_in, c_out, at):
    plain = [nn.Identity() for _ in range(at)]
    block = {
        "conv1": nn.Sequential(*plain, _conv(c_in, c_out, 3)),
        "conv2": nn.Sequential(nn.Identity(), _conv(c_out, c_out, 3)),
    }
    if c_in != c_out:
        block["conv_s"] = _conv(c_in, c_out, 1)
    return nn.ModuleDict(block)


def _discriminator():
    down = [(3, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]
    up = [(32, 32), (64, 16), (32, 16), (32, 8), (16, 8), (16, 4)]
    return nn.ModuleDict(
        {
            "body_down": nn.ModuleList(_block(*c, at=min(i, 1)) for i, c in enumerate(down)),
            "body_up": nn.ModuleList(_block(*c, at=2) for c in up),
            "layer_up_last": nn.Conv2d(4, LABELS + 1, 1),
        }
    )


@pytest.fixture
def generator_file(tmp_path):
    torch.manual_seed(0)
    module = _generator()
    assert len(module.state_dict()) == 208
    torch.save(module.state_dict(), tmp_path / "best_EMA.pth", _use_new_zipfile_serialization=False)
    return tmp_path / "best_EMA.pth", module.eval()


@pytest.fixture
def discriminator_file(tmp_path):
    torch.manual_seed(0)
    module = _discriminator()
    assert len(module.state_dict()) == 130
    torch.save(module.state_dict(), tmp_path / "best_D.pth")
    return tmp_path / "best_D.pth", module.eval()


def test_a_generator_loads_with_inferred_sizes_and_the_same_weights(generator_file):
    path, module = generator_file
    generator = load_official_generator(path, 64, 96)
    assert generator.num_classes == LABELS - 1
    assert torch.equal(generator.stem.weight, module["fc"].weight)
    x = torch.randn(1, WIDTHS[2], 8, 8)
    with torch.no_grad():
        for name in ("conv_0", "conv_s"):
            expected = module["body"][2][name](x)
            assert torch.allclose(generator.blocks[2].get_submodule(name)(x), expected, atol=1e-5)
        image = generator.paint(torch.randint(-1, 3, (1, 64, 96)), torch.randn(1, 64))
    assert image.shape == (1, 3, 64, 96)
    assert image.isfinite().all()


def test_a_discriminator_loads_and_segments(discriminator_file):
    path, module = discriminator_file
    discriminator = load_official_discriminator(path, LABELS - 1)
    x = torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        expected = module["body_down"][5]["conv1"][1](x)
        assert torch.allclose(discriminator.down[5].conv1(x), expected, atol=1e-5)
        assert discriminator(torch.rand(1, 3, 64, 64)).shape == (1, LABELS + 1, 64, 64)


def test_a_mismatch_is_named_in_one_line(generator_file, discriminator_file, tmp_path):
    _, module = generator_file
    state = module.state_dict()
    changes = {
        "missing .*blocks.0.norm_0.gamma.bias": {"body.0.norm_0.mlp_gamma.bias": None},
        "unknown .*surplus": {"surplus": torch.zeros(1)},
        r"stem.bias is \(3,\), not \(32,\)": {"fc.bias": torch.zeros(3)},
        "no kernel fc.weight": {"fc.weight": None},
    }
    for words, change in changes.items():
        wrong = {k: v for k, v in (state | change).items() if v is not None}
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(InputError, match=words) as error:
            load_official_generator(tmp_path / "wrong.pth", 64, 64)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no kernel"):
        load_official_generator(discriminator_file[0], 64, 64)
    with pytest.raises(InputError, match="for 3 classes, 7 are needed"):
        load_official_discriminator(discriminator_file[0], 7)


class _Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_never_run(tmp_path, how):
    hostile = {"fc.weight": _Hostile(f"touch {tmp_path / 'run'}")}
    if how == "torch":
        torch.save(hostile, tmp_path / "bad.pth")
    else:
        (tmp_path / "bad.pth").write_bytes(pickle.dumps(hostile))
    with pytest.raises(InputError, match="nothing in it was run"):
        load_official_generator(tmp_path / "bad.pth", 64, 64)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", [b"", b"no checkpoint at all", b"PK\x03\x04broken"])
def test_damaged_files_are_refused(tmp_path, data):
    (tmp_path / "bad.pth").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.pth"):
        load_official_discriminator(tmp_path / "bad.pth")


def test_other_content_and_missing_files_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no plain state dict"):
        load_official_generator(tmp_path / "list.pth", 64, 64)
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.pth"):
        load_official_generator(tmp_path / "nowhere.pth", 64, 64)
