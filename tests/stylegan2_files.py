"""Writes public StyleGAN2 files by hand, with stand-ins for the modules of NVIDIA's ports."""

from __future__ import annotations

import argparse
import collections
import pickle
import sys
import types

import torch

from synthaug import gans

SETTINGS = {"channels": [16, 16, 12, 8], "z_dim": 12, "w_dim": 10, "n_mlp": 3}


def random_gan(**options):
    """A StyleGAN2 of 32 px with no weight at its start value."""
    torch.manual_seed(3)
    gan = gans.build({"name": "stylegan2", "size": 32} | SETTINGS | options)
    with torch.no_grad():
        for parameter in gan.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    gan.generator.measure_latent_avg()
    return gan.eval()


def port_file(path, gan, **entries):
    generator = gan.generator.state_dict()
    average = generator.pop("latent_avg")
    content = {"g_ema": generator, "d": gan.discriminator.state_dict(), "latent_avg": average}
    content |= {"g": generator, "args": argparse.Namespace(size=32, lr=0.002), "ada_aug_p": 0.1}
    content |= entries
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    return path


class Module:
    """A module as NVIDIA's files keep it: its name, its source code, its attributes."""

    def __init__(self, class_name, **attributes):
        self.class_name = class_name
        self.state = {
            "training": False,
            "_parameters": collections.OrderedDict(),
            "_buffers": collections.OrderedDict(),
            "_modules": collections.OrderedDict(),
            "_non_persistent_buffers_set": set(),
            "_init_kwargs": EasyDict(c_dim=0),
            "act_gain": torch.sqrt(torch.tensor(2.0)).double().numpy()[()],  # a numpy scalar
            **attributes,
        }

    def child(self, name, *args, **attributes):
        children = self.state["_modules"]
        if name not in children:
            children[name] = Module(*args, **attributes)
        return children[name]

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('source was run')"}
        meta |= {"class_name": self.class_name, "state": self.state}
        return _reconstruct_persistent_obj, (meta,)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("never called")


class EasyDict(dict):
    pass


def write_nvidia(monkeypatch, path, content, protocol=4):
    """Pickle with modules of NVIDIA's names, which are there only meanwhile."""
    with monkeypatch.context() as patch:
        for name, member in (
            ("torch_utils.persistence", _reconstruct_persistent_obj),
            ("dnnlib.util", EasyDict),
        ):
            module = types.ModuleType(name)
            setattr(module, member.__name__, member)
            parent = name.partition(".")[0]
            patch.setitem(sys.modules, parent, types.ModuleType(parent))
            patch.setitem(sys.modules, name, module)
            patch.setattr(member, "__module__", name)
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert "torch_utils" not in sys.modules
    return path


def parameter(tensor):
    return torch.nn.Parameter(tensor.clone())


def nvidia_generator(gan, clamp):
    state = gan.generator.state_dict()
    top = Module("Generator", c_dim=0, z_dim=12, img_resolution=32)
    mapping = top.child("mapping", "MappingNetwork", c_dim=0, num_layers=3)
    mapping.state["_buffers"]["w_avg"] = state["latent_avg"]
    for index in range(3):
        layer = mapping.child(f"fc{index}", "FullyConnectedLayer", bias_gain=0.01)
        for kind in ("weight", "bias"):
            layer.state["_parameters"][kind] = parameter(state[f"style.{index + 1}.{kind}"])
    synthesis = top.child("synthesis", "SynthesisNetwork")
    kernel = torch.outer(*[torch.tensor([1.0, 3, 3, 1])] * 2) / 64
    for level, side in enumerate((4, 8, 16, 32)):
        block = synthesis.child(f"b{side}", "SynthesisBlock", architecture="skip")
        block.state["_buffers"]["resample_filter"] = kernel
        names = {"conv1": "conv1", "torgb": "to_rgb1"}
        if level == 0:
            block.state["_parameters"]["const"] = parameter(state["input.input"][0])
        else:
            names = {"conv0": f"convs.{2 * level - 2}", "conv1": f"convs.{2 * level - 1}"}
            names["torgb"] = f"to_rgbs.{level - 1}"
        for ours, theirs in {v: k for k, v in names.items()}.items():
            kind = "ToRGBLayer" if theirs == "torgb" else "SynthesisLayer"
            layer = block.child(theirs, kind, conv_clamp=clamp)
            own = layer.state["_parameters"]
            own["weight"] = parameter(state[f"{ours}.conv.weight"][0])
            affine = layer.child("affine", "FullyConnectedLayer", bias_gain=1)
            for kind in ("weight", "bias"):
                value = parameter(state[f"{ours}.conv.modulation.{kind}"])
                affine.state["_parameters"][kind] = value
            if theirs == "torgb":
                own["bias"] = parameter(state[f"{ours}.bias"].flatten())
                continue
            layer.state |= {"use_noise": True, "activation": "lrelu"}
            number = 0 if level == 0 else 2 * level - 1 + (theirs == "conv1")
            own["bias"] = parameter(state[f"{ours}.activate.bias"])
            own["noise_strength"] = parameter(state[f"{ours}.noise.weight"][0])
            layer.state["_buffers"]["noise_const"] = state[f"noises.noise_{number}"][0, 0]
            layer.state["_buffers"]["resample_filter"] = kernel
    return top


def nvidia_discriminator(gan, clamp):
    state = gan.discriminator.state_dict()
    top = Module("Discriminator", c_dim=0, img_resolution=32)
    kernel = torch.outer(*[torch.tensor([1.0, 3, 3, 1])] * 2) / 64

    def layer(block, name, ours, bias=True):
        made = block.child(name, "Conv2dLayer", conv_clamp=None if name == "skip" else clamp)
        made.state["_parameters"]["weight"] = parameter(state[f"{ours}.weight"])
        made.state["_buffers"]["resample_filter"] = kernel
        if bias:
            number = int(ours[-1]) + 1
            made.state["_parameters"]["bias"] = parameter(state[f"{ours[:-1]}{number}.bias"])

    for index, side in enumerate((32, 16, 8), 1):
        block = top.child(f"b{side}", "DiscriminatorBlock", architecture="resnet")
        if side == 32:
            layer(block, "fromrgb", "convs.0.0")
        layer(block, "conv0", f"convs.{index}.conv1.0")
        layer(block, "conv1", f"convs.{index}.conv2.1")
        layer(block, "skip", f"convs.{index}.skip.1", bias=False)
    last = top.child("b4", "DiscriminatorEpilogue", architecture="resnet")
    last.child("mbstd", "MinibatchStdLayer", group_size=2, num_channels=1)
    layer(last, "conv", "final_conv.0")
    for name, number in (("fc", 0), ("out", 1)):
        made = last.child(name, "FullyConnectedLayer", bias_gain=1)
        for kind in ("weight", "bias"):
            value = parameter(state[f"final_linear.{number}.{kind}"])
            made.state["_parameters"][kind] = value
    return top


def nvidia_content(gan, clamp=256):
    generator = nvidia_generator(gan, clamp)
    return {
        "G": generator,
        "D": nvidia_discriminator(gan, clamp),
        "G_ema": nvidia_generator(gan, clamp),
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="x.zip", resolution=32),
    }
