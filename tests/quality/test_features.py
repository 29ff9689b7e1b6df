from pathlib import Path

import pytest
import torch

from synthaug.errors import InputError
from synthaug.quality.features import (
    InceptionFeatures,
    Lite0Features,
    batch_size_for,
    load_feature_net,
    pooled_features,
)


@pytest.fixture(scope="module")
def inception() -> InceptionFeatures:
    return InceptionFeatures(seed=0)


def test_inception_tap_shapes(inception: InceptionFeatures) -> None:
    net = inception
    with torch.no_grad():
        maps = net(torch.zeros(1, 3, 299, 299))
    assert [tuple(m.shape) for m in maps] == [
        (1, 64, 147, 147),
        (1, 192, 71, 71),
        (1, 768, 17, 17),
        (1, 2048, 8, 8),
    ]
    assert len(net.tap_names) == 4


def test_inception_keeps_native_size_and_enlarges_tiny_images(inception: InceptionFeatures) -> None:
    net = inception
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 240, 427))[0].shape[-2:] == (117, 211)
        assert net(torch.zeros(1, 3, 75, 80))[3].shape[-2:] == (1, 1)
        small = net(torch.zeros(1, 3, 32, 48))
    assert small[0].shape[-2:] == (35, 53)


def test_inception_equals_torchvision_on_the_same_weights(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    whole = inception_v3(weights=None, init_weights=False, aux_logits=True).eval()
    path = tmp_path / "weights.pth"
    torch.save(whole.state_dict(), path)
    net = InceptionFeatures(path)
    outputs = {}
    for name in net.tap_names:
        whole.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: outputs.__setitem__(name, out)
        )
    image = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole(image * 2 - 1)
        maps = net(image)
    assert net.name == "inception_v3"
    for name, mine in zip(net.tap_names, maps, strict=True):
        torch.testing.assert_close(mine, outputs[name])


def test_random_weights_follow_the_seed() -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    same = [Lite0Features(pretrained=False, seed=1)(image)[3] for _ in range(2)]
    other = Lite0Features(pretrained=False, seed=2)(image)[3]
    assert torch.equal(*same)
    assert not torch.equal(same[0], other)


def test_auto_falls_back_on_the_bundled_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert load_feature_net().name == "efficientnet_lite0"
    with pytest.raises(InputError, match="no InceptionV3 weights"):
        load_feature_net("inception_v3")


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown feature network"):
        load_feature_net("vgg")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no InceptionV3 weights at"):
        load_feature_net("inception_v3", tmp_path / "absent.pth")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"nothing")
    with pytest.raises(InputError, match="SHA-256"):
        load_feature_net("auto", damaged)


def test_networks_stay_frozen() -> None:
    net = Lite0Features().train()
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())


def test_batches_shrink_with_the_image() -> None:
    assert batch_size_for(64, 64) == 16
    assert batch_size_for(4000, 4000) == 1


def test_pooled_features_are_means_over_positions(inception: InceptionFeatures) -> None:
    stream = torch.Generator().manual_seed(0)
    batches = [torch.rand(2, 3, 40, 50, generator=stream), torch.rand(1, 3, 64, 32)]
    net = Lite0Features(pretrained=False)
    found = pooled_features(batches, net)
    assert found.shape == (3, 112)
    assert torch.allclose(found[0], net(batches[0][:1])[3][0].mean((1, 2)) / 4, atol=1e-5)
    deep = pooled_features(batches[1:], inception)
    whole = torch.nn.functional.interpolate(batches[1], (299, 299), mode="bilinear")
    assert deep.shape == (1, 2048)
    assert torch.allclose(deep, inception(whole)[3].mean((2, 3)), atol=1e-5)
