from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from synthaug.errors import InputError
from synthaug.mixing import standard_augmentation

H, W = 40, 56


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A smooth background with a bright square, and the square's mask."""
    y, x = np.mgrid[:H, :W]
    image = np.stack([40 + y, 40 + x, 40 + 0 * x], axis=2).astype(np.uint8)
    mask = np.zeros((H, W), np.uint8)
    mask[12:28, 20:40] = 3
    image[mask == 3] = (250, 250, 250)
    return image, mask


def run(seed: int, calls: int = 6, **options: Any) -> list[dict[str, np.ndarray]]:
    image, mask = picture()
    pipeline = standard_augmentation(H, W, seed, **options)
    return [pipeline(image=image, mask=mask) for _ in range(calls)]


def test_equal_seeds_give_equal_sequences_and_other_seeds_do_not() -> None:
    first, again, other = run(5), run(5), run(6)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a["image"], b["image"])
        assert np.array_equal(a["mask"], b["mask"])
    assert any(
        not np.array_equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True)
    )
    assert len({a["image"].tobytes() for a in first}) > 3


def test_transforms_fire_independently() -> None:
    pipeline = standard_augmentation(H, W, seed=0)
    image, mask = picture()
    fired = []
    for _ in range(150):
        pipeline(image=image, mask=mask)
        fired.append([bool(t.params) for t in pipeline.transforms[1:]])
    rates = np.mean(fired, axis=0)
    assert rates == pytest.approx([0.5, 0.8, 0.5], abs=0.12)
    assert len({tuple(row) for row in fired}) == 8  # every combination happens
    flips, colours = np.asarray(fired)[:, 0], np.asarray(fired)[:, 2]
    assert abs(np.corrcoef(flips, colours)[0, 1]) < 0.25


def test_objects_come_nearer_and_recede() -> None:
    def areas(**options: Any) -> Any:
        drawn = run(3, calls=60, **options)
        return np.array([(pair["mask"] == 3).sum() for pair in drawn]) / (16 * 20)

    wide, usual = areas(scales=(0.5, 2.0)), areas()
    assert wide.max() > 2.5
    assert wide.min() < 0.5
    assert 1.2 < usual.max() < 2
    assert usual.min() > 0.5


def test_image_and_mask_stay_aligned() -> None:
    overlaps = []
    for pair in run(1, calls=30):
        bright = pair["image"].min(axis=2) > 150
        object_ = pair["mask"] == 3
        overlaps.append((bright & object_).sum() / (bright | object_).sum())
    assert np.mean(overlaps) > 0.93
    assert min(overlaps) > 0.8


def test_no_new_ids_appear_and_the_input_is_untouched() -> None:
    image, mask = picture()
    pipeline = standard_augmentation(H, W, seed=2, strength="strong")
    for _ in range(20):
        result = pipeline(image=image, mask=mask)
        assert set(np.unique(result["mask"])) <= {0, 3}
        assert result["mask"].dtype == result["image"].dtype == np.uint8
    assert np.array_equal(image, picture()[0])
    assert np.array_equal(mask, picture()[1])


def test_an_input_of_another_size_comes_back_at_the_asked_size() -> None:
    image, mask = picture()
    result = standard_augmentation(32, 48, seed=0)(image=image, mask=mask)
    assert result["image"].shape == (32, 48, 3)
    assert result["mask"].shape == (32, 48)


def test_strength_scales_the_change() -> None:
    image, _ = picture()

    def change(strength: str) -> float:
        return float(
            np.mean([np.abs(r["image"].astype(int) - image) for r in run(0, 30, strength=strength)])
        )

    assert change("light") < change("standard") < change("strong")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((H, W, 0, "wild"), "unknown strength"), ((0, W, 0, "light"), "positive size")],
)
def test_bad_settings_get_one_clear_line(arguments: tuple, message: str) -> None:
    height, width, seed, strength = arguments
    with pytest.raises(InputError, match=message):
        standard_augmentation(height, width, seed, strength=strength)


def test_albumentationsx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution

    def fake(name: str) -> object:
        return object() if name == "albumentationsx" else real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", fake)
    with pytest.raises(InputError, match="pip uninstall albumentationsx") as caught:
        standard_augmentation(H, W)
    assert "\n" not in str(caught.value)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, synthaug.mixing as m; dir(m);"
        "print([n for n in ('torch', 'albumentations', 'numpy', 'cv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        __import__("synthaug.mixing").mixing.nothing  # noqa: B018


def test_the_ranges_are_those_that_are_told() -> None:
    """All gains are measured against it."""
    _, flip, affine, jitter = standard_augmentation(H, W).transforms
    assert (flip.p, affine.p, jitter.p) == (0.5, 0.8, 0.5)
    assert (affine.scale["x"], affine.rotate) == ((0.8, 1.25), (-15, 15))
    assert set(affine.translate_percent.values()) == {(-0.1, 0.1)}
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.8, 1.2)
    assert jitter.hue == (-0.05, 0.05)


def test_synthaugment_refuses_albumentationsx_too() -> None:
    code = (
        "import importlib.metadata as m\nreal = m.distribution\n"
        "m.distribution = lambda n: object() if n == 'albumentationsx' else real(n)\n"
        "from synthaug.mixing import SynthAugment"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError: AlbumentationsX is installed" in done.stderr
