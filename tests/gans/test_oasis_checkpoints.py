"""Files as the public implementation writes them, made here by hand."""

from __future__ import annotations

import pytest
import torch
from oasis_files import LABELS, judge, paint, public_discriminator, public_generator

from synthaug.errors import InputError
from synthaug.gans import build
from synthaug.gans.oasis.checkpoints import discriminator_from_official, generator_from_official

SIZE = (64, 128)


def test_a_generator_paints_what_the_public_one_paints():
    module = public_generator()
    spec, generator = generator_from_official(module.state_dict(), "best_EMA.pth", SIZE)
    assert generator.num_classes == spec["num_classes"] == LABELS - 1
    labels, noise = torch.randint(0, LABELS, SIZE), torch.randn(64)
    expected = paint(module, labels, noise)
    with torch.no_grad():
        image = generator.paint(labels[None] - 1, noise[None])[0]
    assert expected.std() > 0.1
    assert torch.allclose(image, expected, atol=1e-4)


def test_a_discriminator_judges_as_the_public_one_does():
    module = public_discriminator()
    more, discriminator = discriminator_from_official(module.state_dict(), "best_D.pth", LABELS - 1)
    image = torch.rand(3, *SIZE) * 2 - 1
    expected = judge(module, image)
    with torch.no_grad():
        assert torch.allclose(discriminator(image[None])[0], expected, atol=1e-5)
    assert expected.std() > 0.01
    spec = generator_from_official(public_generator().state_dict(), "best_EMA.pth", SIZE)[0] | more
    build(spec).discriminator.load_state_dict(discriminator.state_dict(), strict=True)


def test_a_mismatch_is_named_in_one_line():
    state = public_generator().state_dict()
    changes = {
        "missing .*blocks.0.norm_0.gamma.bias": {"body.0.norm_0.mlp_gamma.bias": None},
        "unknown .*surplus": {"surplus": torch.zeros(1)},
        r"stem.bias is \(3,\), not \(32,\)": {"fc.bias": torch.zeros(3)},
        "no kernel fc.weight": {"fc.weight": None},
        "no kernel conv_img.weight": {"conv_img.weight": torch.zeros(3, 1 << 40, 0, 3)},
        "no OASIS generator with 64 noise channels": {"fc.weight": torch.zeros(32, 60, 3, 3)},
        "no plain state dict": {"fc.weight": 3},
    }
    for words, change in changes.items():
        wrong = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(InputError, match=words) as error:
            generator_from_official(wrong, "best_EMA.pth", SIZE)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not say how large its pictures are: give --size"):
        generator_from_official(state, "best_EMA.pth")
    for size in ((96, 128), (0, 64)):
        with pytest.raises(InputError, match="multiples of 64"):
            generator_from_official(state, "best_EMA.pth", size)
    other = public_discriminator().state_dict()
    with pytest.raises(InputError, match="no kernel"):
        generator_from_official(other, "best_D.pth", SIZE)
    with pytest.raises(InputError, match=r"no kernel layer_up_last\.weight"):
        discriminator_from_official(state, "best_EMA.pth", LABELS - 1)
    with pytest.raises(InputError, match="for 3 classes, 7 are needed"):
        discriminator_from_official(other, "best_D.pth", 7)
