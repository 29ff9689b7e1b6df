"""Writes VGG19 weights as torchvision's file holds them, at random, and takes their distance."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import vgg19


def random_state():
    """All tensors of the convolutions, and of the classifier the last one alone: it is large."""
    with torch.device("meta"):
        state = vgg19(weights=None).state_dict()
    stream = torch.Generator().manual_seed(0)
    kept = {k: v.shape for k, v in state.items() if "features" in k or k == "classifier.6.bias"}
    return {
        name: torch.randn(shape, generator=stream)
        * ((2 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1)
        for name, shape in kept.items()
    }


@torch.no_grad()
def vgg_distance(path, first, second):
    """The published loss (B,) by torchvision's own network: the first ReLU at each of its sizes."""
    state = torch.load(path, weights_only=True)
    with torch.device("meta"):
        layers = vgg19(weights=None).features
    own = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    layers.load_state_dict(own, assign=True)
    maps, at_start = [], True
    for layer in layers:
        if at_start and isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _, __, output: maps.append(output))
            at_start = False
        at_start = at_start or isinstance(layer, nn.MaxPool2d)
    layers(torch.cat([first, second]))
    differences = [(a - b).abs().mean((1, 2, 3)) for a, b in (m.chunk(2) for m in maps)]
    weights = torch.tensor([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1])
    return 10 * (torch.stack(differences, 1) * weights).sum(1)
