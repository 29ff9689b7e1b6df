"""Weights as the public package writes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from biggan_files import CONFIG, draw, public_model, write
from typer.testing import CliRunner

from synthaug.cli import app
from synthaug.conversion import convert, load_converted
from synthaug.errors import InputError
from synthaug.gans.biggan import build_generator, from_pretrained
from synthaug.gans.smoothness import smoothness_similarity


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

    def features(network):
        return lambda latent: network.features(latent)[1]

    same = smoothness_similarity(features(generator), features(generator), latent, 1.0)
    assert torch.equal(same, torch.zeros(2))
    assert (smoothness_similarity(features(generator), features(other), latent, 1.0) > 0).all()


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
