"""The VGG loss of OASIS, and the files that it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import test_oasis
import torch
import torchvision
from safetensors.torch import save_file
from vgg_files import vgg_distance

from synthaug import gans
from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.gans.oasis.vgg import VGGLoss
from synthaug.training import LoopSettings, TrainingState, train
from synthaug.weights import vgg19_state


@pytest.fixture(scope="module")
def loss(vgg19_file):
    return VGGLoss(vgg19_file)


def pictures(number, size=(32, 48)):
    stream = torch.Generator().manual_seed(number)
    return torch.rand(2, 3, *size, generator=stream) * 2 - 1


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (80, 64)])
def test_the_loss_is_that_of_torchvisions_network(loss, vgg19_file, size):
    painted, real = pictures(1, size), pictures(2, size)
    expected = vgg_distance(vgg19_file, painted, real)
    torch.testing.assert_close(loss(painted, real), expected, rtol=1e-4, atol=0)
    assert loss(real, real).tolist() == [0, 0]


def test_distances_stay_in_full_precision(loss):
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(pictures(1), pictures(2))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(pictures(1), pictures(2)), rtol=0.05, atol=0)


@pytest.mark.parametrize("build", [test_oasis.tiny, test_oasis.TestFastOasis().build])
def test_the_loss_teaches_the_painter_alone(loss, build):
    torch.manual_seed(0)
    gan = build()
    fake = gan.generator(gan.latent(2))
    real = torch.zeros_like(fake.images[0]).requires_grad_()
    fake = replace(fake, layout=(real, None))
    plain, names = gan.generator_terms(fake, 0), gan.state_dict().keys()
    gan.vgg = loss
    terms = gan.generator_terms(fake, 0)
    assert gan.state_dict().keys() == names
    assert terms.keys() - plain.keys() == {"vgg"}
    assert terms.beside == plain.beside | {"vgg"}  # no selection of samples weighs it
    assert terms["vgg"].shape == (2,)
    terms["vgg"].mean().backward()
    assert real.grad is None
    assert all(p.grad is None for p in gan.discriminator.parameters())
    assert all(p.grad is None and not p.requires_grad for p in loss.network.parameters())
    for name, parameter in gan.generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_few_steps_bring_pictures_nearer_to_the_real_ones_than_without(loss, vgg19_file):
    distances = []
    for vgg in (None, loss):
        torch.manual_seed(0)
        spec = {"name": "oasis", "preset": "fast", "height": 32, "width": 32, "num_classes": 3}
        spec |= {"pretrained": False, "pretrain_steps": 0, "feature_weight": 0.0}  # no other pull
        gan = gans.build(spec)
        gan.vgg = vgg
        maps = torch.randint(0, 3, (2, 4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
        images = (torch.rand(3, 3) * 2 - 1)[maps].permute(0, 3, 1, 2).contiguous()
        gan.initialise(images, maps)
        settings = LoopSettings(20, 2, 3e-3, 1e-3, 3e-3, (0.0, 0.999), 0.9, True, seed=0)
        terms = []
        train(
            TrainingState(gan, [], settings),
            images,
            maps,
            Engine("cpu", 1, "32-true"),
            lambda named, terms=terms: terms.append(named.keys()),
        )
        assert all(("g/vgg" in names) == (vgg is not None) for names in terms)
        torch.manual_seed(1)
        painted = gan.generator(gan.latent(2), maps).images[0]
        distances.append(vgg_distance(vgg19_file, painted, images).mean())
    assert distances[1] < 0.9 * distances[0]


SMALL = {"features.0.weight": torch.arange(3.0), "classifier.0.bias": torch.zeros(1)}


@pytest.mark.parametrize(
    "write",
    [
        torch.save,
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
        save_file,
    ],
    ids=["new", "legacy", "safetensors"],
)
def test_weights_are_read_from_every_format(tmp_path, write):
    write(SMALL, tmp_path / "any name")
    found = vgg19_state(tmp_path / "any name")
    assert found.keys() == {"features.0.weight"}
    assert torch.equal(found["features.0.weight"], torch.arange(3.0))


def test_half_precision_is_taken_for_what_it_is(loss, vgg19_file, tmp_path):
    halves = {k: v.half() for k, v in torch.load(vgg19_file, weights_only=True).items()}
    save_file(halves, tmp_path / "half.safetensors")
    found = VGGLoss(tmp_path / "half.safetensors")(pictures(1), pictures(2))
    torch.testing.assert_close(found, loss(pictures(1), pictures(2)), rtol=0.01, atol=0)


def named(network):
    """A state dict with a network's names and no numbers worth the name."""
    with torch.device("meta"):
        names = getattr(torchvision.models, network)(weights=None).state_dict()
    return dict.fromkeys(names, torch.zeros(1))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: SMALL, r"31 tensor\(s\) are missing \(such as features.0.bias\)"),
        (lambda: named("vgg16"), r"12 tensor\(s\) are missing"),
        (lambda: named("vgg19_bn"), r"missing .*; give torchvision's vgg19-dcbb9e9d.pth"),
        (lambda: named("vgg19") | {"head": torch.zeros(1)}, r"1 tensor\(s\) are unknown .*head"),
        (lambda: named("vgg19"), r"features.0.weight is \(1,\), not \(64, 3, 3, 3\)"),
        (lambda: {"state_dict": SMALL}, "holds no weights by name.*: give torchvision's vgg19"),
        (lambda: [torch.zeros(1)], "holds no weights by name"),
        (lambda: {0: torch.zeros(1)}, "holds no weights by name"),
        (lambda: torchvision.ops.Conv2dNormActivation(3, 3), "refused, and nothing in it was run"),
    ],
)
def test_other_weights_are_refused(tmp_path, content, words):
    torch.save(content(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", words)


def refused(path, words):
    with pytest.raises(InputError, match=words) as error:
        VGGLoss(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"nothing", b"PK\x03\x04 cut short"])
def test_damaged_files_are_refused(tmp_path, data):
    (tmp_path / "w.pth").write_bytes(data)
    refused(tmp_path / "w.pth", "holds no weights")


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "w.pth", r"no VGG19 weights at .* \(No such file .*\): give torchvision's")
    refused(tmp_path, "no VGG19 weights at")


def test_a_file_of_torchvisions_name_must_be_torchvisions(vgg19_file, tmp_path):
    path = tmp_path / "vgg19-dcbb9e9d.pth"
    path.hardlink_to(vgg19_file)
    refused(path, "SHA-256 differs.*: fetch the file again")
