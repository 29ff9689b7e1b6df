"""The user's own networks, named as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.seeding import derive_seed, torch_seeded
from synthaug.segmenters.semantic import STRIDE_PX, padded


class CheckedNetwork(nn.Module):
    """A user's network whose logits are checked on every pass.

    Shapes: (B, 3, H, W) float in [0, 1] -> (B, N, H, W) logits.

    Args:
        network: the network.
        num_classes: number of classes N.
        name: what error lines call it.

    Attributes:
        multiple: images are padded by reflection to sides that are multiples of this many px,
            and the logits cropped.
    """

    def __init__(self, network: nn.Module, num_classes: int, name: str) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.name = name
        self.multiple = 1

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits.

        Raises:
            InputError: the network fails, they are no tensor of shape (B, N, H, W), or they have
                no gradient in training.
        """
        try:
            logits = self.checked(images)
        except (InputError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            mode = "training" if self.training else "evaluation"
            full = "can't allocate memory" in str(error)  # a CPU's, which has no class of its own
            raise InputError(
                f"the network of {self.name} fails in {mode} mode on images "
                f"{tuple(images.shape)}: {_words(error)}: "
                + ("take smaller images or batches" if full else "mend it")
            ) from error
        if self.training and torch.is_grad_enabled() and not logits.requires_grad:
            raise InputError(
                f"the logits of {self.name} have no gradient in training mode: "
                "leave torch.no_grad() and detach() out of its forward"
            )
        return logits

    def checked(self, images: Tensor) -> Tensor:
        """Return the network's logits; what the network raises is raised as it is.

        Raises:
            InputError: they are no tensor of shape (B, N, H, W).
        """
        height, width = images.shape[2:]
        if self.multiple > 1:
            images = padded(images, self.multiple)
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
        return logits[..., :height, :width]


def find_factory(name: str) -> Callable[..., Any]:
    """Import a factory, see `build_network`, without calling it.

    Raises:
        InputError: it cannot be imported.
    """
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a stranger's module raises
        raise InputError(
            f"cannot import {module_name!r} of segmenter {name}: {_words(error)}; name it as "
            "package.module:function and start in the folder that holds it"
        ) from error
    factory: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(factory):
        raise InputError(
            f"{module_name} has no function {function_name!r}: name it as package.module:function"
        )
    return factory


def build_network(
    name: str, num_classes: int, *, seed: int = 0, size: tuple[int, int] | None = None
) -> CheckedNetwork:
    """Import and call a factory ``function(num_classes=N) -> nn.Module``.

    Args:
        name: "package.module:function"; the current folder is searched, too.
        num_classes: number of classes N.
        seed: seed of torch's random weights while the factory runs, and while it is tried.
        size: (height, width) at which the network is tried once; if it fails there, as networks
            do whose strides do not divide the size, images are padded to multiples of 32 px.
            None = it is first run on the first batch, as it is.

    Raises:
        InputError: it cannot be imported or called, or gives no ``nn.Module`` or wrong logits, or
            fails on images.
    """
    factory = find_factory(name)
    with torch_seeded(derive_seed(seed, "segmenter", "weights")):
        try:
            network = factory(num_classes=num_classes)
        except Exception as error:
            raise InputError(
                f"{name}(num_classes={num_classes}) failed: {_words(error)}: mend it"
            ) from error
        if not isinstance(network, nn.Module):
            raise InputError(
                f"{name}(num_classes={num_classes}) returned a {type(network).__name__}: "
                "let it return a torch.nn.Module"
            )
        checked = CheckedNetwork(network, num_classes, name)
        if size is not None:
            _try(checked, size)  # seeded, too: lazy layers draw their weights in it
    return checked


def _try(network: CheckedNetwork, size: tuple[int, int]) -> None:
    """Run a network on a black image, padded if it must be; leave it so that it runs."""
    network.eval()
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    for multiple in (1, STRIDE_PX):
        network.multiple = multiple
        try:
            with torch.no_grad():  # what a network keeps in inference mode could not be trained on
                network.checked(torch.zeros(1, 3, *size, device=device))
            return
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            failure = error
    raise InputError(
        f"the network of {network.name} fails on images (1, 3, {size[0]}, {size[1]}), "
        f"also padded to multiples of {STRIDE_PX} px: {_words(failure)}"
    ) from failure


def _words(error: Exception) -> str:
    """Kind and beginning of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
