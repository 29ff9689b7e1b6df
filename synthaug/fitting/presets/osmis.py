"""Presets of OSMIS."""

from __future__ import annotations

from synthaug import devices
from synthaug.config import FitConfig
from synthaug.fitting.presets.plan import Plan
from synthaug.gans.osmis.fast_networks import fast_size
from synthaug.gans.osmis.networks import size_rule
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.diversity import Diversity
from synthaug.plugins.hooks import Plugin
from synthaug.training import LoopSettings

NAMES = ("fast", "paper", "compose", "patch")
PAPER_MAX_SIDE_PX = 640
PAPER_MIN_SIDE_PX = 48


def make_plan(
    config: FitConfig, size: tuple[int, int], num_classes: int | None, num_pairs: int
) -> Plan:
    """Resolve a fit of OSMIS; see `synthaug.fitting.presets.make_plan`."""
    preset: str = config.preset
    why = f"preset {config.preset}: as asked"
    if preset == "auto":
        preset, why = _choose(config, size)
    return (_paper if preset == "paper" else _fast)(config, why, size, num_classes, num_pairs)


def own_plugins(plan: Plan) -> list[Plugin]:
    """Build the preset's own plug-ins."""
    if plan.preset == "paper":
        return [
            DiffAugment(p=0.7, flip=plan.flip),
            Diversity(0.15, "code"),
        ]
    lens = DiffAugment(p=0.5, close_up=1.0, zoom=(1.0, 1.35), flip=plan.flip, shift=(0.02, 0.15))
    return [lens, Diversity(0.3, "thesis")]


def _choose(config: FitConfig, size: tuple[int, int]) -> tuple[str, str]:
    if config.accelerator == "cpu" or not devices.cuda_works():
        return "fast", "preset fast: no GPU, where the published OSMIS would take weeks"
    if min(size) < PAPER_MIN_SIDE_PX:
        return "fast", f"preset fast: under {PAPER_MIN_SIDE_PX} px a side, too small for paper"
    return "paper", f"preset paper: a GPU is here; it trains {_paper_iterations(1)} steps, hours"


def _paper_iterations(num_pairs: int) -> int:
    """Published: 100,000 steps for an image, 300,000 for a video."""
    return 100_000 if num_pairs == 1 else 300_000


def _paper(
    config: FitConfig,
    why: str,
    size: tuple[int, int],
    num_classes: int | None,
    num_pairs: int,
) -> Plan:
    max_size = config.max_size or PAPER_MAX_SIDE_PX
    rule = size_rule(*size, max_size)
    iterations = config.iterations or _paper_iterations(num_pairs)
    return Plan(
        preset="paper",
        why=why,
        gan={
            "name": "osmis",
            "preset": "paper",
            "height": size[0],
            "width": size[1],
            "num_classes": num_classes,
            "max_size": max_size,
            "bernoulli_steps": min(15_000, max(1, iterations * 15 // 100)),
        },
        size=(rule.height, rule.width),
        loop=LoopSettings(
            iterations=iterations,
            batch_size=config.batch_size or 5,
            lr_generator=2e-4,
            lr_discriminator=2e-4,
            lr_pretrain=2e-4,
            betas=(0.5, 0.999),
            ema=0.9999,
            share_fakes=False,
            seed=config.seed,
        ),
        watch_every=1000,
        sample_every=config.sample_every or 1000,
        own_plugins=own_plugins,
        keep_best=True,
    )


def _fast(
    config: FitConfig,
    why: str,
    size: tuple[int, int],
    num_classes: int | None,
    num_pairs: int,
) -> Plan:
    iterations = config.iterations or 480
    height, width = fast_size(*size, config.max_size)
    pretrain = min(150, max(1, iterations // 4))
    return Plan(
        preset="fast",
        why=why,
        gan={
            "name": "osmis",
            "preset": "fast",
            "height": height,
            "width": width,
            "num_classes": num_classes,
            "num_pairs": num_pairs,
            "flip": config.flip,
            "enlarge": config.enlarge,
            "smooth_texture": True,
            "pretrain_steps": pretrain,
            "bernoulli_steps": pretrain + (iterations - pretrain) * 15 // 100,
        },
        size=(height, width),
        loop=LoopSettings(
            iterations=iterations,
            batch_size=config.batch_size or 4,
            lr_generator=5e-4,
            lr_discriminator=1e-3,
            lr_pretrain=1e-3,
            betas=(0.0, 0.99),
            ema=0.99,
            share_fakes=True,
            seed=config.seed,
        ),
        watch_every=50,
        sample_every=config.sample_every or 100,
        own_plugins=own_plugins,
        keep_best=True,
    )
