"""Public StyleGAN2 files become folders of ours, hostile ones are refused."""

from __future__ import annotations

import json
import os
import pickle
import re

import pytest
import torch
from stylegan2_files import SETTINGS, nvidia_content, port_file, random_gan, write_nvidia
from typer.testing import CliRunner

from synthaug import gans
from synthaug.cli import app
from synthaug.conversion import convert, load_converted
from synthaug.errors import InputError


def assert_same_pictures(folder, gan):
    spec, states = load_converted(folder)
    loaded = gans.build(spec)
    loaded.generator.load_state_dict(states["generator"], strict=True)
    loaded.discriminator.load_state_dict(states["discriminator"], strict=True)
    loaded.eval()
    z = torch.randn(4, 12)
    with torch.no_grad():
        image = gan.generator(z).images[0]
        assert torch.equal(loaded.generator(z).images[0], image)
        assert torch.equal(loaded.discriminator(image)[0], gan.discriminator(image)[0])
        assert torch.equal(loaded.generator.styles(z, 0.5), gan.generator.styles(z, 0.5))
    return spec


def test_the_port_s_files_give_the_same_pictures(tmp_path):
    gan = random_gan()
    manifest = convert(port_file(tmp_path / "a.pt", gan), tmp_path / "out")
    spec = assert_same_pictures(tmp_path / "out", gan)
    assert spec == manifest["gan"]
    assert spec == {"name": "stylegan2", "size": 32, "clamp": None, "group": 4} | SETTINGS
    assert manifest["networks"] == ["generator", "discriminator"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


def test_the_port_s_files_with_prefixes_and_without_a_mean_or_discriminator(tmp_path):
    gan = random_gan()
    generator = gan.generator.state_dict()
    del generator["latent_avg"]
    prefixed = {f"module.{name}": value for name, value in generator.items()}
    torch.save({"g_ema": prefixed}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    manifest = convert(tmp_path / "a.pt", tmp_path / "out")
    assert manifest["networks"] == ["generator"]
    states = load_converted(tmp_path / "out")[1]
    assert set(states) == {"generator"}
    assert torch.equal(states["generator"]["latent_avg"], gan.generator.latent_avg)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("clamp", [256, None])
def test_nvidia_s_files_give_the_same_pictures(tmp_path, monkeypatch, protocol, clamp):
    gan = random_gan(clamp=clamp, group=2)
    path = write_nvidia(monkeypatch, tmp_path / "a.pkl", nvidia_content(gan, clamp), protocol)
    manifest = convert(path, tmp_path / "out")
    assert manifest["source_format"] == "NVIDIA .pkl"
    spec = assert_same_pictures(tmp_path / "out", gan)
    assert spec == {"name": "stylegan2", "size": 32, "clamp": clamp, "group": 2} | SETTINGS


def test_converted_weights_are_a_source_to_adapt_from(tmp_path):
    gan = random_gan()
    convert(port_file(tmp_path / "a.pt", gan), tmp_path / "out")
    spec, states = load_converted(tmp_path / "out")
    adapted = gans.build(spec | {"smoothness": 5.0, "block_heads": True})
    adapted.adapt(states["generator"], states["discriminator"])
    terms = adapted.generator_terms(adapted.generator(adapted.latent(2)), 1)
    assert torch.equal(terms["smoothness"], torch.zeros(2))


def _change(content, change):
    generator = content["G_ema"].state["_modules"]
    synthesis = generator["synthesis"].state["_modules"]
    if change == "labels":
        content["G_ema"].state["c_dim"] = 10
    elif change == "architecture":
        synthesis["b8"].state["architecture"] = "orig"
    elif change == "activation":
        synthesis["b8"].state["_modules"]["conv0"].state["activation"] = "linear"
    elif change == "filter":
        synthesis["b8"].state["_buffers"]["resample_filter"] = torch.ones(4, 4) / 16
    elif change == "multiplier":
        generator["mapping"].state["_modules"]["fc0"].state["bias_gain"] = 1
    elif change == "clamps":
        synthesis["b8"].state["_modules"]["conv0"].state["conv_clamp"] = 3
    elif change == "missing":
        del synthesis["b16"].state["_modules"]["conv0"].state["_parameters"]["bias"]
    elif change == "unknown":
        synthesis["b16"].state["_parameters"]["surplus"] = torch.zeros(3)
    elif change == "shape":
        synthesis["b16"].state["_modules"]["conv1"].state["_parameters"]["bias"] = torch.zeros(2)
    elif change == "twice":
        generator["again"] = generator["mapping"]
    elif change == "no module":
        content["G_ema"] = {"state": 3}
    elif change == "clamp list":
        synthesis["b8"].state["_modules"]["conv0"].state["conv_clamp"] = [256]
    elif change == "tensor":
        generator["synthesis"].state["c_dim"] = torch.zeros(2)
    elif change == "deviation":
        content["D"].state["_modules"]["b4"].state["_modules"]["mbstd"].state["group_size"] = None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("labels", "c_dim 10, not 0"),
        ("architecture", "architecture 'orig', not skip"),
        ("activation", "synthesis.b8.conv0 has another activation"),
        ("filter", "another filter"),
        ("multiplier", "learning-rate multiplier"),
        ("clamps", "clamp differently"),
        ("missing", r"convs.2.activate.bias"),
        ("unknown", "it has synthesis.b16.surplus"),
        ("shape", r"convs.3.activate.bias is \(2,\), not \(12,\)"),
        ("twice", "no tree of modules"),
        ("no module", "no tree of modules"),
        ("deviation", "minibatch deviation"),
        ("clamp list", "has conv_clamp of the type list, no number"),
        ("tensor", r"values of other kinds \(RuntimeError\)"),
    ],
)
def test_nvidia_s_files_that_would_draw_otherwise_are_refused(tmp_path, monkeypatch, change, words):
    content = nvidia_content(random_gan())
    _change(content, change)
    path = write_nvidia(monkeypatch, tmp_path / "a.pkl", content)
    with pytest.raises(InputError, match=words):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"g_ema": None}, "holds 5 entries"),
        ({"g_ema": [1]}, "g_ema is no state dict"),
        ({"g_ema": {"a": 3}}, "g_ema is no state dict"),
        ({"g_ema": {"a": torch.zeros(3)}}, "no generator of 8 to 1024 px"),
        ({"d": {"a": torch.zeros(3)}}, "no discriminator"),
        ({"latent_avg": torch.zeros(3)}, "latent_avg is no style"),
    ],
)
def test_the_port_s_files_with_other_content_are_refused(tmp_path, entries, words):
    path = port_file(tmp_path / "a.pt", random_gan(), **entries)
    with pytest.raises(InputError, match=words):
        convert(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("generator", "conv1.conv.weight"),
        ("generator", "convs.1.conv.weight"),
        ("generator", "style.1.weight"),
        ("discriminator", "convs.0.0.weight"),
    ],
)
def test_weights_of_no_width_are_refused(tmp_path, network, name):
    gan = random_gan()
    state = getattr(gan, network).state_dict()
    key = {"generator": "g_ema", "discriminator": "d"}[network]
    path = port_file(tmp_path / "a.pt", gan, **{key: state | {name: state[name][:, :0]}})
    with pytest.raises(InputError, match=f"it has no weights {re.escape(name)}"):
        convert(path, tmp_path / "out")


def test_a_pickle_of_an_old_protocol_is_called_that(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": 1}, protocol=0))
    with pytest.raises(InputError, match="nor a pickle of protocol 2 or later: known are"):
        convert(tmp_path / "a.pkl", tmp_path / "out")


def test_networks_of_different_sizes_are_refused(tmp_path):
    gan, other = random_gan(), random_gan(channels=[16, 16, 12, 6])
    small = gans.build({"name": "stylegan2", "size": 16} | SETTINGS | {"channels": [16, 16, 12]})
    for wrong in (other, small):
        path = port_file(tmp_path / "a.pt", gan, d=wrong.discriminator.state_dict())
        with pytest.raises(InputError, match="of different sizes"):
            convert(path, tmp_path / "out")


def test_damaged_converted_weights_are_refused(tmp_path):
    convert(port_file(tmp_path / "a.pt", random_gan()), tmp_path / "out")
    weights = tmp_path / "out" / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="hash differs"):
        load_converted(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no converted weights"):
        load_converted(tmp_path / "out")


# the command


def run(*words):
    return CliRunner().invoke(app, ["convert", *map(str, words)])


def test_the_command_says_what_it_found(tmp_path):
    path = port_file(tmp_path / "a.pt", random_gan())
    result = run(path, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'out'}\n"
    assert re.search(r"32 px, channels 16 16 12 8 from 4 px up, 3 mapping layers", result.stderr)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "weights.safetensors",
    ]
    assert (tmp_path / "out" / "weights.safetensors").stat().st_mode & 0o777 == 0o644
    assert run(path, tmp_path / "out").exit_code == 2
    again = run(path, tmp_path / "out", "--overwrite", "--json")
    assert json.loads(again.stdout)["gan"]["size"] == 32


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile_files(folder, command):
    """Write one file per way to attack, named after it."""
    call = Call(os.system, command)
    torch.save({"g_ema": call}, folder / "new.pt")
    torch.save({"g_ema": call}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "direct.pkl").write_bytes(pickle.dumps({"G_ema": call}))
    nested = Call(torch.storage._load_from_bytes, (folder / "old.pt").read_bytes())
    (folder / "nested.pkl").write_bytes(pickle.dumps({"G_ema": nested}))
    nested = Call(torch.storage._load_from_bytes, (folder / "new.pt").read_bytes())
    (folder / "nested_new.pkl").write_bytes(pickle.dumps({"G_ema": nested}))
    port_file(folder / "whole.pt", random_gan())
    data = (folder / "whole.pt").read_bytes()
    (folder / "cut.pt").write_bytes(data[: len(data) // 2])
    (folder / "whole.pt").unlink()
    (folder / "text.pt").write_text("no weights")
    (folder / "empty.pkl").write_bytes(b"")
    torch.save([1, 2], folder / "list.pt")
    (folder / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    (folder / "tf.pkl").write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\n.")
    return sorted(folder.iterdir())


def test_the_command_refuses_hostile_and_unknown_files_in_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    marker = tmp_path / "run"
    sources = hostile_files(tmp_path / "in", f"touch {marker}")
    assert len(sources) == 11
    for source in [*sources, tmp_path / "nowhere", tmp_path / "in"]:
        result = run(source, tmp_path / "out")
        assert result.exit_code == 2, source
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert source.name in result.stderr
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in"], source
    assert "posix.system" in run(tmp_path / "in" / "nested.pkl", tmp_path / "out").stderr
