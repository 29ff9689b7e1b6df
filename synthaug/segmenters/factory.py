"""The user's own networks, named as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.seeding import derive_seed


class CheckedNetwork(nn.Module):
    """A user's network whose logits are checked on every pass.

    Shapes: (B, 3, H, W) float in [0, 1] -> (B, N, H, W) logits.
    """

    def __init__(self, network: nn.Module, num_classes: int, name: str) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits.

        Raises:
            InputError: they are no tensor of shape (B, N, H, W).
        """
        logits = self.network(images)
        wanted = (images.shape[0], self.num_classes, *images.shape[2:])
        if not isinstance(logits, Tensor):
            raise InputError(
                f"the network of {self.name} returns a {type(logits).__name__}: "
                f"let it return its logits, a tensor {wanted}"
            )
        if tuple(logits.shape) != wanted:
            raise InputError(
                f"the network of {self.name} returns logits {tuple(logits.shape)} for images "
                f"{tuple(images.shape)}: they must be (B, N, H, W) = {wanted}"
            )
        return logits


def build_network(
    name: str, num_classes: int, *, seed: int = 0, size: tuple[int, int] | None = None
) -> CheckedNetwork:
    """Import and call a factory ``function(num_classes=N) -> nn.Module``.

    Args:
        name: "package.module:function"; the current folder is searched, too.
        num_classes: number of classes N.
        seed: seed of torch's random weights while the factory runs.
        size: (height, width) at which the network is tried once; None = it is first run on the
            first batch.

    Raises:
        InputError: it cannot be imported or called, or gives no ``nn.Module`` or wrong logits.
    """
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError, SyntaxError) as error:
        raise InputError(
            f"cannot import {module_name!r} of segmenter {name}: {error}; name it as "
            "package.module:function and start in the folder that holds it"
        ) from error
    factory = getattr(module, function_name, None)
    if not callable(factory):
        raise InputError(
            f"{module_name} has no function {function_name!r}: name it as package.module:function"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "segmenter", "weights"))
        try:
            network = factory(num_classes=num_classes)
        except TypeError as error:
            raise InputError(f"{name}(num_classes={num_classes}) failed: {error}") from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{name}(num_classes={num_classes}) returned a {type(network).__name__}: "
            "let it return a torch.nn.Module"
        )
    checked = CheckedNetwork(network, num_classes, name)
    if size is not None:
        checked.eval()
        with torch.inference_mode():
            checked(torch.zeros(1, 3, *size))
    return checked
