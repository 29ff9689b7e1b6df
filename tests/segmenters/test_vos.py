import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample
from synthaug.segmenters.contract import Item
from synthaug.segmenters.vos import MatchingMemory, OneShotVOS, train_parent

CLASSES = ClassMap((0, 1, 4))


class Items:
    """The same items in every batch."""

    def __init__(self, items: list[Item], steps: int = 1) -> None:
        self.items = items
        self.steps = steps

    def batch(self, step: int) -> list[Item]:
        return list(self.items)


def frame(shift: int, height: int = 64, width: int = 96, seed: int = 0) -> Sample:
    """A red disc (id 1) and a blue square (id 4) on a noisy background, moved by ``shift`` px."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[(y - 24) ** 2 + (x - 20 - shift) ** 2 < 144] = 1
    mask[30:54, 55 + shift : 79 + shift] = 4
    image[mask == 1] = (220, 30, 30)
    image[mask == 4] = (30, 30, 220)
    return Sample(image, mask, id=f"{shift:05d}")


def item(sample: Sample, weight: float = 1.0) -> Item:
    return Item(sample.image, sample.mask, weight)


def lowest_iou(channels: NDArray[np.int64], sample: Sample) -> float:
    truth = CLASSES.encode(sample.mask)
    return min(
        float(((channels == c) & (truth == c)).sum() / ((channels == c) | (truth == c)).sum())
        for c in range(3)
    )


def test_osvos_segments_several_objects_in_later_frames() -> None:
    stream = Items([item(frame(shift, seed=shift)) for shift in (0, 6, 12, 15)], steps=12)
    runs = []
    for _ in range(2):
        learner = OneShotVOS(3, seed=2, size=(64, 96))
        losses = learner.learn(stream, CLASSES, seed=2)
        runs.append((losses, learner.segment([frame(9, seed=9).image])[0]))
    assert runs[0][0] == runs[1][0]
    assert np.array_equal(runs[0][1], runs[1][1])
    assert lowest_iou(runs[0][1], frame(9)) > 0.5


def test_parent_weights_start_every_object(tmp_path: Path) -> None:
    path = tmp_path / "parent.safetensors"
    frames = [frame(shift, seed=shift) for shift in (0, 5, 10)]
    losses = train_parent(frames, path, steps=12, batch_size=4, size=(64, 96), seed=1)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < losses[0]
    with safe_open(str(path), "pt") as file:
        manifest = json.loads(file.metadata()["synthaug"])
    assert manifest["format"] == "synthaug-parent-1"
    assert manifest["frames"] == ["00000", "00005", "00010"]

    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    shares = []
    for num_classes in (2, 4):
        network = OneShotVOS(num_classes, parent=path, seed=num_classes).network.cpu().eval()
        with torch.inference_mode():
            shares.append(network(images).softmax(1))
    objects = shares[1][:, 1:]
    torch.testing.assert_close(shares[1][:, 0], shares[0][:, 0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(objects, objects[:, :1].expand_as(objects))

    again = tmp_path / "again.safetensors"
    assert train_parent(frames, again, steps=12, batch_size=4, size=(64, 96), seed=1) == losses
    assert again.read_bytes() == path.read_bytes()


def test_parent_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no parent weights"):
        OneShotVOS(2, parent=tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no safetensors file"):
        OneShotVOS(2, parent=broken)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, str(other))
    with pytest.raises(InputError, match="not written by train_parent"):
        OneShotVOS(2, parent=other)
    train_parent([frame(0)], other, steps=1, batch_size=2, size=(64, 96))
    with pytest.raises(InputError, match="holds fpn"):
        OneShotVOS(2, parent=other, network="unet")
    with pytest.raises(InputError, match="no frames"):
        train_parent([], other, steps=1)


def test_matching_follows_objects_and_optimises_nothing() -> None:
    learner = MatchingMemory(3, size=(128, 192))  # cells of 4 px of the frame
    done = []
    stream = Items([item(frame(0))] * 4)
    losses = learner.learn(stream, CLASSES, seed=0, progress=lambda *now: done.append(now))
    assert losses == []
    assert done == [(1, 1)]
    video = [frame(shift, seed=shift) for shift in range(2, 16, 2)]
    maps = learner.segment([sample.image for sample in video])
    assert min(lowest_iou(m, sample) for m, sample in zip(maps, video, strict=True)) > 0.6


def test_matching_forgets_between_calls_and_learns_within() -> None:
    learner = MatchingMemory(3, every=2, keep=2)
    learner.learn(Items([item(frame(0))]), CLASSES, seed=0)
    video = [frame(shift, seed=shift).image for shift in (4, 8, 12)]
    first = learner.segment(video)
    assert all(np.array_equal(a, b) for a, b in zip(first, learner.segment(video), strict=True))
    assert np.array_equal(first[0], learner.segment(video[:1])[0])
    disturbed = learner.segment([255 - video[0], video[1]])
    assert not np.array_equal(disturbed[1], first[1])


def test_matching_weighs_its_items() -> None:
    wrong = Sample(frame(0).image, np.where(frame(0).mask == 1, 4, frame(0).mask).astype(np.uint8))
    query = frame(5, seed=5)

    def segment(items: list[Item]) -> NDArray[np.int64]:
        learner = MatchingMemory(3)
        learner.learn(Items(items), CLASSES, seed=0)
        return learner.segment([query.image])[0]

    alone = segment([item(frame(0))])
    assert np.array_equal(segment([item(frame(0)), item(wrong, 0.0)]), alone)
    assert lowest_iou(segment([item(frame(0)), item(wrong, 0.05)]), query) > 0.5
    assert (segment([item(frame(0), 0.05), item(wrong)]) == 1).sum() < 0.1 * (alone == 1).sum()


def test_matching_works_at_its_size_and_refuses_empty_memories() -> None:
    learner = MatchingMemory(3, size=(64, 96))
    learner.learn(Items([item(frame(0))]), CLASSES, seed=0)
    large = frame(5).image.repeat(2, 0).repeat(2, 1)
    found = learner.segment([large])[0]
    assert found.shape == (128, 192)
    assert lowest_iou(found[::2, ::2], frame(5)) > 0.6
    with pytest.raises(InputError, match="weight"):
        learner.learn(Items([item(frame(0), 0.0)]), CLASSES, seed=0)
    unlabelled = Item(frame(0).image, np.full((64, 96), 255, np.uint8))
    with pytest.raises(InputError, match="labelled"):
        learner.learn(Items([unlabelled]), CLASSES, seed=0)
