"""FIT: a labelled pair (or a few, or a video) -> a folder with a generator."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from synthaug import gans
from synthaug.bank import GENERATOR_FORMAT
from synthaug.config import make
from synthaug.config.fit import ADAPTED, FitConfig
from synthaug.engine import Engine
from synthaug.errors import InputError
from synthaug.files import check_output_folder, claimed, sha256_file
from synthaug.fitting import presets
from synthaug.fitting.adaptation import read_source
from synthaug.fitting.fit_folder import FitFolder, manifest_header
from synthaug.fitting.keeping import Keeper, Run
from synthaug.fitting.monitoring import COLLAPSED, Monitor
from synthaug.fitting.presets import make_plan
from synthaug.fitting.training_pairs import (
    KEPT_CROPS,
    bring_to_usual_size,
    class_folders,
    keep_crops,
    kept_pairs,
    read_class_crops,
    read_square_crops,
    read_training_pairs,
    require_one_size,
    training_tensors,
    words_on_lost,
)
from synthaug.fitting.untrained import write_composition, write_patches
from synthaug.formats.names import read_names
from synthaug.gans.oasis import OASIS
from synthaug.gans.oasis.vgg import VGGLoss
from synthaug.sample import IGNORE_ID, MAX_CLASSES, ClassMap, Sample
from synthaug.seeding import derive_seed, torch_seeded
from synthaug.training import TrainingState, train

MOST_PAINTED = 255
"""Classes of a generator that paints masks: all that 8 bits hold beside the ignore id."""
SAME_STOP_S = 1.0
_alone = threading.RLock()
RESIDENT_BYTES = 2 * 10**9
"""Training pictures of more than this stay in the computer's memory, out of the GPU's."""


@dataclass(frozen=True)
class Progress:
    """How far a fit is.

    Attributes:
        step: steps done.
        total: steps in all.
        left_s: estimated seconds left.
        note: words on quality and diversity.
    """

    step: int
    total: int
    left_s: float
    note: str


def fit(
    image: str | Path | None = None,
    mask: str | Path | None = None,
    out: str | Path = "generator",
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    objects: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    echo: Callable[[str], object] = lambda line: print(line, file=sys.stderr),
    config: FitConfig | None = None,
    white_is_object: bool = False,
) -> Path:
    """Fit a generator to one labelled image, a few of one size, or the frames of a video.

    Args:
        image: photograph, 8 bits, grey or colour, from 32 px a side.
        mask: its index PNG; without masks the generator learns pictures alone (SIV-GAN).
        out: folder to write; see `synthaug.fitting.fit_folder`.
        images: folder of photographs, instead of ``image``; of any sizes with ``config.resize``,
            and where transgan, or stylegan2 or biggan without a source, learns; biggan takes
            sub-folders as classes.
        masks: folder of their masks, same file stems.
        objects: bank whose clean objects the preset ``compose`` pastes too.
        resume: go on from the checkpoint in ``out``, with the settings and pairs kept there.
        overwrite: replace a folder that is already there.
        progress: called after every step.
        echo: takes the line that says which preset was chosen and why.
        config: settings; default `FitConfig`. Of one given beside ``resume`` only ``accelerator``
            and ``devices`` count.
        white_is_object: 255 was the object in the masks that these were written from; what a
            painter is given later, or is mixed with, may be written so, too.

    Returns:
        ``out``.

    Raises:
        InputError: bad input, an output folder in use, or a full disk.
        KeyboardInterrupt: Ctrl-C, after the checkpoint is saved.
    """
    for name, given in {"image": image, "mask": mask, "images": images, "masks": masks}.items():
        if given is not None and not isinstance(given, str | PathLike):
            raise InputError(f"{name} is a {type(given).__name__}: give the path to read it from")
    if config is not None and not isinstance(config, FitConfig):
        raise InputError(f"config is a {type(config).__name__}: give a synthaug.config.FitConfig")
    target, originals, told = FitFolder(out), list[str](), ""
    if resume:
        if any(given is not None for given in (image, mask, images, masks, objects)):
            raise InputError(f"a resumed fit has its pictures in {out}: name no others beside it")
        place = config
        manifest, config = target.read_begun()
        if place is not None:
            config = replace(config, accelerator=place.accelerator, devices=place.devices)
        pairs, kinds = kept_pairs(target.path, manifest), manifest.get("crop_classes", [])
    else:
        options = asdict(config or FitConfig())
        if objects is not None:
            options["objects"] = objects
        paths = {name: fspath(v) for name, v in options.items() if isinstance(v, PathLike)}
        config = make(FitConfig, options | paths)
        presets.check_fit(config)
        reads = (image, mask, images, masks, config.objects, config.source, config.vgg)
        check_output_folder(out, overwrite=overwrite, reads=reads, becomes=GENERATOR_FORMAT)
        if config.vgg is not None:
            VGGLoss(config.vgg)  # refused before anything is written
        kinds = []
        if _from_nothing(config):
            pairs, originals, kinds = _squares(images, mask or masks, config)
        else:
            pairs, white = read_training_pairs(image, mask, images, masks, config.ignore)
            white_is_object |= white
            if config.resize is None:
                remedy = f"add --resize, or bring all images of {images} to one size"
                require_one_size(pairs, remedy)
            elif image is not None:
                raise InputError("one image has one size: leave --resize out, or give --images DIR")
            else:
                originals, told = bring_to_usual_size(pairs, config.resize)
                told += "; "
    classes = None
    labelled = any((pair.mask != IGNORE_ID).any() for pair in pairs)
    if labelled or mask is not None or masks is not None:
        named = mask or masks or target.path
        most = MOST_PAINTED if config.generator == "oasis" else MAX_CLASSES
        classes = ClassMap.from_masks([pair.mask for pair in pairs], f"mask {named}", most)
    if config.names and not resume:
        if classes is None:
            raise InputError("names are those of the masks' ids: give masks, or leave them out")
        classes = classes.named(read_names(config.names))
    if config.preset == "compose":
        words = _compose(
            target.path, pairs, classes, config, overwrite, progress, originals, white_is_object
        )
        echo(f"{told}preset compose: as asked; {words}")
        return target.path
    if config.preset == "patch":
        write_patches(
            target.path,
            pairs,
            classes,
            config,
            overwrite=overwrite,
            originals=originals,
            white_is_object=white_is_object,
        )
        patches = f"the patches of {len(pairs)} pair(s), nothing to train"
        echo(f"{told}preset patch: as asked; {patches}")
        return target.path
    planned = config
    if resume and config.source is not None:
        planned = replace(config, source=str(out))  # its own networks: the source may be gone
    plan = make_plan(planned, pairs[0].size, len(classes) if classes else None, len(pairs))
    if config.ignore and classes is None and not resume:
        raise InputError("ignored ids are those of masks: give masks, or leave them out")
    if resume:
        height, width = manifest.get("training_size", plan.size)  # rules of sizes may change
        plan = replace(plan, gan=manifest["gan"], size=(height, width), why="goes on")
    if kinds:
        plan = replace(plan, gan={**plan.gan, "num_classes": len(kinds)})
    batch = plan.loop.batch_size
    least = config.devices if config.devices == 1 else 2 * config.devices
    if batch % config.devices or batch < least:  # pairs alone have no others to be told from
        whole = max(least, config.devices * -(-batch // config.devices))
        raise InputError(
            f"a batch of {batch} pairs cannot be shared by {config.devices} devices, two or more "
            f"to each: use --batch-size {whole}"
        )
    if classes is not None and not resume and (words := words_on_lost(pairs, classes, plan.size)):
        echo(words)
    precision = manifest.get("precision", config.precision) if resume else config.precision
    engine = Engine(config.accelerator, config.devices, precision)  # auto may differ elsewhere
    kept = pairs[:KEPT_CROPS] if _from_nothing(config) else pairs
    with _alone, claimed(target.path):  # torch's random stream is the whole process's
        lines = [] if resume else target.create(kept, overwrite=overwrite)
        with engine.relay(progress) as report, target.saved_or_emptied():
            if not resume:
                settings = {**asdict(config), "preset": plan.preset}  # auto may differ elsewhere
                if config.source is not None:
                    settings["source"] = str(Path(config.source).resolve())
                if config.vgg is not None:
                    settings["vgg"] = str(Path(config.vgg).resolve())
                manifest = manifest_header(
                    plan.gan,
                    classes,
                    lines,
                    pairs[0],
                    settings,
                    engine.precision,
                    originals,
                    white_is_object,
                )
                if config.vgg is not None:
                    manifest["vgg_sha256"] = sha256_file(config.vgg)
                if _from_nothing(config):
                    manifest |= keep_crops(target.path, pairs)
                manifest["training_size"] = list(plan.size)
                if kinds:
                    manifest["crop_classes"] = kinds
            steps = plan.loop.iterations
            shown = f", {_described(classes)}" if classes and not resume else ""
            size = f"{plan.size[1]}x{plan.size[0]} px"
            echo(f"{told}{plan.why}; {size}, {steps} step{'s' * (steps > 1)}{shown}")
            run = Run(target, manifest, pairs, classes, plan, config, resume)
            interrupted = engine.launch(_run, run, report)
    if interrupted:
        echo(f"stopped; the checkpoint is saved. Go on with: {config.resuming(out)}")
        raise KeyboardInterrupt
    if (diversity := target.read_diversity()) < COLLAPSED:
        echo(
            f"beware: the samples are all but one picture (diversity {diversity:.2f}); look at "
            f"{target.path / 'samples'} and fit again with more steps, pictures or another --seed"
        )
    return target.path


def _described(classes: ClassMap) -> str:
    """Name the classes that were found in the masks."""
    shown = ", ".join(str(class_id) for class_id in classes.ids[:12])
    return f"{len(classes)} classes: ids {shown}{', ...' * (len(classes) > 12)}"


def _from_nothing(config: FitConfig) -> bool:
    """Whether the GAN learns from many unlabelled pictures."""
    return presets.GANS[config.generator].square_px is not None and config.source is None


def _squares(
    images: str | Path | None, masks: str | Path | None, config: FitConfig
) -> tuple[list[Sample], list[str], list[str]]:
    """Squares to learn from, SHA-256 of the photographs, and the names of the squares' K classes.

    The i-th square is of class i modulo K.
    """
    side = config.max_size or presets.GANS[config.generator].square_px
    assert side is not None
    if images is None or masks is not None:
        adapts = config.generator in ADAPTED
        who, way_out = (" without a source", ", or a source to adapt") if adapts else ("", "")
        raise InputError(
            f"{config.generator}{who} learns from a folder of pictures alone: give images and no "
            f"masks{way_out}"
        )
    folders = class_folders(images) if config.generator == "biggan" else []
    if folders:
        crops, photographs = read_class_crops(folders, side, config.seed)
    else:
        crops, photographs = read_square_crops(images, side, config.seed)
    return crops, list(photographs), [path.name for path in folders]


def _compose(
    out: Path,
    pairs: list[Sample],
    classes: ClassMap | None,
    config: FitConfig,
    overwrite: bool,
    progress: Callable[[Progress], None] | None,
    originals: list[str],
    white_is_object: bool,
) -> str:
    """Write a composition; returns words on it."""
    if classes is None:
        raise InputError("the preset compose moves labelled objects: give masks, or use fast")
    if config.background_share > 0 and config.objects is None:
        raise InputError("generated backgrounds need a bank: add --objects BANK")
    start = time.monotonic()

    def report(done: int, total: int) -> None:
        if progress is not None:
            left = (time.monotonic() - start) / done * (total - done)
            progress(Progress(done, total, left, ""))

    words = write_composition(
        out,
        pairs,
        classes,
        config,
        overwrite=overwrite,
        progress=report,
        originals=originals,
        white_is_object=white_is_object,
    )
    return f"{words}, {_described(classes)}"


def _run(engine: Engine, run: Run, progress: Callable[[Progress], None] | None) -> bool:
    """Train in one process; returns whether it was interrupted."""
    with torch_seeded(derive_seed(run.config.seed, "fit", "initial weights")):
        return _trained(engine, run, progress)


def _trained(engine: Engine, run: Run, progress: Callable[[Progress], None] | None) -> bool:
    plan, main = run.plan, engine.rank == 0
    gan = gans.build(plan.gan)
    scale = None if gan.paints_masks else gan.real_scale
    images, masks = training_tensors(run.pairs, run.classes, plan.size, scale)
    if run.manifest.get("crop_classes"):
        masks = torch.arange(len(images)) % len(run.manifest["crop_classes"])
    gan.initialise(images, masks)
    if run.config.source is not None and not run.resume:
        read_source(run.config.source, run.config.generator).give(gan)
    if run.config.vgg is not None:
        assert isinstance(gan, OASIS)
        gan.vgg = VGGLoss(run.config.vgg)
    gan.to(engine.device)
    if engine.device.type == "cpu":
        gan.to(memory_format=gan.memory_format)
    state = TrainingState(gan, plan.plugins(), plan.loop)
    keeper = Keeper(run, state, Monitor(images, plan.size, run.config.seed)) if main else None
    if run.resume:
        checkpoint = run.target.read_checkpoint()
        state.load_state_dict(checkpoint["training"])
        if keeper is not None:
            keeper.load_state_dict(checkpoint)
    elif keeper is not None:
        keeper.save()
    start, first = time.monotonic(), state.step

    with _interruptible() as interrupted:

        def after_step(terms: dict[str, Tensor]) -> bool:
            stop = engine.any(interrupted())
            if keeper is None:
                return stop
            last = state.step == plan.loop.iterations
            keeper.after_step(terms, last=last, stop=stop)
            if progress is not None:
                pace = (time.monotonic() - start) / (state.step - first)
                left = pace * (plan.loop.iterations - state.step)
                progress(Progress(state.step, plan.loop.iterations, left, keeper.note))
            return stop

        if state.step < plan.loop.iterations:
            train(state, *_near(images, masks, engine.device), engine, after_step)
        stopped = engine.any(interrupted())  # by the last step or its saving, too
    return stopped or state.step < plan.loop.iterations


def _near(
    images: Tensor, masks: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Move training pictures and masks to a device, or leave them where they would fill it."""
    size = images.nbytes + (0 if masks is None else masks.nbytes)
    home = device if size <= RESIDENT_BYTES else images.device
    return images.to(home), None if masks is None else masks.to(home)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that is looked at between steps; a second one raises.

    What comes within a second counts as one: a cluster tells every process, and they each other.
    """
    pressed = threading.Event()
    first = 0.0

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal first
        if pressed.is_set() and time.monotonic() - first > SAME_STOP_S:
            raise KeyboardInterrupt
        if not pressed.is_set():
            first = time.monotonic()
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
