"""What every generator's folder holds, whether a GAN or a composition draws from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synthaug import files
from synthaug.bank import GENERATOR_FORMAT, names_files, read_manifest
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.sample import ClassMap, Sample

SMALLEST_PX = 16
"""No generator was ever fitted to pictures with a side below."""
_WHOLE: dict[str, Callable[[Any], bool]] = {
    "gan": lambda value: isinstance(value, dict),
    "config": lambda value: isinstance(value, dict),
    "pairs": lambda value: isinstance(value, list) and all(map(names_files, value)),
    "size": lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(n, int) and n >= SMALLEST_PX for n in value)
    ),
    "grey": lambda value: isinstance(value, bool),
    "snapshot": lambda value: isinstance(value, str),
    "snapshot_sha256": lambda value: isinstance(value, str),
}
"""Entry of a manifest -> whether it is what fit writes."""


class GeneratorFolder(ABC):
    """The folder that ``fit`` wrote, opened: its manifest and the training pairs.

    A painter that ``convert`` made of public weights has the same kind of folder, without pairs.

    Attributes:
        path: the folder.
        manifest: content of its ``manifest.json``.
        classes: classes of the masks, none without masks.
        size: height and width of the training pairs, (H, W) in pixels.
        grey: whether samples have one channel.
        colourless: whether samples are grey, in one channel or in three, as all training pairs are.
        hash: SHA-256 of what samples are drawn with.
        pairs: the training pairs; none if it was converted.
        paints_masks: whether it can make a new picture for a given mask.
        truncation: how far samples may go from one mean picture, in [0, 1]; 1: all the way.

    Args:
        path: the folder.

    Raises:
        InputError: the folder is no generator, or a file of it is missing or damaged.
    """

    paints_masks = False
    truncation = 1.0
    _GANS: tuple[str, ...] | None = None
    """Names, in the manifest, of what the class draws with; None takes any."""
    _NEEDS: tuple[str, ...] = ()
    """Further entries of the manifest that the class reads; ``gan.KEY``: of its ``gan``."""
    _OTHER = "{path} is not a generator: its manifest.json is of another kind"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = read_manifest(self.path, "generator")
        if not self.draws(self.manifest):
            raise InputError(self._OTHER.format(path=path))
        check_manifest(self.manifest, self.path, self._NEEDS)
        self.classes = ClassMap.from_dict(self.manifest.get("classes"), f"generator {path}")
        self.size: tuple[int, int] = (self.manifest["size"][0], self.manifest["size"][1])
        self.grey: bool = self.manifest["grey"]
        self.hash: str = self.manifest["snapshot_sha256"]
        self.pairs: list[Sample] = read_written_pairs(self.path / "pairs", self.manifest["pairs"])
        self.colourless = self.grey or (
            bool(self.pairs) and all(pair.colourless for pair in self.pairs)
        )

    @property
    def pairs_hash(self) -> str:
        """One SHA-256 over the hashes of the training pairs' files, in order."""
        pairs = self.manifest["pairs"]
        text = "".join(pair["image_sha256"] + pair["mask_sha256"] for pair in pairs)
        return files.sha256_bytes(text.encode())

    @classmethod
    def draws(cls, manifest: Any) -> bool:
        """Whether a folder with this manifest is of the kind that this class draws from."""
        if not isinstance(manifest, dict) or manifest.get("format") != GENERATOR_FORMAT:
            return False
        gan = manifest.get("gan")
        return cls._GANS is None or (isinstance(gan, dict) and gan.get("name") in cls._GANS)

    @abstractmethod
    def sample(self, seed: int) -> Sample:
        """Draw the sample of a seed; the same seed gives the same bits."""

    def samples(self, seeds: Sequence[int]) -> list[Sample]:
        """Draw the samples of several seeds, each as `sample` would draw it.

        They run one by one: on a CPU larger batches of a GAN are no faster, and the rounding of a
        convolution depends on the batch size, so that a sample would depend on its neighbours.
        """
        return [self.sample(seed) for seed in seeds]


def check_manifest(manifest: dict[str, Any], path: Path, needs: Sequence[str] = ()) -> None:
    """Refuse a generator's manifest in which something is missing or no longer what fit wrote.

    Args:
        manifest: its content.
        path: folder of the generator.
        needs: further entries that must be there; ``gan.KEY`` is one of the GAN's.

    Raises:
        InputError: the line names the entry.
    """
    for key, whole in _WHOLE.items():
        if not whole(manifest.get(key)):
            raise InputError(
                f"generator {path} has a damaged manifest ({key}): fit or convert again"
            )
    for name in needs:
        part, _, key = name.rpartition(".")
        if key not in (manifest[part] if part else manifest):
            raise InputError(
                f"generator {path} has a damaged manifest ({name}): fit or convert again"
            )


def read_written_pairs(root: Path, records: Sequence[dict[str, Any]]) -> list[Sample]:
    """Read pairs of a generator's folder by the lines that `folder.write_pair` returned.

    Raises:
        InputError: a file is missing or damaged.
    """
    pairs = []
    for record in records:
        for kind in ("image", "mask"):
            read_verified(root / record[kind], record[f"{kind}_sha256"])
        pairs.append(folder.read_pair(root / record["image"], root / record["mask"], record["id"]))
    return pairs


def read_verified(path: Path, sha256: str) -> bytes:
    """Read a file of a generator's folder.

    Raises:
        InputError: it is missing, or its hash is not the one that the manifest gives.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"generator file {path} cannot be read ({error.strerror}): fit or convert again"
        ) from error
    if files.sha256_bytes(data) != sha256:
        raise InputError(
            f"generator file {path} is damaged (hash differs from manifest.json): fit or "
            "convert again"
        )
    return data
