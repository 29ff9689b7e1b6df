import re

import cv2
import numpy as np
import pytest

from synthaug import demo, files
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.report import Arm, HeldOut


def test_the_shipped_mask_outlines_every_coin():
    training, held_out = demo.coins()
    mask = np.hstack([held_out.mask, training.mask])
    image = np.hstack([held_out.image, training.image])
    assert mask.shape == image.shape[:2] == (303, 384)
    assert set(np.unique(mask)) == {0, 1}
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask)
    assert count - 1 == 24
    assert statistics[1:, cv2.CC_STAT_AREA].min() > 1000
    outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    assert len(outlines) == 24  # an outline more would be a hole
    assert (tree[0, :, 3] == -1).all()
    assert training.grey
    assert image[mask == 1].mean() > image[mask == 0].mean() + 60


def test_the_outlines_follow_the_edges_of_the_picture():
    whole = [np.hstack([getattr(s, k) for s in demo.coins()[::-1]]) for k in ("image", "mask")]
    blurred = cv2.GaussianBlur(whole[0][..., 0].astype(np.float32), (0, 0), 1.0)
    gradient = np.hypot(cv2.Sobel(blurred, -1, 1, 0), cv2.Sobel(blurred, -1, 0, 1))
    kernel = np.ones((3, 3), np.uint8)

    def edge(mask):
        return gradient[cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)].mean()

    assert edge(whole[1]) > 1.3 * edge(cv2.erode(whole[1], kernel, iterations=3))
    assert edge(whole[1]) > 1.3 * edge(cv2.dilate(whole[1], kernel, iterations=3))


def test_write_training_pair_writes_what_coins_returns(tmp_path):
    training, _ = demo.coins()
    pair = folder.read_pair(*demo.write_training_pair(tmp_path / "pair"))
    assert (pair.image == training.image).all()
    assert (pair.mask == training.mask).all()
    assert pair.grey


def test_a_demonstration_does_not_take_a_banks_place(tmp_path):
    files.write_json(tmp_path / "bank" / "manifest.json", {"format": "synthaug-bank-1"})
    with pytest.raises(InputError, match="and would become a demonstration"):
        demo.demo(tmp_path / "bank", overwrite=True)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.03, "helped"), (-0.01, 0.05, "No difference shown"), (-0.03, -0.01, "hurt")],
)
def test_the_closing_line_says_no_more_than_the_interval(low, high, words):
    truth = demo.coins()[1]
    arms = (Arm("a", (0.8, 0.8), 0.8, 0.8, 0.8), Arm("b", (0.82, 0.82), 0.82, 0.82, 0.82))
    mean = (low + high) / 2
    line = demo.describe_gain(HeldOut(truth, arms, Arm("gain", (low, high), mean, low, high)))
    assert words in line
    assert f"{mean:+.3f}" in line
    assert "2 seeds" in line
    assert "not proof" in line


def test_a_folder_in_use_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    lines = []
    with pytest.raises(InputError, match="--overwrite"):
        demo.demo(tmp_path, echo=lines.append)
    assert lines == []


def test_demo_runs_from_the_photograph_to_the_page(tmp_path):
    lines = []
    page = demo.demo(tmp_path / "demo", seed=1, iterations=2, echo=lines.append)
    html = page.read_text("utf-8")
    assert page == tmp_path / "demo" / "index.html"
    assert lines[-1] == f"page: {page}"
    assert re.match(r"(The synthetic pairs (helped|hurt) here|No difference shown): IoU", lines[-2])
    assert lines[-2] in html
    for stage in ("fit", "generate", "filter", "evaluate", "train and test"):
        assert any(f"] {stage}:" in line for line in lines), stage
        assert f">{stage}<" in html
    assert "12 samples drawn" in html
    assert "SIFID-4" in html
    assert "synthaug demo --seed 1" in html
    assert (tmp_path / "demo" / "samples.png").stat().st_size < 400_000
    files.check_output_folder(tmp_path / "demo", overwrite=True)  # its own may be replaced
