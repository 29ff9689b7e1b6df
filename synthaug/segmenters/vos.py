"""TRAIN: one-shot video object segmentation: fine-tuned networks and a matching memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug import files
from synthaug.errors import InputError
from synthaug.sample import IGNORE_ID, ClassMap, Sample
from synthaug.seeding import numpy_stream
from synthaug.segmenters.contract import Item, Stream
from synthaug.segmenters.pixel_features import PixelFeatures, distinct_items, enlarged, flat
from synthaug.segmenters.semantic import (
    BUNDLED_ENCODER,
    Architecture,
    Segmenter,
    SemanticLearner,
    build_segmenter,
    resized,
)

PARENT_FORMAT = "synthaug-parent-1"


class OneShotVOS(SemanticLearner):
    """Fine-tunes on the stream of the first frame, then segments every frame on its own.

    Several objects are several classes. The loss is cross-entropy + Dice, whose second term does
    for small objects what the paper's class-balanced cross-entropy does.

    Source: Caelles et al. 2017, arXiv:1611.05198 (OSVOS), with a modern network.

    Args:
        num_classes: number of classes N, background (channel 0) included.
        network: architecture of the network.
        parent: weights from `train_parent` to start from; None = the encoder's ImageNet weights.
        encoder: as in `build_segmenter`.
        seed: seed of the random weights.
        lr: highest learning rate.
        size: (height, width) in px in which the network works; None = each picture's own.

    Raises:
        InputError: the parent is damaged or of another architecture or encoder.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        network: Architecture = "fpn",
        parent: str | Path | None = None,
        encoder: str = BUNDLED_ENCODER,
        seed: int = 0,
        lr: float = 1e-3,
        size: tuple[int, int] | None = None,
    ) -> None:
        model = build_segmenter(network, num_classes, encoder, seed=seed)
        if parent is not None:
            _start_from_parent(model, parent, network, encoder)
        super().__init__(model, lr=lr, size=size)


def train_parent(
    samples: Sequence[Sample],
    out: str | Path,
    *,
    steps: int = 500,
    batch_size: int = 8,
    size: tuple[int, int] = (144, 256),
    seed: int = 0,
    network: Architecture = "fpn",
    encoder: str = BUNDLED_ENCODER,
    lr: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train a foreground/background network on frames of other videos and write its weights.

    Frames are drawn at random, cropped to 60 to 100 % of their sides and mirrored half the time.

    Args:
        samples: frames of other videos; each frame's id 0 is background, all other ids but 255
            are foreground.
        out: safetensors file to write; its metadata's line ``synthaug`` is the manifest.
        steps: optimiser steps.
        batch_size: frames per step.
        size: (height, width) in px in which the network works.
        seed: fixes weights, order and crops.
        network: architecture of the network.
        encoder: as in `build_segmenter`.
        lr: highest learning rate.
        progress: called with (steps done, steps).

    Returns:
        The loss of every step.

    Raises:
        InputError: no samples, or the file cannot be written.
    """
    from safetensors.torch import save

    if not samples:
        raise InputError("no frames to train a parent network on: give frames of other videos")
    learner = SemanticLearner(build_segmenter(network, 2, encoder, seed=seed), lr=lr, size=size)
    stream = _ParentStream(samples, steps, batch_size, size, seed)
    losses = learner.learn(stream, ClassMap((0, 1)), seed=seed, progress=progress)
    manifest = {
        "format": PARENT_FORMAT,
        "network": network,
        "encoder": encoder,
        "steps": steps,
        "batch_size": batch_size,
        "size": list(size),
        "seed": seed,
        "lr": lr,
        "frames": [sample.id for sample in samples],
    }
    state = {
        name: tensor.cpu().contiguous() for name, tensor in learner.network.state_dict().items()
    }
    metadata = {"synthaug": json.dumps(manifest)}
    files.write_bytes(out, save(state, metadata=metadata))
    return losses


class MatchingMemory:
    """Segments a video by matching each frame's pixels with those of a memory; trains nothing.

    The memory holds the stream's items of step 0 (the first frame and whatever the stream mixes
    with it), every ``every``-th predicted frame and the frame before. A pixel takes the mean class
    of its ``top`` most similar memory pixels, weighted by the softmax of similarity; an item's
    weight multiplies its pixels' votes. Predicted pixels count the less the further away they
    are, since objects move little between frames.

    Source: Oh et al. 2019, arXiv:1904.00607 (space-time memory); locality after Seong et al.
    2020, arXiv:2007.08270; frozen ImageNet features in place of learned keys.

    Args:
        num_classes: number of classes N, background (channel 0) included.
        size: (height, width) in px in which frames are looked at; None = each frame's own.
        every: a predicted frame is kept this often.
        keep: most predicted frames in the memory, the oldest leave.
        top: memory pixels that vote.
        temperature: of the softmax over cosine similarities.
        reach: distance, in shares of the frame's diagonal, at which a predicted pixel's vote has
            fallen to 61 % (one standard deviation).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: tuple[int, int] | None = None,
        every: int = 5,
        keep: int = 8,
        top: int = 32,
        temperature: float = 0.015,
        reach: float = 0.1,
    ) -> None:
        self.num_classes = num_classes
        self.size = size
        self.every = every
        self.keep = keep
        self.top = top
        self.temperature = temperature
        self.reach = reach
        self._net = PixelFeatures()
        self._first: _Memory | None = None

    def learn(
        self,
        stream: Stream,
        classes: ClassMap,
        *,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """Memorise the stream's step 0; nothing is optimised, so the list is empty.

        Raises:
            InputError: no item of step 0 has a weight and a labelled pixel.
        """
        items = distinct_items(stream, 1, limit=64)
        if not items:
            raise InputError("step 0 has no item with a weight: give some item a weight > 0")
        with torch.no_grad():
            keys, votes, weights = self._net.of_items(items, classes, self.size)
        if len(keys) == 0:
            raise InputError("no pixel of step 0 is labelled: check the masks' ids")
        anywhere = torch.full((len(keys), 2), torch.nan)
        self._first = _Memory(keys, votes, weights.log(), anywhere)
        if progress is not None:
            progress(stream.steps, stream.steps)
        return []

    def segment(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
        """Segment the later frames of one video, given in temporal order.

        Every call starts from the memory that `learn` left.

        Returns:
            Class channels (H, W) int64 in [0, N), each at its frame's own size.
        """
        if self._first is None:
            raise RuntimeError("call learn before segment")
        maps: list[NDArray[np.int64]] = []
        kept: list[_Memory] = []
        before: list[_Memory] = []
        with torch.inference_mode():
            for index, image in enumerate(images):
                features = self._net.of_image(image, self.size)
                grid = (features.shape[2], features.shape[3])
                places = _places(grid)
                votes = self._read([self._first, *kept, *before], flat(features), places)
                maps.append(enlarged(votes, grid, image).argmax(0).numpy())
                frame = _Memory(flat(features), votes, torch.zeros(len(votes)), places)
                before = [frame]
                if index % self.every == self.every - 1:
                    kept, before = [*kept, frame][-self.keep :], []
        return maps

    def _read(self, parts: list[_Memory], queries: Tensor, places: Tensor) -> Tensor:
        """Return the votes (P, N) for features (P, C) at ``places`` (P, 2)."""
        memory = _Memory(*(torch.cat(column) for column in zip(*parts, strict=True)))
        found = []
        for part, where in zip(torch.split(queries, 256), torch.split(places, 256), strict=True):
            affinity = part @ memory.keys.T / self.temperature + memory.bias  # (P, M)
            distance = torch.cdist(where, memory.places).nan_to_num(0.0)
            affinity -= 0.5 * (distance / self.reach) ** 2
            best, which = affinity.topk(min(self.top, affinity.shape[1]), dim=1)
            shares = best.softmax(1)  # (P, top)
            found.append((shares[..., None] * memory.votes[which]).sum(1))
        return torch.cat(found)


class _Memory(NamedTuple):
    """M remembered pixels; a place of NaN is near to every place."""

    keys: Tensor  # (M, C) unit length
    votes: Tensor  # (M, N) shares of the classes
    bias: Tensor  # (M,) added to the affinities
    places: Tensor  # (M, 2) y and x in units of the frame's diagonal


def _places(grid: tuple[int, int]) -> Tensor:
    h, w = grid
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([y.flatten(), x.flatten()], 1) / math.hypot(h, w)


class _ParentStream:
    """Seeded random crops of frames, mirrored half the time, as foreground/background items."""

    def __init__(
        self,
        samples: Sequence[Sample],
        steps: int,
        batch_size: int,
        size: tuple[int, int],
        seed: int,
    ) -> None:
        self.steps = steps
        self._samples = samples
        self._batch_size = batch_size
        self._size = size
        self._seed = seed

    def batch(self, step: int) -> list[Item]:
        draws = numpy_stream(self._seed, "parent", step)
        items = []
        for _ in range(self._batch_size):
            sample = self._samples[int(draws.integers(len(self._samples)))]
            h, w = (round(side * draws.uniform(0.6, 1)) for side in sample.size)
            top = int(draws.integers(sample.size[0] - h + 1))
            left = int(draws.integers(sample.size[1] - w + 1))
            mask = sample.mask[top : top + h, left : left + w]
            image = sample.image[top : top + h, left : left + w]
            if draws.random() < 0.5:
                image, mask = image[:, ::-1], mask[:, ::-1]
            foreground = np.where(mask == IGNORE_ID, mask, (mask > 0).astype(np.uint8))
            item = Item(np.ascontiguousarray(image), np.ascontiguousarray(foreground))
            items.append(resized(item, self._size))
        return items


def _start_from_parent(model: Segmenter, parent: str | Path, network: str, encoder: str) -> None:
    """Load parent weights; every object class starts as the parent's foreground."""
    from safetensors import SafetensorError, safe_open

    if not Path(parent).is_file():
        raise InputError(f"no parent weights at {parent}: train them or leave the option out")
    try:
        with safe_open(str(parent), "pt") as file:
            manifest: dict[str, Any] = json.loads((file.metadata() or {}).get("synthaug", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{parent} is no safetensors file of parent weights: {error}") from error
    if manifest.get("format") != PARENT_FORMAT:
        raise InputError(f"{parent} was not written by train_parent: train a parent network")
    if (manifest["network"], manifest["encoder"]) != (network, encoder):
        raise InputError(
            f"{parent} holds {manifest['network']} on {manifest['encoder']}, not {network} on "
            f"{encoder}: train a parent of that kind"
        )
    objects = model.num_classes - 1
    head = model.net.get_submodule("segmentation_head.0")
    name = next(n for n, m in model.named_modules() if m is head)
    for kind in ("weight", "bias"):
        two = state[f"{name}.{kind}"]
        state[f"{name}.{kind}"] = torch.cat([two[:1], two[1:].repeat_interleave(objects, 0)])
    state[f"{name}.bias"][1:] -= math.log(objects)  # the objects' shares sum to the parent's
    model.load_state_dict(state)
