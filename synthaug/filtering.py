"""FILTER: score every sample of a bank, then keep or drop by rules over the scores.

Order of the rules: broken masks, object area, stray blobs and near copies are rejected; the rest
is ranked by SIFID and the worst share dropped. Dropped samples keep their files; their manifest
lines say why. Scores are stored in the lines, so that other settings cost no forward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.bank import Bank, require_masks
from synthaug.composing.components import largest_scale, object_share
from synthaug.config import FilterConfig, make
from synthaug.errors import InputError
from synthaug.files import sha256_bytes
from synthaug.formats import coco
from synthaug.quality.features import (
    FeatureNet,
    Lite0Features,
    Network,
    batch_size_for,
    image_tensor,
    load_feature_net,
)
from synthaug.quality.frechet import SifidReference
from synthaug.quality.perceptual import PerceptualSpace, TrainingSet
from synthaug.rendering.strays import areas_of, count_main
from synthaug.sample import ClassMap, Sample

SIFID_KEYS = ("sifid-1", "sifid-2", "sifid-3", "sifid-4")
NEAR_COPY = "near copy"
_PROTOCOL = "2"


def filter_bank(
    bank: Bank | str | Path,
    *,
    rule: str = "sifid-1234",
    drop: float = 0.15,
    network: Network = "auto",
    weights: str | Path | None = None,
    net: FeatureNet | None = None,
    min_area_ratio: float = 0.25,
    max_area_ratio: float = 4.0,
    max_stray: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Score a bank's samples and mark the ones to keep.

    Filtering starts from all samples each time, whatever an earlier filter dropped. Scores are
    reused when neither the bank's files nor the network changed.

    Writes into every line ``scores`` (``sifid-1`` .. ``sifid-4``; ``rank``, the average rank among
    the ranked, 0 = best, null when rejected before; ``nearest_training_distance``;
    ``object_share`` and ``stray``, shares of pixels; ``missing_classes``; ``full``), ``kept`` and
    ``reasons``, and into the manifest's ``filter`` the settings, the network, the limits derived
    from the pair, the counts and the number of memorised samples. A COCO file of the bank lists the
    kept samples alone afterwards.

    Args:
        bank: the bank or its folder.
        rule: see `synthaug.config.FilterConfig`.
        drop: see `synthaug.config.FilterConfig`.
        network: see `synthaug.quality.features.load_feature_net`.
        weights: InceptionV3 weights file.
        net: a loaded network, instead of ``network`` and ``weights``.
        min_area_ratio: see `synthaug.config.FilterConfig`.
        max_area_ratio: see `synthaug.config.FilterConfig`.
        max_stray: see `synthaug.config.FilterConfig`.
        progress: called with (samples scored, samples).

    Returns:
        The bank, opened anew: it shows the kept samples.

    Raises:
        InputError: unknown rule or setting out of range, missing weights, empty or damaged bank.
    """
    rules = {
        "rule": rule,
        "drop": drop,
        "min_area_ratio": min_area_ratio,
        "max_area_ratio": max_area_ratio,
        "max_stray": max_stray,
    }
    settings = make(FilterConfig, rules)
    if settings.rule is None:  # in a recipe it leaves the filter out
        raise InputError(f"rule is None: choose one of sifid-1234, {', '.join(SIFID_KEYS)}")
    whole = Bank(bank, include_dropped=True)
    if not whole.all_records:
        raise InputError(f"bank {whole.path} holds no sample: generate some first")
    require_masks(whole.path, whole.classes)
    net = net or load_feature_net(network, weights)
    pairs = whole.pairs()
    key = _score_key(whole, pairs, net)
    previous = whole.manifest.get("filter", {})
    if previous.get("score_key") == key and all("scores" in r for r in whole.all_records):
        whole.check_files()
        scores = [dict(record["scores"]) for record in whole.all_records]
        near_copy_distance = previous["near_copy_distance"]
    else:
        scores, near_copy_distance = _score(whole, pairs, net, progress)
    areas = [object_share(pair.mask, whole.classes) for pair in pairs]
    largest = max(areas)
    if whole.manifest.get("generator", {}).get("enlarge", False):
        largest *= max(1.0, largest_scale(largest) ** 2 / 2)
    asked = whole.manifest.get("layouts") is not None  # what masks show was asked for
    limits = {
        "object_share": [min(areas) * min_area_ratio, largest * max_area_ratio],
        "near_copy_distance": near_copy_distance,
    }
    reasons = judge(
        scores, settings, limits["object_share"], near_copy_distance, judge_masks=not asked
    )
    records = [
        {**record, "kept": not why, "reasons": why, "scores": score}
        for record, score, why in zip(whole.all_records, scores, reasons, strict=True)
    ]
    counts = Counter(reason for why in reasons for reason in why)
    summary = {
        **rules,
        "network": net.name,
        **limits,
        "samples": len(records),
        "kept": sum(not why for why in reasons),
        "memorised": counts[NEAR_COPY],
        "reasons": dict(sorted(counts.items())),
        "score_key": key,
    }
    whole.rewrite(records, filter=summary)
    kept = Bank(whole)
    listed = Path(whole) / coco.INSTANCES
    if listed.exists():
        coco.write_instances(kept, kept.classes, listed)
    return kept


def _faults_of_mask(
    score: dict[str, Any], settings: FilterConfig, object_share: Sequence[float]
) -> list[str]:
    why = []
    if score["full"]:
        why.append("one class fills the mask")
    elif score["missing_classes"]:
        why.append("class missing")
    if score["object_share"] < object_share[0]:
        why.append("object too small")
    elif score["object_share"] > object_share[1]:
        why.append("object too large")
    if score["stray"] > settings.max_stray:
        why.append("stray blobs")
    return why


def judge(
    scores: Sequence[dict[str, Any]],
    settings: FilterConfig,
    object_share: Sequence[float],
    near_copy_distance: float,
    *,
    judge_masks: bool = True,
) -> list[list[str]]:
    """Apply the rules to scores; sets each score's ``rank``.

    Args:
        scores: one dictionary per sample, as `filter_bank` describes.
        settings: the rules.
        object_share: smallest and largest share of object pixels allowed.
        near_copy_distance: nearest-training distance under which a sample is a copy.
        judge_masks: whether rules about masks hold: a painter's were given, and not made.

    Returns:
        The reasons to drop each sample; empty lists are kept.
    """
    reasons: list[list[str]] = []
    for score in scores:
        why = _faults_of_mask(score, settings, object_share) if judge_masks else []
        if score["nearest_training_distance"] < near_copy_distance:
            why.append(NEAR_COPY)
        score["rank"] = None
        reasons.append(why)
    ranked = [index for index, why in enumerate(reasons) if not why]
    keys = SIFID_KEYS if settings.rule == "sifid-1234" else (str(settings.rule),)
    values = np.array([[scores[i][key] for key in keys] for i in ranked]).reshape(-1, len(keys))
    ranks = np.mean([np.searchsorted(np.sort(tap), tap) for tap in values.T], axis=0)
    for index, rank in zip(ranked, ranks, strict=True):
        scores[index]["rank"] = float(rank)
    out = min(int(settings.drop * len(ranked) + 0.5), max(len(ranked) - 1, 0))
    worst_first = np.argsort(-ranks, kind="stable")  # equal ranks: the earlier sample goes first
    for position in worst_first[:out]:
        reasons[ranked[position]].append(f"{settings.rule} rank")
    return reasons


def to_tensor(samples: Sequence[Sample]) -> Tensor:
    """Stack the images of equally large samples: (B, 3, H, W) float in [0, 1]."""
    return image_tensor([sample.image for sample in samples])


class Yardstick:
    """The training pictures that samples are held against, described once.

    Args:
        pairs: the training pairs.
        net: network of SIFID.
    """

    def __init__(self, pairs: Sequence[Sample], net: FeatureNet) -> None:
        reals = [to_tensor([pair])[0] for pair in pairs]
        self.net = net
        self.reference = SifidReference(reals, net)
        self.space = PerceptualSpace(
            *pairs[0].size, net if isinstance(net, Lite0Features) else None
        )
        self.training = TrainingSet(reals, self.space)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return SIFID (B, 4) of images (B, 3, H, W), and where they lie in ``space`` (B, D)."""
        with torch.inference_mode():
            maps = self.net(images)
            return self.reference.score(maps), self.space.embed_with(self.net, images, maps)


def _score(
    bank: Bank,
    pairs: Sequence[Sample],
    net: FeatureNet,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[dict[str, Any]], float]:
    """Read every sample once and measure it."""
    yardstick = Yardstick(pairs, net)
    classes = bank.classes
    shown = [_present(pair.mask, classes) for pair in pairs]
    expected = [i for i in classes.ids if i in set.intersection(*shown)]
    alone = [held for held in shown if len(held) == 1]
    components = {i: max(count_main(areas_of(p.mask == i)) for p in pairs) for i in classes.ids}
    scores: list[dict[str, Any]] = []
    for batch in in_batches(bank):
        distances, embedded = yardstick.look(to_tensor(batch))
        nearest = yardstick.training.distance(embedded).tolist()
        for sample, sifid, distance in zip(batch, distances.tolist(), nearest, strict=True):
            scores.append(
                {
                    **dict(zip(SIFID_KEYS, sifid, strict=True)),
                    "rank": None,
                    "nearest_training_distance": distance,
                    **_measure_mask(sample.mask, classes, expected, alone, components),
                }
            )
        if progress is not None:
            progress(len(scores), len(bank))
    return scores, yardstick.training.near_copy_threshold()


def in_batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Group consecutive samples of one size into batches that a forward pass can take."""
    batch: list[Sample] = []
    for sample in samples:
        full = batch and len(batch) >= batch_size_for(*batch[0].size)
        if batch and (full or sample.size != batch[0].size):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _score_key(bank: Bank, pairs: Sequence[Sample], net: FeatureNet) -> str:
    """Hash what the scores depend on: files, pairs, network, protocol."""
    parts = [_PROTOCOL, net.name]
    parts += [r["image_sha256"] + r["mask_sha256"] for r in bank.all_records]
    parts += [sha256_bytes(array.tobytes()) for p in pairs for array in (p.image, p.mask)]
    return sha256_bytes("\n".join(parts).encode())


def _measure_mask(
    mask: NDArray[np.uint8],
    classes: ClassMap,
    expected: Sequence[int],
    alone: Sequence[set[int]],
    components: dict[int, int],
) -> dict[str, Any]:
    present = _present(mask, classes)
    stray = labelled = 0
    for class_id in classes.ids[1:]:
        sizes = areas_of(mask == class_id)
        stray += int(sizes[components[class_id] :].sum())
        labelled += int(sizes.sum())
    return {
        "object_share": object_share(mask, classes),
        "stray": stray / labelled if labelled else 0.0,
        "missing_classes": [i for i in expected if i not in present],
        "full": len(present) < 2 and present not in alone,
    }


def _present(mask: NDArray[np.uint8], classes: ClassMap) -> set[int]:
    return {int(i) for i in np.unique(mask)} - {classes.ignore_id}
