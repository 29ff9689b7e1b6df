"""Weights as the public package writes them, made here with layers of the old spectral norm."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm
from typer.testing import CliRunner

from synthaug.cli import app
from synthaug.conversion import convert, load_converted
from synthaug.errors import InputError
from synthaug.gans.biggan import build_generator, from_pretrained
from synthaug.gans.smoothness import smoothness_similarity

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


@pytest.mark.parametrize("truncation", [1.0, 0.25])
def test_the_public_weights_draw_the_same_pictures(tmp_path, truncation):
    model = public_model()
    assert "generator.layers.0.bn_0.scale.weight_orig" in model.state_dict()
    convert(write(tmp_path), tmp_path / "out")
    spec, states = load_converted(tmp_path / "out")
    assert spec.pop("name") == "biggan"
    generator = build_generator(**spec).eval()
    generator.load_state_dict(states["generator"], strict=True)
    z, classes = torch.randn(3, 4), torch.tensor([0, 6, 3])
    latent = generator.embed(z, classes)
    embedded = model["embeddings"](F.one_hot(classes, 7).float())
    with torch.no_grad():
        assert torch.equal(latent, torch.cat([z, embedded], 1))
        image = generator.draw(latent, truncation)
        assert image.shape == (3, 3, 16, 16)
        assert torch.allclose(image, draw(model, latent, truncation), atol=1e-5)


def test_smoothness_is_compared_over_the_joint_latent(tmp_path):
    spec, generator = from_pretrained(CONFIG, public_model().state_dict(), "x")
    other = build_generator(**{k: v for k, v in spec.items() if k != "name"}).eval()
    latent = torch.randn(2, generator.latent_dim)
    y = torch.randn(2, 8 * WIDTH, 8, 8)

    def features(network):
        return lambda latent: network.features(latent)[1]

    same = smoothness_similarity(features(generator), features(generator), latent, y)
    assert torch.equal(same, torch.zeros(2))
    assert (smoothness_similarity(features(generator), features(other), latent, y) > 0).all()


def test_truncations_without_statistics_are_refused():
    generator = from_pretrained(CONFIG, public_model().state_dict(), "x")[1]
    for truncation in (0.3, 0.0, 1.5):
        with pytest.raises(InputError, match="no batch statistics for truncation"):
            generator.draw(torch.randn(1, 6), truncation)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": [[False, 16]]}, "layer .* is none"),
        ({"layers": [[True, 16, 16]] * 12}, "more than 1024 px"),
        ({"layers": "many"}, "no possible layers"),
        ({"channel_width": 10**9}, "no possible channel_width"),
        ({"channel_width": 8}, "is .*, not "),
        ({"n_stats": None}, "no possible n_stats"),
        ({"eps": "small"}, "no possible eps"),
        ({"output_dim": 32}, "make 16 px, not its output_dim"),
        ({"num_classes": 8}, r"embeddings.weight is \(2, 7\), not \(2, 8\)"),
        ({"attention_layer_position": 3}, "are missing"),
    ],
)
def test_other_configurations_are_refused_in_one_line(tmp_path, change, words):
    path = write(tmp_path, CONFIG | change)
    with pytest.raises(InputError, match=words) as error:
        convert(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_needs_the_configuration_beside_the_weights(tmp_path):
    path = write(tmp_path)
    result = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "16 px, width 4, 4 blocks, z 4, 7 classes; generator" in result.stderr
    path.with_name("biggan-deep-16-config.json").unlink()
    result = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / "again")])
    assert result.exit_code == 2
    assert "BigGAN configuration" in result.stderr
    renamed = path.rename(tmp_path / "weights.pt")
    result = CliRunner().invoke(app, ["convert", str(renamed), str(tmp_path / "again")])
    assert "name it *pytorch_model.bin" in result.stderr


def test_the_published_size(tmp_path):
    layers = [
        [False, 16, 16], [True, 16, 16], [False, 16, 16], [True, 16, 8], [False, 8, 8],
        [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1],
    ]  # fmt: skip
    with torch.device("meta"):
        generator = build_generator(layers, 8)
    assert generator.size == 128
    state = generator.state_dict()
    assert state["embeddings.weight"].shape == (128, 1000)
    assert state["gen_z.weight_orig"].shape == (32768, 256)
    assert state["layers.0.bn_3.running_vars"].shape == (51, 512)
    assert state["layers.8.gamma"].shape == (1,)
