"""Downstream segmenters that measure what synthetic data is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from synthaug.errors import InputError

if TYPE_CHECKING:
    from synthaug.segmenters.contract import Learner

SEGMENTERS = ("unet", "fpn", "deeplabv3", "deeplabv3plus", "osvos", "matching", "repri")
UNTRAINED = ("matching", "repri")
"""Those over frozen features of the bundled encoder."""
_BUNDLED_ENCODER = "tu-tf_efficientnet_lite0"


def build_learner(
    name: str,
    num_classes: int,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    lr: float = 1e-3,
    encoder: str = _BUNDLED_ENCODER,
    parent: str | Path | None = None,
) -> Learner:
    """Build what learns to segment, by name.

    Args:
        name: one of `SEGMENTERS`, or "package.module:function" of the user's: called as
            ``function(num_classes=N)`` it returns an ``nn.Module`` giving logits (B, N, H, W) for
            images (B, 3, H, W) in [0, 1]. The current folder is searched, too.
        num_classes: number of classes N, background (channel 0) included.
        seed: seed of the random weights.
        size: (height, width) in px in which the network works; None = each picture's own.
        lr: highest learning rate of networks; "matching" and "repri" train none.
        encoder: encoder of "unet", "fpn", "deeplabv3", "deeplabv3plus" and "osvos"; any of
            segmentation-models-pytorch.
        parent: parent weights for "osvos".

    Raises:
        InputError: unknown name, a factory that cannot be used, or a parent that does not fit.
    """
    if parent is not None and name != "osvos":
        raise InputError(f"parent weights are for osvos, not {name}: leave the option out")
    if ":" in name:
        from synthaug.segmenters.factory import build_network
        from synthaug.segmenters.semantic import SemanticLearner

        network = build_network(name, num_classes, seed=seed, size=size)
        return SemanticLearner(network, lr=lr, size=size)
    if name == "osvos":
        from synthaug.segmenters.vos import OneShotVOS

        return OneShotVOS(num_classes, parent=parent, encoder=encoder, seed=seed, lr=lr, size=size)
    if name == "matching":
        from synthaug.segmenters.vos import MatchingMemory

        return MatchingMemory(num_classes, size=size)
    if name == "repri":
        from synthaug.segmenters.few_shot import RegionProportionLearner

        return RegionProportionLearner(num_classes, size=size)
    if name in SEGMENTERS:
        from synthaug.segmenters.semantic import Architecture, SemanticLearner, build_segmenter

        architecture = cast("Architecture", name)
        model = build_segmenter(architecture, num_classes, encoder, seed=seed)
        return SemanticLearner(model, lr=lr, size=size)
    raise InputError(
        f"unknown segmenter {name!r}: choose one of {', '.join(SEGMENTERS)}, or name your own "
        "as package.module:function"
    )
