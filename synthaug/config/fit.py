"""How a generator is fitted."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Accelerator = Literal["auto", "cpu", "cuda", "gpu", "mps"]
ADAPTED = ("stylegan2", "biggan")
"""Generators that adapt a source, or are one."""
OF_PICTURES = (*ADAPTED, "transgan")
"""Generators that learn from pictures without masks."""
OF_COMPOSE = ("generated_share", "background_share", "shift", "copies")
"""Options of the preset ``compose`` alone."""


Resize = Literal["crop", "stretch"]
Adaptation = Literal["both", "plain", "blocks", "smoothness", "freezed", "path"]
SMOOTH = ("both", "smoothness")
"""Adaptations with smoothness similarity."""


@dataclass(frozen=True)
class FitConfig:
    """How a generator is fitted.

    Attributes:
        generator: ``osmis`` makes pairs of one labelled image or a few; ``oasis`` paints label
            maps, learned from tens of pairs up; ``stylegan2`` adapts a trained generator of
            pictures to a few, or, without a source, learns from many; so does ``biggan``;
            ``transgan``, made of transformers, learns from many.
        preset: ``fast`` (frozen pre-trained features, minutes on a CPU), ``paper`` (the published
            OSMIS), ``compose`` (no training: the pair's own objects, moved over its background),
            ``patch`` (no training: noise and the pair's patches) or ``auto`` (fast or paper, by
            device and image size). Of ``oasis``: ``fast``, ``paper``, ``small`` (narrower than
            published, for a GPU and a few hundred pictures) or ``auto`` (fast or small). Of
            ``stylegan2`` and ``biggan``: ``small``, ``paper`` or ``auto``, which is small without a
            GPU or without a source. Of ``transgan``: ``small``.
        iterations: training steps; None = the preset's.
        batch_size: pairs per step; None = the preset's.
        max_size: longer side in training, px; None = the preset's.
        seed: every random draw follows from it.
        accelerator: where to train.
        devices: number of processes, one per device.
        precision: arithmetic, as Lightning Fabric names it; ``auto`` takes bf16-mixed where the
            processor computes it natively, and 32-true elsewhere.
        flip: mirror images of the pair are plausible and may be learned from.
        ignore: ids in the masks that stand for "not labelled".
        resize: bring pictures of several sizes to their median height and width: ``stretch``, or
            ``crop`` those first, around their objects, that would be stretched by more than half;
            None: all have one size.
        names: of the masks' ids, a list, text or file as `synthaug.formats.names.read_names` takes
            them; without, they are ``class_ID``.
        plugins: names of data-efficient training's plug-ins, `synthaug.plugins.named`.
        ablate: oasis: what to leave out, to measure its worth: ``labelmix``, ``balance`` (of the
            classes) or ``noise``.
        vgg: oasis: file of torchvision's ImageNet VGG19 weights, ``vgg19-dcbb9e9d.pth`` or the same
            saved anew: painted pictures are then also pulled to the real ones in its features.
            None as published.
        source: stylegan2 and biggan: folder of ``pretrain`` or ``convert`` to adapt.
        adaptation: stylegan2 and biggan: ``both`` (a loss over all blocks of the discriminator,
            and smoothness similarity), ``blocks`` or ``smoothness`` alone, ``plain`` (neither),
            ``freezed`` (neither, and the discriminator's first blocks stay as they are) or, of
            stylegan2, ``path`` (neither, but path-length regularisation).
        smoothness: weight of smoothness similarity, where the adaptation has it; None = the
            published 5.
        joint_masks: stylegan2 with masks: train the generator with them, in their third of the
            steps, too; otherwise they are learned last, on a generator that stays as it is.
        sample_every: steps between sample grids; None = the preset's.
        checkpoint_s: seconds between checkpoints.
        objects: compose: bank whose clean objects are pasted too.
        generated_share: compose: share of pasted objects that come from that bank.
        background_share: compose: share of backgrounds that come from that bank.
        shift: compose: objects go ``anywhere``, stay ``near`` their place, or ``both``: anywhere in
            half of the samples, in the others within half of the width and a quarter of the
            height; ``auto`` is near in scenes, where classes other than the background cover most
            of a picture, and both elsewhere.
        enlarge: compose and osmis fast: objects that cover little of a picture are also shown as if
            near, up to four times as large; False where all are taken from one distance.
        copies: compose: at most this many objects are pasted once more; None = 2 where a picture
            shows several, 0 where each shows one.
    """

    generator: Literal["osmis", "oasis", "stylegan2", "biggan", "transgan"] = "osmis"
    preset: Literal["auto", "fast", "small", "paper", "compose", "patch"] = "auto"
    iterations: Annotated[int, Ge(1)] | None = None
    batch_size: Annotated[int, Ge(1), Le(256)] | None = None
    max_size: Annotated[int, Ge(32), Le(4096)] | None = None
    seed: int = 0
    accelerator: Accelerator = "auto"
    devices: Annotated[int, Ge(1)] = 1
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    flip: bool = True
    ignore: tuple[Annotated[int, Ge(0), Le(255)], ...] = ()
    resize: Resize | None = None
    names: str | tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    ablate: Literal["labelmix", "balance", "noise"] | None = None
    vgg: str | None = None
    source: str | None = None
    adaptation: Adaptation = "both"
    smoothness: Annotated[float, Gt(0), Le(1000)] | None = None
    joint_masks: bool = False
    sample_every: Annotated[int, Ge(1)] | None = None
    checkpoint_s: Annotated[float, Gt(0)] = 60.0
    objects: str | None = None
    generated_share: Annotated[float, Ge(0), Le(1)] = 0.5
    background_share: Annotated[float, Ge(0), Le(1)] = 0.0
    shift: Literal["auto", "anywhere", "near", "both"] = "auto"
    enlarge: bool = True
    copies: Annotated[int, Ge(0), Le(10)] | None = None

    @property
    def command(self) -> str:
        """The command that fits so: ``pretrain`` makes a source to adapt, ``fit`` all else."""
        return "pretrain" if self.generator in ADAPTED and self.source is None else "fit"

    def resuming(self, out: str | Path) -> str:
        """Return the command line that goes on with the fit in the folder ``out``."""
        return f"synthaug {self.command} --resume --out {shlex.quote(str(out))}"
