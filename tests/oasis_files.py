"""Writes OASIS weights as the public code does, made here with layers of the old spectral norm."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

LABELS = 4
WIDTHS = [2 * factor for factor in (16, 16, 16, 8, 4, 2, 1)]


def public_generator(labels=LABELS):
    """A generator whose weights and statistics are all away from their start values."""
    torch.manual_seed(0)
    blocks = []
    for c_in, c_out in pairwise(WIDTHS):
        middle = min(c_in, c_out)
        block = {
            "conv_0": _conv(c_in, middle, 3),
            "conv_1": _conv(middle, c_out, 3),
            "norm_0": _spade(c_in, labels),
            "norm_1": _spade(middle, labels),
        }
        if c_in != c_out:
            block |= {"conv_s": _conv(c_in, c_out, 1, bias=False), "norm_s": _spade(c_in, labels)}
        blocks.append(nn.ModuleDict(block))
    module = nn.ModuleDict(
        {
            "fc": nn.Conv2d(64 + labels, WIDTHS[0], 3, padding=1),
            "conv_img": nn.Conv2d(WIDTHS[-1], 3, 3, padding=1),
            "body": nn.ModuleList(blocks),
        }
    )
    assert len(module.state_dict()) == 208
    return _settled(module)


def public_discriminator(labels=LABELS):
    torch.manual_seed(1)
    down = [(3, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]
    up = [(32, 32), (64, 16), (32, 16), (32, 8), (16, 8), (16, 4)]
    module = nn.ModuleDict(
        {
            "body_down": nn.ModuleList(_block(*c, at=min(i, 1)) for i, c in enumerate(down)),
            "body_up": nn.ModuleList(_block(*c, at=2) for c in up),
            "layer_up_last": nn.Conv2d(4, labels + 1, 1),
        }
    )
    assert len(module.state_dict()) == 130
    return _settled(module)


def write(folder, labels=LABELS, *, discriminator=True):
    """Write ``best_EMA.pth``, in the legacy format, and ``best_D.pth``; return the first."""
    path = folder / "best_EMA.pth"
    weights = public_generator(labels).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    if discriminator:
        torch.save(public_discriminator(labels).state_dict(), folder / "best_D.pth")
    return path


@torch.no_grad()
def paint(module, labels, noise):
    """Paint (H, W) labels, 0 = void, with (64,) noise as the specification says; (3, H, W)."""
    H, W = labels.shape
    one_hot = F.one_hot(labels, module["fc"].in_channels - 64).permute(2, 0, 1).float()
    layout = torch.cat([noise[:, None, None].expand(-1, H, W), one_hot])[None]

    def modulated(x, norm):
        hidden = norm["mlp_shared"](F.interpolate(layout, x.shape[2:]))
        return norm["first_norm"](x) * (1 + norm["mlp_gamma"](hidden)) + norm["mlp_beta"](hidden)

    x = module["fc"](F.interpolate(layout, (H // 32, W // 32)))
    for index, block in enumerate(module["body"]):
        if index > 0:
            x = F.interpolate(x, scale_factor=2)
        y = block["conv_0"](F.leaky_relu(modulated(x, block["norm_0"]), 0.2))
        y = block["conv_1"](F.leaky_relu(modulated(y, block["norm_1"]), 0.2))
        x = y + (block["conv_s"](modulated(x, block["norm_s"])) if "conv_s" in block else x)
    return module["conv_img"](F.leaky_relu(x, 0.2)).tanh()[0]


@torch.no_grad()
def judge(module, image):
    """Judge (3, H, W) as the specification says; logits (labels + 1, H, W)."""
    x, skips = image[None], []
    for index, block in enumerate(module["body_down"]):
        y = block["conv2"](F.leaky_relu(block["conv1"](F.leaky_relu(x, 0.2) if index else x), 0.2))
        if index == 0:
            x = block["conv_s"](F.avg_pool2d(x, 2))
        else:
            x = F.avg_pool2d(block["conv_s"](x) if "conv_s" in block else x, 2)
        x = x + F.avg_pool2d(y, 2)
        skips.append(x)
    for index, block in enumerate(module["body_up"]):
        x = torch.cat([skips[-1 - index], x], 1) if index else x
        y = block["conv1"](F.interpolate(F.leaky_relu(x, 0.2), scale_factor=2))
        y = block["conv2"](F.leaky_relu(y, 0.2))
        x = F.interpolate(x, scale_factor=2)
        x = y + (block["conv_s"](x) if "conv_s" in block else x)
    return module["layer_up_last"](x)[0]


def _spade(channels, labels):
    return nn.ModuleDict(
        {
            "first_norm": nn.BatchNorm2d(channels, affine=False),
            "mlp_shared": nn.Sequential(nn.Conv2d(64 + labels, 8, 3, padding=1), nn.ReLU()),
            "mlp_gamma": nn.Conv2d(8, channels, 3, padding=1),
            "mlp_beta": nn.Conv2d(8, channels, 3, padding=1),
        }
    )


def _conv(c_in, c_out, kernel, bias=True):
    return spectral_norm(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias))


def _block(c_in, c_out, at):
    plain = [nn.Identity() for _ in range(at)]  # activation and enlargement stand there
    block = {
        "conv1": nn.Sequential(*plain, _conv(c_in, c_out, 3)),
        "conv2": nn.Sequential(nn.Identity(), _conv(c_out, c_out, 3)),
    }
    if c_in != c_out:
        block["conv_s"] = _conv(c_in, c_out, 1)
    return nn.ModuleDict(block)


@torch.no_grad()
def _settled(module):
    for held in module.modules():
        if isinstance(held, nn.BatchNorm2d):
            held.running_mean.normal_()
            held.running_var.uniform_(0.5, 2)
        for _ in range(5 if hasattr(held, "weight_u") else 0):  # power iterations
            held(torch.zeros(1, held.in_channels, 1, 1))
    return module.eval()
