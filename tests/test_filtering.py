import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from synthaug.bank import Bank, write_bank
from synthaug.config import FilterConfig
from synthaug.errors import InputError
from synthaug.filtering import filter_bank, judge
from synthaug.generation.drawing import write_coco
from synthaug.quality.features import Lite0Features
from synthaug.sample import ClassMap, Sample

CLASSES = ClassMap((0, 1))
NET = Lite0Features()


def pair() -> Sample:
    """A quarter-size photograph of a cup, its mask drawn as an ellipse."""
    image = cv2.resize(data.coffee(), (150, 100), interpolation=cv2.INTER_AREA)
    mask = np.zeros((100, 150), np.uint8)
    cv2.ellipse(mask, (75, 50), (30, 25), 0, 0, 360, 1, -1)
    return Sample(image, mask, "cup")


def moved(sample: Sample, seed: int) -> Sample:
    """Shift, turn and mirror a pair, enough to be no copy."""
    rng = np.random.default_rng(seed)
    h, w = sample.size
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(5, 12), rng.uniform(0.95, 1.1))
    matrix[:, 2] += rng.uniform(4, 12, 2) * rng.choice([-1, 1], 2)
    border = cv2.BORDER_REFLECT_101
    image = cv2.warpAffine(sample.image, matrix, (w, h), borderMode=border)
    mask = cv2.warpAffine(
        sample.mask, matrix, (w, h), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT
    )
    return Sample(image, mask)


def make_bank(path: Path, samples: list[Sample], pairs: list[Sample] | None = None) -> Bank:
    lines = [(sample, {"latent_seed": index}) for index, sample in enumerate(samples)]
    return write_bank(path, lines, pairs or [pair()], CLASSES, {"seed": 0})


def with_mask(sample: Sample, mask: np.ndarray) -> Sample:
    return Sample(sample.image, mask.astype(np.uint8))


def lines(path: Path) -> list[dict[str, Any]]:
    return Bank(path, include_dropped=True).all_records


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    make_bank(tmp_path / "bank", [moved(pair(), seed) for seed in range(20)])
    return tmp_path / "bank"


def test_a_coco_file_lists_the_kept_samples_alone(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", [moved(pair(), seed) for seed in range(10)])
    write_coco(bank)
    kept = filter_bank(bank, drop=0.5)
    listed = json.loads((bank.path / "instances.json").read_text())["images"]
    assert [entry["file_name"] for entry in listed] == [f"images/{s.id}.png" for s in kept]
    assert len(kept) < 10


def test_clean_bank_loses_nothing_but_the_worst_share(clean: Path) -> None:
    assert len(filter_bank(clean, net=NET, drop=0)) == 20
    bank = filter_bank(clean, net=NET, drop=0.15)
    assert len(bank) == 17
    dropped = [line for line in lines(clean) if not line["kept"]]
    assert [line["reasons"] for line in dropped] == [["sifid-1234 rank"]] * 3
    kept_ranks = [r["scores"]["rank"] for r in bank.records]
    assert min(line["scores"]["rank"] for line in dropped) >= max(kept_ranks)
    for line in dropped:
        assert (clean / line["image"]).is_file()


@pytest.mark.parametrize("rule", ["sifid-1234", "sifid-1", "sifid-4"])
def test_noise_is_ranked_last(tmp_path: Path, rule: str) -> None:
    rng = np.random.default_rng(0)
    samples = [moved(pair(), seed) for seed in range(20)]
    for index in (3, 8, 15):
        noise = rng.integers(0, 256, samples[index].image.shape).astype(np.uint8)
        samples[index] = Sample(noise, samples[index].mask)
    make_bank(tmp_path / "bank", samples)
    filter_bank(tmp_path / "bank", net=NET, rule=rule)
    out = [line["id"] for line in lines(tmp_path / "bank") if not line["kept"]]
    assert out == ["00003", "00008", "00015"]


def test_repeating_the_training_pair_is_memorisation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    copies = []
    for index in range(8):
        noise = rng.normal(0, 2, pair().image.shape)
        image = np.clip(pair().image + noise, 0, 255).astype(np.uint8)
        mask = pair().mask
        if index % 2:
            image, mask = image[:, ::-1].copy(), mask[:, ::-1].copy()
        copies.append(Sample(image, mask))
    make_bank(tmp_path / "bank", copies)
    bank = filter_bank(tmp_path / "bank", net=NET)
    assert len(bank) == 0
    assert bank.manifest["filter"]["memorised"] == 8
    assert all(line["reasons"] == ["near copy"] for line in lines(tmp_path / "bank"))


def test_variation_is_not_memorisation(clean: Path) -> None:
    assert filter_bank(clean, net=NET).manifest["filter"]["memorised"] == 0


def test_broken_masks_are_rejected_with_reasons(tmp_path: Path) -> None:
    good = moved(pair(), 0)
    blobs = good.mask.copy()
    blobs[2:12, 2:22] = 1
    blobs[85:97, 120:148] = 1
    small = np.zeros_like(good.mask)
    small[50:56, 70:78] = 1
    large = np.ones_like(good.mask)
    large[:4] = 0
    specks = good.mask.copy()
    specks[3:5, 3:5] = 1
    masks = [good.mask, good.mask * 0, good.mask * 0 + 1, blobs, small, large, specks]
    make_bank(tmp_path / "bank", [with_mask(good, mask) for mask in masks])
    filter_bank(tmp_path / "bank", net=NET, drop=0)
    reasons = [line["reasons"] for line in lines(tmp_path / "bank")]
    assert reasons[0] == []
    assert reasons[1] == ["one class fills the mask", "object too small"]
    assert reasons[2] == ["one class fills the mask", "object too large"]
    assert reasons[3] == ["stray blobs"]
    assert reasons[4] == ["object too small"]
    assert reasons[5] == ["object too large"]
    assert reasons[6] == []
    summary = Bank(tmp_path / "bank").manifest["filter"]
    assert summary["kept"] == 2
    assert summary["reasons"]["stray blobs"] == 1
    assert summary["max_stray"] == 0.1
    path = tmp_path / "bank" / "manifest.json"  # of masks that were asked for, not made
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layouts": {"kind": "moved"}}))
    assert len(filter_bank(tmp_path / "bank", net=NET, drop=0)) == len(masks)


def test_what_the_generator_enlarges_on_purpose_is_not_too_large(tmp_path: Path) -> None:
    small, large, huge = (np.zeros_like(pair().mask) for _ in range(3))
    small[40:52, 60:72], large[20:64, 30:74], huge[5:90, 10:110] = 1, 1, 1
    shown = [with_mask(moved(pair(), seed), mask) for seed, mask in enumerate((large, huge))]
    reasons = []
    for enlarge in (True, False):
        path = tmp_path / str(enlarge)
        drawn = [(sample, {"latent_seed": seed}) for seed, sample in enumerate(shown)]
        manifest = {"generator": {"enlarge": enlarge}}
        write_bank(path, drawn, [with_mask(pair(), small)], CLASSES, manifest)
        filter_bank(path, net=NET, drop=0)
        reasons.append([line["reasons"] for line in lines(path)])
    assert reasons == [[[], ["object too large"]], [["object too large"]] * 2]


def test_empty_pictures_stay_where_a_pair_is_empty(tmp_path: Path) -> None:
    good = moved(pair(), 0)
    empty = with_mask(good, good.mask * 0)
    full = with_mask(moved(pair(), 1), good.mask * 0 + 1)
    pairs = [pair(), with_mask(pair(), pair().mask * 0)]
    pairs[1] = Sample(pairs[1].image[:, ::-1].copy(), pairs[1].mask, "empty")
    make_bank(tmp_path / "bank", [good, empty, full], pairs)
    filter_bank(tmp_path / "bank", net=NET, drop=0)
    reasons = [line["reasons"] for line in lines(tmp_path / "bank")]
    assert reasons == [[], [], ["one class fills the mask", "object too large"]]


def test_a_bank_without_masks_is_refused_and_one_sample_stays(tmp_path: Path) -> None:
    alone = with_mask(pair(), np.full((100, 150), 255))
    bank = write_bank(tmp_path / "alone", [(alone, {})], [alone], ClassMap(()), {})
    with pytest.raises(InputError, match="pictures without masks"):
        filter_bank(bank, net=NET)
    assert "filter" not in Bank(bank.path).manifest
    make_bank(tmp_path / "bank", [moved(pair(), seed) for seed in range(3)])
    assert len(filter_bank(tmp_path / "bank", net=NET, drop=0.85)) == 1


def test_a_class_of_every_pair_must_be_there(tmp_path: Path) -> None:
    two = pair()
    two.mask[5:15, 5:25] = 7
    good, bad = moved(two, 1), moved(pair(), 2)
    classes = ClassMap((0, 1, 7))
    write_bank(tmp_path / "bank", [(good, {}), (bad, {})], [two], classes, {})
    filter_bank(tmp_path / "bank", net=NET, drop=0)
    assert [line["reasons"] for line in lines(tmp_path / "bank")] == [[], ["class missing"]]


def test_several_objects_in_the_pair_are_no_stray_blobs(tmp_path: Path) -> None:
    three = pair()
    three.mask[:] = 0
    for x in (20, 70, 120):
        cv2.circle(three.mask, (x, 50), 12, 1, -1)
    make_bank(tmp_path / "bank", [moved(three, seed) for seed in range(4)], [three])
    assert len(filter_bank(tmp_path / "bank", net=NET, drop=0)) == 4


def test_filtering_again_starts_from_all_samples_and_reuses_scores(clean: Path) -> None:
    calls: list[tuple[int, int]] = []
    filter_bank(clean, net=NET, drop=0.5, progress=lambda *step: calls.append(step))
    assert calls[-1] == (20, 20)
    assert len(Bank(clean)) == 10
    first = (clean / "samples.jsonl").read_text()
    calls.clear()
    assert len(filter_bank(clean, net=NET, drop=0, progress=lambda *s: calls.append(s))) == 20
    filter_bank(clean, net=NET, drop=0.5, progress=lambda *step: calls.append(step))
    assert calls == []
    assert (clean / "samples.jsonl").read_text() == first
    other = Lite0Features(pretrained=False)
    filter_bank(clean, net=other, progress=lambda *step: calls.append(step))
    assert calls
    assert Bank(clean).manifest["filter"]["network"] == other.name


def test_manifest_tells_settings_and_network(clean: Path) -> None:
    filter_bank(clean, network="efficientnet_lite0", rule="sifid-2", drop=0.25, max_stray=0.2)
    summary = json.loads((clean / "manifest.json").read_text())["filter"]
    assert summary["network"] == "efficientnet_lite0"
    assert (summary["rule"], summary["drop"], summary["max_stray"]) == ("sifid-2", 0.25, 0.2)
    assert (summary["samples"], summary["kept"]) == (20, 15)


@pytest.mark.parametrize("filtered", [False, True])
def test_damaged_sample_is_named(clean: Path, filtered: bool) -> None:
    if filtered:
        filter_bank(clean, net=NET)
    (clean / "images" / "00004.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="00004"):
        filter_bank(clean, net=NET)


@pytest.mark.parametrize(
    "settings",
    [{"rule": "fid"}, {"drop": 1.0}, {"min_area_ratio": 2.0}, {"max_stray": -0.1}],
)
def test_wrong_settings_are_refused(clean: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        filter_bank(clean, net=NET, **settings)
    assert "filter" not in Bank(clean).manifest


def test_ties_are_broken_by_order_and_the_share_is_exact() -> None:
    score = {
        **dict.fromkeys(("sifid-1", "sifid-2", "sifid-3", "sifid-4"), 1.0),
        "nearest_training_distance": 1.0,
        "object_share": 0.3,
        "stray": 0.0,
        "missing_classes": [],
        "full": False,
    }
    scores = [dict(score) for _ in range(10)]
    scores[6]["sifid-3"] = 2.0
    reasons = judge(scores, FilterConfig(drop=0.2), (0.1, 0.5), 0.1)
    assert [i for i, why in enumerate(reasons) if why] == [0, 6]
