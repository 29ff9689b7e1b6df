"""Fixtures that several rooms share: a labelled pair on disk and a tiny fitted generator."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Small tensors gain nothing from threads, and on a busy machine their barriers crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SIZE = (40, 56)
IDS = (2, 7, 9)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Begin every test at the same place of torch's stream, whatever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_weights_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests expect the bundled network, also where InceptionV3 lies in torch's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail every write that must reach the disk."""

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


class ToyGenerator:
    """Makes the folder that fit writes, around a generator of a few thousand weights."""

    def __init__(self, classes: int = len(IDS)) -> None:
        import torch
        from torch import nn

        from synthaug.gans.contract import PairBatch

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.ConvTranspose2d(8, 16, (4, 6))
                self.body = nn.Conv2d(16, 16, 3, padding=1)
                self.image = nn.Conv2d(16, 3, 3, padding=1)
                self.mask = nn.Conv2d(16, classes, 3, padding=1) if classes else None

            def forward(self, z: torch.Tensor) -> PairBatch:
                x = self.stem(z[:, :, None, None])
                for _ in range(3):
                    x = torch.relu(self.body(nn.functional.interpolate(x, scale_factor=2)))
                image = torch.tanh(20 * _centre(self.image(x)))
                mask = None if self.mask is None else (50 * _centre(self.mask(x))).softmax(dim=1)
                return PairBatch((image,), mask)

        def _centre(x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(dim=(2, 3), keepdim=True)

        torch.manual_seed(0)
        self.generator = Network()
        self.latent_dim = 8

    def build(self) -> object:
        from torch import nn

        from synthaug.gans.contract import GAN

        toy = self

        class Toy(GAN):
            def __init__(self) -> None:
                super().__init__()
                self.generator = toy.generator
                self.discriminator = nn.Identity()
                self.latent_dim = toy.latent_dim

            def prepare(self, images, masks):
                raise NotImplementedError

            def discriminator_terms(self, real, fake, step):
                raise NotImplementedError

            def generator_terms(self, fake, step):
                raise NotImplementedError

        return Toy()


@pytest.fixture
def make_fit_folder(tmp_path, monkeypatch):
    """Return a function that writes a fit folder; `gans.build` gives the toy of the same kind."""
    from safetensors.torch import save_file

    from synthaug import files, gans
    from synthaug.formats import folder
    from synthaug.sample import Sample

    def make(*, grey: bool = False, masks: bool = True, name: str = "fitted") -> Path:
        path = tmp_path / name
        toy = ToyGenerator(len(IDS) if masks else 0)
        path.mkdir()
        save_file(toy.generator.state_dict(), path / "snapshot.safetensors")
        pair = toy_pair(grey=grey, masks=masks)
        record = {"id": pair.id, **folder.write_pair(path / "pairs", pair.id, pair)}
        ids = list(IDS) if masks else []
        manifest = {
            "format": "synthaug-generator-1",
            "gan": {"name": "toy"},
            "classes": {"ids": ids, "names": [f"class_{i}" for i in ids]},
            "pairs": [record],
            "size": list(SIZE),
            "grey": grey,
            "snapshot": "snapshot.safetensors",
            "snapshot_sha256": files.sha256_file(path / "snapshot.safetensors"),
            "config": {},
            "seed": 0,
            "versions": {},
        }
        (path / "manifest.json").write_text(json.dumps(manifest))

        def build(spec):
            assert spec == {"name": "toy"}
            fresh = ToyGenerator(len(IDS) if masks else 0)
            for parameter in fresh.generator.parameters():
                parameter.data.zero_()
            return fresh.build()

        monkeypatch.setattr(gans, "build", build)
        return path

    def toy_pair(*, grey: bool, masks: bool) -> Sample:
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        if grey:
            image[:] = image[..., :1]
        mask = np.full(SIZE, IDS[0] if masks else 255, np.uint8)
        if masks:
            mask[10:30, 8:30] = IDS[1]
            mask[4:12, 40:52] = IDS[2]
        return Sample(image, mask, "scene", grey)

    make.network = lambda: ToyGenerator().generator  # with the weights of the snapshot
    return make


@pytest.fixture
def pair_files(tmp_path):
    """Write a 48x64 photograph and its two-class mask; return their paths."""
    from PIL import Image

    rng = np.random.default_rng(1)
    image, mask = tmp_path / "photo.png", tmp_path / "photo_mask.png"
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(image)
    ids = np.zeros((48, 64), np.uint8)
    ids[12:36, 16:40] = 1
    Image.fromarray(ids).save(mask)
    return image, mask


@pytest.fixture(scope="session")
def vgg19_file(tmp_path_factory):
    """Write random VGG19 weights, 80 MB, as torch.save does."""
    import torch
    from vgg_files import random_state

    path = tmp_path_factory.mktemp("vgg19") / "vgg19.pth"
    torch.save(random_state(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def write_videos():
    """Return a function that writes tiny videos of three frames, laid out as DAVIS."""
    from PIL import Image

    from synthaug.seeding import numpy_stream

    def write(root, videos):
        for video in videos:
            for frame in range(3):
                image = numpy_stream(frame, video).integers(0, 256, (48, 64, 3)).astype(np.uint8)
                mask = np.zeros((48, 64), np.uint8)
                mask[12:30, 10 + 3 * frame : 34 + 3 * frame] = 1
                image[mask > 0] //= 4
                for part, name, array in (
                    ("JPEGImages", f"{frame:05d}.jpg", image),
                    ("Annotations", f"{frame:05d}.png", mask),
                ):
                    folder = root / part / video
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(folder / name)

    return write
