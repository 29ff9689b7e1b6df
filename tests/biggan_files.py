"""Writes weights as the public package does, made here with layers of the old spectral norm."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

WIDTH, CONDITION, STATISTICS = 4, 6, 5
CONFIG = {
    "output_dim": 16,
    "z_dim": 4,
    "class_embed_dim": 2,
    "channel_width": WIDTH,
    "num_classes": 7,
    "layers": [[False, 16, 16], [True, 16, 8], [False, 8, 4], [True, 4, 1]],
    "attention_layer_position": 2,
    "eps": 1e-4,
    "n_stats": STATISTICS,
}


def sn(layer):
    return spectral_norm(layer, eps=1e-4)


class Norm(nn.Module):
    def __init__(self, channels, conditional=True):
        super().__init__()
        self.register_buffer("running_means", torch.randn(STATISTICS, channels))
        self.register_buffer("running_vars", torch.rand(STATISTICS, channels) + 0.5)
        if conditional:
            self.scale = sn(nn.Linear(CONDITION, channels, bias=False))
            self.offset = sn(nn.Linear(CONDITION, channels, bias=False))
        else:
            self.weight = nn.Parameter(torch.rand(channels) + 0.5)
            self.bias = nn.Parameter(torch.randn(channels))


def block(c_in, c_out):
    middle = c_in // 4
    widths = [c_in, middle, middle, middle, c_out]
    return nn.ModuleDict(
        {f"bn_{i}": Norm(widths[i]) for i in range(4)}
        | {
            f"conv_{i}": sn(nn.Conv2d(widths[i], widths[i + 1], k, padding=k // 2))
            for i, k in enumerate((1, 3, 3, 1))
        }
    )


def attention(channels):
    shapes = {"theta": (1, 8), "phi": (1, 8), "g": (1, 2), "o_conv": (2, 1)}
    module = nn.ModuleDict(
        {
            f"snconv1x1_{name}": sn(nn.Conv2d(channels // i, channels // o, 1, bias=False))
            for name, (i, o) in shapes.items()
        }
    )
    module.gamma = nn.Parameter(torch.tensor([0.7]))
    return module


def public_model():
    torch.manual_seed(0)
    layers = [block(before * WIDTH, after * WIDTH) for _, before, after in CONFIG["layers"]]
    layers.insert(2, attention(8 * WIDTH))
    generator = nn.ModuleDict(
        {
            "gen_z": sn(nn.Linear(CONDITION, 16 * 16 * WIDTH)),
            "layers": nn.ModuleList(layers),
            "bn": Norm(WIDTH, conditional=False),
            "conv_to_rgb": sn(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)),
        }
    )
    model = nn.ModuleDict({"embeddings": nn.Linear(7, 2, bias=False), "generator": generator})
    for _ in range(3):  # let the power iterations settle a little
        draw(model, torch.randn(2, CONDITION), 1.0)
    return model.eval()


def normalise(norm, x, condition, truncation):
    index = round(truncation * (STATISTICS - 1))
    mean, variance = norm.running_means[index], norm.running_vars[index]
    x = F.batch_norm(x, mean, variance, None, None, False, 0.0, 1e-4)
    if condition is None:
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]
    scale, offset = norm.scale(condition), norm.offset(condition)
    return x * (1 + scale[:, :, None, None]) + offset[:, :, None, None]


def draw(model, condition, truncation):
    generator = model["generator"]
    x = generator["gen_z"](condition).view(-1, 4, 4, 16 * WIDTH).permute(0, 3, 1, 2)
    ups = [up for up, _, _ in CONFIG["layers"]]
    ups.insert(2, None)
    for up, layer in zip(ups, generator["layers"], strict=True):
        if up is None:
            theta, phi, g, out = (layer[f"snconv1x1_{n}"] for n in ("theta", "phi", "g", "o_conv"))
            B, C, h, w = x.shape
            query = theta(x).view(B, C // 8, h * w)
            key = F.max_pool2d(phi(x), 2).view(B, C // 8, h * w // 4)
            weights = torch.bmm(query.permute(0, 2, 1), key).softmax(-1)
            value = F.max_pool2d(g(x), 2).view(B, C // 2, h * w // 4)
            seen = torch.bmm(value, weights.permute(0, 2, 1)).view(B, C // 2, h, w)
            x = x + layer.gamma * out(seen)
            continue
        y = x
        for index in range(4):
            y = normalise(layer[f"bn_{index}"], y, condition, truncation).relu()
            if up and index == 1:
                y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
            y = layer[f"conv_{index}"](y)
        skip = x[:, : y.shape[1]]
        x = y + (skip.repeat_interleave(2, 2).repeat_interleave(2, 3) if up else skip)
    x = normalise(generator["bn"], x, None, truncation).relu()
    return generator["conv_to_rgb"](x)[:, :3].tanh()


def write(folder, config=CONFIG, state=None):
    state = public_model().state_dict() if state is None else state
    torch.save(state, folder / "biggan-deep-16-pytorch_model.bin")
    (folder / "biggan-deep-16-config.json").write_text(json.dumps(config))
    return folder / "biggan-deep-16-pytorch_model.bin"
