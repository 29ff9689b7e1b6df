"""Where time goes, in one table: seconds, CPU seconds, ratio, memory.

    python recipes/benchmarks.py --bank runs/dog-bank --generator runs/dog --out benchmarks.md

Without ``--bank`` or ``--generator`` a bank of compositions is made first, from the coins that
come with the package. ``--rows`` measures some rows only:

- sifid: SIFID at 427x240 through the bundled network, against the naive computation: sample by
  sample, the real image's statistics each time, ``scipy.linalg.sqrtm`` of the product of full
  covariance matrices. It ends with an error where results differ by more than 1e-4.
- loader: a `DataLoader` (2 workers, 256x256, batch 8) with `SynthAugment(bank, p=0.5)` first in a
  usual pipeline, against the same pipeline without it.
- memory: the most that each of its workers has held after ``--memory-samples`` samples.
- generate: drawing samples and writing the bank; then its parts, one after the other.
- filter: `filter_bank`, the first time and again with its scores kept.
- compare: two arms by two seeds, in turn and two at a time; starting the processes counts too.
- precision: a fit of ``--fit-steps`` steps (preset fast, the coins) in float32 and in bf16, in
  turn. Which of them is faster hangs on the processor.

Seconds are medians, or sums, over rounds in which the sides take turns; CPU seconds count all
threads and workers and are what means something on a busy machine. Ratios say how many times the
naive computation takes ours, a batch with `SynthAugment` one without, and float32 bf16. The
training step of the published networks is timed by ``benchmark_paper_step.py``, rendering by
``benchmark_rendering.py``.

Hardware and result to expect: two CPU cores, some three minutes. SIFID 9 to 11 times as fast as the
naive computation, which two threads slow down; with ``--threads 1`` and OMP_NUM_THREADS=1 about 3
times, twice where that has our network. `SynthAugment` about 10 % more per batch.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shutil import copytree
from statistics import median
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from recipe_options import Distinct, positive, run_main
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import synthaug
from synthaug import files
from synthaug.backbone import TAP_BLOCKS
from synthaug.bank import Bank
from synthaug.config import FitConfig
from synthaug.demo import write_training_pair
from synthaug.engine import Engine
from synthaug.filtering import filter_bank, to_tensor
from synthaug.formats.folder import image_png, mask_png
from synthaug.formats.splits import Unit
from synthaug.gain.comparing import compare
from synthaug.gain.hardware import hardware, peak_resident_gb
from synthaug.generation import generate, load_generator
from synthaug.mixing import SynthAugment, seed_worker
from synthaug.quality.features import Lite0Features, split_batches
from synthaug.quality.frechet import SifidReference
from synthaug.sample import resized
from synthaug.weights import efficientnet_lite0_state

HEIGHT, WIDTH, CROP_PX, BATCH, WORKERS = 240, 427, 256, 8, 2
ROUNDS, TOLERANCE = 10, 1e-4
PICTURES = 16  # in the loader's data set: the training pair, again and again


def row(
    what: str,
    wall_s: float | None = None,
    cpu_s: float | None = None,
    times: str = "",
    memory: str = "",
) -> str:
    """One line of the table."""
    seconds = " | ".join("" if s is None else f"{s:.4g}" for s in (wall_s, cpu_s))
    return f"| {what} | {seconds} | {times} | {memory} |"


Times = dict[str, list[tuple[float, float]]]
Precision = Literal["32-true", "bf16-mixed"]


def timed(do: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds, CPU seconds of this process and its ended children, and the result."""

    def cpu_s() -> float:
        return time.process_time() + sum(os.times()[2:4])

    cpu, wall, result = cpu_s(), time.perf_counter(), do()
    return time.perf_counter() - wall, cpu_s() - cpu, result


def middle(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return both medians."""
    wall, cpu = zip(*pairs, strict=True)
    return median(wall), median(cpu)


def ratio(slow: Sequence[tuple[float, float]], fast: Sequence[tuple[float, float]]) -> str:
    """Write the medians of the rounds' ratios, by seconds and by CPU seconds."""
    wall, cpu = middle([(s[0] / f[0], s[1] / f[1]) for s, f in zip(slow, fast, strict=True)])
    return f"{wall:.2f} (CPU {cpu:.2f})"


class TimmTaps(nn.Module):
    """The four taps of the network as timm builds it."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
        self.net.load_state_dict(efficientnet_lite0_state())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of images in [0, 1], (B, 3, H, W)."""
        x = self.net.bn1(self.net.conv_stem(images * 2 - 1))
        maps = [x := block(x) for stage in self.net.blocks[:5] for block in stage]
        return [maps[block] for block in TAP_BLOCKS]


def naive_sifid(fake: Tensor, real: Tensor, net: nn.Module) -> list[float]:
    """SIFID-1 to SIFID-4 of one image by the textbook, nothing kept from the sample before."""
    from scipy.linalg import sqrtm

    distances = []
    for a, b in zip(net(real[None]), net(fake[None]), strict=True):
        rows = [x[0].flatten(1).T.numpy().astype(np.float64) for x in (a, b)]
        (m1, s1), (m2, s2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in rows)
        root = sqrtm(s1 @ s2)
        distances.append(float(((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * root.real)))
    return distances


def sifid_rows(bank: Bank, samples: int) -> Iterator[str]:
    """Time SIFID of so many samples; the sides take turns every tenth of them."""
    picked = [resized(bank[i % len(bank)], HEIGHT, WIDTH) for i in range(samples)]
    real = to_tensor([resized(bank.pairs()[0], HEIGHT, WIDTH)])[0]
    ours, published = Lite0Features(), TimmTaps()
    times: Times = {"naive, network as timm has it": [], "naive, our network": [], "ours": []}
    worst = 0.0

    def fast(part: Tensor) -> Any:
        return torch.cat([reference.score(ours(b)) for b in split_batches(part)]).numpy()

    with torch.inference_mode():
        wall, cpu, reference = timed(lambda: SifidReference([real], ours))
        parts = torch.split(to_tensor(picked), -(-samples // ROUNDS))
        sides: tuple[Callable[[Tensor], Any], ...] = (
            lambda part: np.array([naive_sifid(x, real, published) for x in part]),
            lambda part: np.array([naive_sifid(x, real, ours) for x in part]),
            fast,
        )
        for part in (parts[0][:1], *parts):  # the first warms up
            spent = [timed(lambda do=do, part=part: do(part)) for do in sides]
            for name, (*seconds, _) in zip(times, spent, strict=True):
                times[name].append((seconds[0], seconds[1]))
            difference = np.abs(spent[0][2] - spent[2][2]) / spent[0][2]
            worst = max(worst, float(difference.max()))
    if worst > TOLERANCE:
        raise SystemExit(f"SIFID differs from the naive computation by {worst:.1e}")
    times = {name: found[1:] for name, found in times.items()}
    share = (wall / len(parts), cpu / len(parts))  # the real image's, once for all
    times["ours"] = [(w + share[0], c + share[1]) for w, c in times["ours"]]
    for name, found in times.items():
        times_ours = "" if name == "ours" else ratio(found, times["ours"])
        what = f"SIFID of {samples} samples at {WIDTH}x{HEIGHT}, {name}"
        yield row(what, *(sum(column) for column in zip(*found, strict=True)), times_ours)
    yield row(f"- largest relative difference of the results: {worst:.0e}")


class Pictures(Dataset[dict[str, Any]]):
    """A user's data set: JPEGs and index PNGs, read with OpenCV, and a usual pipeline.

    Every item also tells which worker made it, its CPU seconds and peak memory so far.
    """

    def __init__(self, folder: Path, length: int, first: Sequence[Any]) -> None:
        self.folder, self.length = folder, length
        usual = [
            A.RandomResizedCrop((CROP_PX, CROP_PX), scale=(0.5, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(p=0.5),
            A.Normalize(),
            ToTensorV2(),
        ]
        self.pipeline = A.Compose([*first, *usual])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.folder / f"{index % PICTURES:02d}"
        image = cv2.imread(f"{name}.jpg", cv2.IMREAD_COLOR_RGB)
        mask = cv2.imread(f"{name}.png", cv2.IMREAD_GRAYSCALE)
        item: dict[str, Any] = self.pipeline(image=image, mask=mask)
        return {
            **item,
            "worker": os.getpid(),
            "cpu": time.process_time(),
            "memory": peak_resident_gb() or 0.0,
        }


def write_pictures(bank: Bank, folder: Path) -> Path:
    pair = resized(bank.pairs()[0], HEIGHT, WIDTH)
    folder.mkdir()
    for number in range(PICTURES):
        cv2.imwrite(f"{folder}/{number:02d}.jpg", pair.image[..., ::-1])
        cv2.imwrite(f"{folder}/{number:02d}.png", pair.mask)
    return folder


def make_loader(folder: Path, samples: int, first: Sequence[Any]) -> DataLoader[dict[str, Any]]:
    return DataLoader(
        Pictures(folder, samples, first),
        batch_size=BATCH,
        num_workers=WORKERS,
        persistent_workers=True,
        worker_init_fn=seed_worker,
        generator=torch.Generator().manual_seed(0),
    )


def epoch(loader: DataLoader[dict[str, Any]]) -> tuple[float, float]:
    """Seconds and the workers' CPU seconds per batch, of one pass."""
    start, batches = time.perf_counter(), 0
    known: dict[int, list[float]] = {}
    for batch in loader:
        batches += 1
        for worker, cpu in zip(batch["worker"].tolist(), batch["cpu"].tolist(), strict=True):
            known.setdefault(worker, []).append(cpu)
    wall = time.perf_counter() - start
    spent = sum(found[-1] - found[0] for found in known.values())
    items = sum(len(found) - 1 for found in known.values())
    return wall / batches, spent / items * BATCH


def loader_rows(bank: Bank, work: Path, samples: int) -> Iterator[str]:
    """Time batches with and without `SynthAugment`, epochs in turn."""
    folder = write_pictures(bank, work / "pictures")
    firsts = ((), (SynthAugment(bank.path, p=0.5),))
    loaders = [make_loader(folder, samples, first) for first in firsts]
    times = [[epoch(loader) for loader in loaders] for _ in range(ROUNDS + 1)][1:]  # 0 warms up
    without, with_ = zip(*times, strict=True)
    what = f"DataLoader, {WORKERS} workers, {CROP_PX}x{CROP_PX}, a batch of {BATCH}"
    yield row(f"{what}, without SynthAugment", *middle(without))
    yield row(f"{what}, with SynthAugment(p=0.5)", *middle(with_), ratio(with_, without))


def memory_rows(bank: Bank, work: Path, samples: Sequence[int]) -> Iterator[str]:
    """Watch each worker's memory while it makes samples."""
    folder = write_pictures(bank, work / "watched")
    loader = make_loader(folder, WORKERS * samples[-1], (SynthAugment(bank.path, p=0.5),))
    known: dict[int, list[float]] = {}
    for batch in loader:
        for worker, held in zip(batch["worker"].tolist(), batch["memory"].tolist(), strict=True):
            known.setdefault(worker, []).append(held)
    for number in samples:
        worst = max(held[min(number, len(held)) - 1] for held in known.values())
        yield row(f"DataLoader, one worker after {number} samples", memory=f"{1000 * worst:.0f} MB")


@contextlib.contextmanager
def time_in_networks() -> Iterator[list[float]]:
    """Collect CPU seconds of calls of networks; nested modules count once."""
    spent: list[float] = []
    begun: list[float] = []

    def leave(*_: Any) -> None:
        start = begun.pop()
        if not begun:
            spent.append(time.process_time() - start)

    hooks = torch.nn.modules.module
    before = hooks.register_module_forward_pre_hook(lambda *_: begun.append(time.process_time()))
    after = hooks.register_module_forward_hook(leave)
    try:
        yield spent
    finally:
        for hook in (before, after):
            hook.remove()


def generate_rows(generator: Path, out: Path, samples: int) -> Iterator[str]:
    """Draw and write a bank; then the parts, one after the other."""
    source = load_generator(generator)
    source.sample(0)
    wall, cpu, bank = timed(lambda: generate(source, out, samples))
    height, width = bank[0].size
    yield row(f"generate: {samples} samples at {width}x{height} drawn and written", wall, cpu)
    with time_in_networks() as inside:
        draw = timed(lambda: [source.sample(i) for i in range(samples)])
    encode = timed(lambda: [data for s in draw[2] for data in (image_png(s), mask_png(s.mask))])
    paths = [out.parent / "written" / f"{i}.png" for i in range(len(encode[2]))]
    write = timed(lambda: [*map(files.write_bytes, paths, encode[2])])
    yield row("- networks", None, sum(inside))
    yield row("- rendering at full size", None, draw[1] - sum(inside))
    yield row("- encoding PNGs", *encode[:2])
    yield row("- writing files", *write[:2])


def filter_rows(bank: Path) -> Iterator[str]:
    """Filter a bank that nobody has scored, then again."""
    fresh = Bank(bank, include_dropped=True)
    for record in fresh.all_records:
        record.pop("scores", None)
    fresh.rewrite(fresh.all_records, filter={})
    for again in ("", ", scores kept"):
        seconds = timed(lambda: filter_bank(bank, network="efficientnet_lite0"))[:2]
        yield row(f"filter: {len(fresh.all_records)} samples{again}", *seconds)


def compare_rows(bank: Path, work: Path, steps: int) -> Iterator[str]:
    """Compare two arms by two seeds, one and two trainings at a time."""
    training = [resized(pair, HEIGHT, WIDTH) for pair in Bank(bank).pairs()]
    unit = Unit("unit", training, training[:1], Bank(bank).classes, "images")
    options: dict[str, Any] = {
        "arms": ["standard", "standard+synthetic"],
        "sources": {"unit": {"synthetic": bank}},
        "segmenter": "unet",
        "seeds": 2,
        "steps": steps,
    }
    for jobs in (1, 2):
        out = work / f"compare-{jobs}"
        wall, cpu, _ = timed(lambda out=out, jobs=jobs: compare([unit], out, jobs=jobs, **options))
        yield row(f"compare: 4 trainings of {steps} steps, jobs={jobs}", wall, cpu)


def precision_rows(work: Path, steps: int, max_size: int | None = None) -> Iterator[str]:
    """Fit the coins in float32 and in bf16, twice in turn."""
    image, mask = write_training_pair(work / "coins")
    times: dict[Precision, list[tuple[float, float]]] = {"32-true": [], "bf16-mixed": []}
    for _ in range(2):
        for precision, taken in times.items():
            config = FitConfig(
                preset="fast", iterations=steps, max_size=max_size, precision=precision
            )
            do = functools.partial(
                synthaug.fit,
                image,
                mask,
                work / "coarse",
                config=config,
                overwrite=True,
                echo=lambda line: None,
            )
            taken.append(timed(do)[:2])
    chosen = Engine("cpu").precision
    for precision, taken in times.items():
        note = ", the one that auto takes here" if precision == chosen else ""
        times_of_bf16 = ratio(taken, times["bf16-mixed"]) if precision == "32-true" else ""
        yield row(f"fit: {steps} steps, {precision}{note}", *middle(taken), times_of_bf16)


def make_inputs(work: Path, samples: int) -> tuple[Path, Path]:
    """Write a generator that composes coins, and a filtered bank of it."""
    image, mask = write_training_pair(work / "pair")
    generator = synthaug.fit(
        image, mask, work / "generator", config=FitConfig(preset="compose"), echo=lambda line: None
    )
    generate(generator, work / "bank", samples, filter="sifid")
    return work / "bank", generator


ROWS = ("sifid", "loader", "memory", "generate", "filter", "compare", "precision")


def table(options: argparse.Namespace, work: Path) -> str:
    """Measure what was asked for and write the table."""
    named = options.bank, options.generator
    bank_path, generator = make_inputs(work, options.samples) if None in named else named
    bank = Bank(bank_path)
    copy = work / "filtered"
    copytree(bank_path, copy)
    measure: Mapping[str, Callable[[], Iterator[str]]] = {
        "sifid": lambda: sifid_rows(bank, options.samples),
        "loader": lambda: loader_rows(bank, work, options.epoch_samples),
        "memory": lambda: memory_rows(bank, work, options.memory_samples),
        "generate": lambda: generate_rows(generator, work / "generated", options.samples),
        "filter": lambda: filter_rows(copy),
        "compare": lambda: compare_rows(bank_path, work, options.steps),
        "precision": lambda: precision_rows(work, options.fit_steps),
    }
    lines = ["| what | seconds | CPU seconds | ratio | memory |", "|---|---:|---:|---|---:|"]
    for name in options.rows:
        for line in measure[name]():
            lines.append(line)
            print(line, file=sys.stderr, flush=True)  # the rest takes a while
    machine = hardware()
    lines.append(
        f"\n{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, help="a filtered bank of the generator")
    parser.add_argument("--generator", type=Path, help="folder of a fitted generator")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    parser.add_argument("--rows", nargs="+", action=Distinct, choices=ROWS, default=ROWS)
    parser.add_argument("--samples", type=positive, default=100, help="of sifid, generate, filter")
    parser.add_argument(
        "--epoch-samples", type=positive, default=160, help="per pass of the loader"
    )
    parser.add_argument("--memory-samples", type=positive, nargs="+", default=[1000, 10000])
    parser.add_argument("--steps", type=positive, default=30, help="per training of compare")
    parser.add_argument("--fit-steps", type=positive, default=40, help="per fit of precision")
    parser.add_argument("--threads", type=positive, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*[Ss]ingular")
    with tempfile.TemporaryDirectory() as work:
        text = table(options, Path(work))
    print(text, end="")
    if options.out is not None:
        files.write_text(options.out, text)


if __name__ == "__main__":
    run_main(main)
