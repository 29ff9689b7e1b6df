import pytest
import timm
import torch

from synthaug.backbone import TAP_CHANNELS, FrozenLite0
from synthaug.weights import efficientnet_lite0_state


@pytest.mark.parametrize("size", [(64, 96), (61, 107)])
def test_features_equal_timm(size: tuple[int, int]) -> None:
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    reference.load_state_dict(efficientnet_lite0_state(), strict=True)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        ours = FrozenLite0()(x)
        y, taps, number = reference.bn1(reference.conv_stem(x)), [], 0
        for stage in reference.blocks:
            for block in stage:
                y = block(y)
                if number in (0, 2, 4, 10):
                    taps.append(y)
                number += 1
    assert [t.shape[1] for t in ours] == list(TAP_CHANNELS)
    for mine, theirs in zip(ours, taps, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_frozen_but_transparent() -> None:
    net = FrozenLite0().train()
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    net(x)[-1].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training
