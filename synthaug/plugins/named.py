"""The plug-ins that a fit switches on by name, and the GANs that each of them fits."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synthaug.errors import InputError
from synthaug.plugins.ada import ADA
from synthaug.plugins.atopk import ATopK
from synthaug.plugins.embedding import MaskEmbeddingPlugin
from synthaug.plugins.hooks import Plugin
from synthaug.plugins.masking import MaskedGAN
from synthaug.plugins.meter import SWING_PICTURES


@dataclass(frozen=True)
class Settings:
    """What a plug-in may need to know about the fit.

    Attributes:
        seed: the fit's.
        flip: whether mirror images are plausible.
        pictures: real pictures that the training shows.
    """

    seed: int
    flip: bool
    pictures: int

    @property
    def swing(self) -> int:
        """Pictures for a probability's way from 0 to 1: a quarter of the training, as published.

        The published number itself, 500,000, is more than short trainings show.
        """
        return max(1, min(SWING_PICTURES, self.pictures // 4))


PLUGINS: dict[str, Callable[[Settings], Plugin]] = {
    "maskedgan": lambda _: MaskedGAN(),
    "maskedgan-spatial": lambda _: MaskedGAN(spectral=False),
    "maskedgan-spectral": lambda _: MaskedGAN(spatial=False),
    "atopk": lambda settings: ATopK(seed=settings.seed, swing=settings.swing),
    "ada": lambda settings: ADA(flip=settings.flip, swing=settings.swing),
    "medgan": lambda _: MaskEmbeddingPlugin(),
    "medgan-regions": lambda _: MaskEmbeddingPlugin(regions=True),
    "medgan-object": lambda _: MaskEmbeddingPlugin(objects=True),
}
NEEDS_MASKS = ("medgan-object",)
_HIDES = "it is judged pixel by pixel, hidden ones too"
_LEAKS = (
    "it is shown transformed pictures as what to paint, and would paint their colours and holes"
)
_KNOWS = "it is judged pixel by pixel against its map, and needs no other"
_MASKLESS = "it makes no masks; use medgan"
_TOKENS = "its discriminator has tokens, no feature maps to weigh"
REFUSED: dict[tuple[str, str], str] = {
    ("oasis", "maskedgan"): _HIDES,
    ("oasis", "maskedgan-spatial"): _HIDES,
    ("oasis", "maskedgan-spectral"): _HIDES,
    ("oasis", "ada"): _LEAKS,
    ("oasis", "medgan"): _KNOWS,
    ("oasis", "medgan-regions"): _KNOWS,
    ("oasis", "medgan-object"): _KNOWS,
    ("biggan", "medgan-object"): _MASKLESS,
    ("transgan", "medgan"): _TOKENS,
    ("transgan", "medgan-regions"): _TOKENS,
    ("transgan", "medgan-object"): _TOKENS,
}
"""(GAN, plug-in) -> why they do not go together."""


def check_plugins(gan: str, names: Sequence[str], *, labelled: bool = True) -> None:
    """Refuse unknown names, doubles, and plug-ins that do not go with a GAN or without masks.

    Args:
        gan: name of the GAN, as its description has it.
        names: names of plug-ins.
        labelled: whether there are masks.

    Raises:
        InputError: the line names the plug-in, and the GAN or the nearest name.
    """
    for name in names:
        if name not in PLUGINS:
            near = difflib.get_close_matches(name, PLUGINS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(PLUGINS)}"
            raise InputError(f"unknown plug-in {name}: {hint}")
        if (gan, name) in REFUSED:
            raise InputError(
                f"the plug-in {name} does not go with {gan}: {REFUSED[gan, name]}; leave it out"
            )
        if name in NEEDS_MASKS and not labelled:
            raise InputError(
                f"the plug-in {name} looks at the objects of masks, and there are none: add masks, "
                "or use medgan"
            )
    for place, name in enumerate(names):
        for other in names[:place]:
            if other == name:
                raise InputError(f"the plug-in {name} is asked for twice: name it once")
            if other.partition("-")[0] == name.partition("-")[0]:
                raise InputError(f"the plug-ins {other} and {name} exclude each other: name one")


def build_plugins(names: Sequence[str], settings: Settings) -> list[Plugin]:
    """Build plug-ins by name, in the order given."""
    return [PLUGINS[name](settings) for name in names]
