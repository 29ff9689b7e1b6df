import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from synthaug import files
from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.report.comparison import write_comparison_page
from synthaug.report.verdict import (
    contrast_lines,
    read_comparison,
    single_note,
    unlearned_line,
    verdict_line,
)
from synthaug.seeding import numpy_stream

ARMS = ("standard", "synthetic", "standard+copy-paste", "standard+copy-paste+synthetic")
GAINS = (None, (-0.021, -0.03, -0.012), (0.02, -0.004, 0.044), (0.031, 0.011, 0.052))
CLASS_GAINS = {
    "standard": {"mean": 0.0, "low": 0.0, "high": 0.0},
    "synthetic": {"mean": 0.04, "low": 0.01, "high": 0.07},
    "standard+copy-paste": {"mean": 0.02, "low": None, "high": None},
}
VERDICTS = ("no difference shown", "hurts", "no difference shown", "helps")


def gain(value, shift=0.0):
    mean, low, high = value or (0.0, 0.0, 0.0)
    return {"J&F": {"mean": mean + shift, "low": low + shift, "high": high + shift}}


def write_run(path, unit, arm, seed, score):
    images = [
        {"id": f"{i:05d}", "J&F": score - (0.01 * i if arm == "standard" else 0)} for i in range(4)
    ]
    run = {"unit": unit, "arm": arm, "seed": seed, "per_image": images}
    files.write_json(path / "runs" / unit / arm / f"{seed}.json", run)


def write_pictures(path, unit, arms, ids):
    for i in range(4):
        stream = numpy_stream(i, "frames", unit)
        image = stream.integers(0, 256, (40, 60, 3)).astype(np.uint8)
        mask = np.full(image.shape[:2], ids[0], np.uint8)
        mask[8:30, 10 + i : 35] = ids[-1]
        where = path / "predictions" / unit
        (where / "_test").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(where / "_test" / f"{i:05d}.jpg")
        files.write_bytes(where / "_test" / f"{i:05d}.png", folder.mask_png(mask))
        for arm in arms:
            files.write_bytes(where / arm / "0" / f"{i:05d}.png", folder.mask_png(mask[:, ::-1]))
        sample = path / "samples" / unit / "synthetic"
        sample.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(sample / f"{i:05d}.jpg")
        files.write_bytes(sample / f"{i:05d}.png", folder.mask_png(mask))


@pytest.fixture
def make_comparison(tmp_path):
    """Write a comparison's folder as `synthaug compare` does."""

    def make(units=("dog", "cows <brown>"), ids=(0, 1), pictures=True, complete=True, **changes):
        path = tmp_path / "comparison"
        names = ["background", *(f"class_{i}" for i in ids[1:])]
        shares = {"real": 0.5, "synthetic": 0.5}
        manifest = {
            "format": "synthaug-comparison-1",
            "measure": "J&F",
            "measures": ["J&F", "mIoU"],
            "baseline": "standard",
            "arms": [
                {"name": a, "shares": shares, "augment": True, "weight": 0.3, "schedule": "warm-up"}
                for a in ARMS
            ],
            "units": [
                {
                    "name": u,
                    "training": ["00000"],
                    "test": [f"{i:05d}" for i in range(4)],
                    "classes": {"ids": list(ids), "names": names},
                    "kind": "video",
                    "hash": "ab",
                }
                for u in units
            ],
            "seeds": [0, 1],
            "settings": {"segmenter": "osvos", "steps": 150, "lr": 0.001, "parent": None},
            "versions": {"synthaug": "0.1.0"},
            "hardware": {"cpu": "two cores"},
            "reproduce": "synthaug compare --davis DATA --video dog",
        }
        means = {
            a: {"J&F": 0.8 + (g or (0,))[0], "mIoU": 0.7} for a, g in zip(ARMS, GAINS, strict=True)
        }
        result = {
            "measure": "J&F",
            "baseline": "standard",
            "complete": complete,
            "arms": {
                a: {
                    "mean": means[a],
                    "gain": gain(g),
                    "verdict": v,
                    "per_class": {str(i): 0.5 + 0.1 * i for i in ids},
                    "per_class_gain": {"4": CLASS_GAINS[a]} if a in CLASS_GAINS else {},
                    "seconds": 12.34,
                    "peak_memory_gb": 0.756,
                }
                for a, g, v in zip(ARMS, GAINS, VERDICTS, strict=True)
            },
            "units": {
                u: {
                    a: {"mean": means[a], "gain": gain(g, 0.01 * k)}
                    for a, g in zip(ARMS, GAINS, strict=True)
                }
                for k, u in enumerate(units)
            },
            "contrasts": [
                {
                    "arm": ARMS[3],
                    "against": ARMS[2],
                    "gain": {"mean": 0.012, "low": -0.001, "high": 0.025},
                    "verdict": "no difference shown",
                }
            ],
        }
        files.write_json(path / "manifest.json", manifest)
        files.write_json(path / "comparison.json", {**result, **changes})
        for unit in units:
            for number, arm in enumerate(ARMS):
                for seed in (0, 1) if complete else (0,):
                    write_run(path, unit, arm, seed, 0.7 + 0.02 * number)
            if pictures:
                write_pictures(path, unit, ARMS, ids)
        return path

    return make


def page(path, **options):
    return write_comparison_page(path, **options).read_text("utf-8")


def verdict_of(path):
    return verdict_line(read_comparison(path))


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [v for k, v in attrs if k in ("src", "href", "srcset")]


def test_page_needs_no_network_and_no_other_file(make_comparison):
    html = page(make_comparison())
    links = Links()
    links.feed(html)
    assert links.targets
    assert all(target.startswith("data:image/") for target in links.targets)
    assert not {"script", "link", "iframe"} & set(links.tags)
    assert not re.search(r"url\(|@import", html)


def test_verdict_names_the_best_arm_its_gain_and_what_hurts(make_comparison):
    assert verdict_of(make_comparison()) == (
        "Helps: the best arm, standard+copy-paste+synthetic, reaches J&F 83.1 against 80.0 with "
        "standard, +3.1 points (95 % interval +1.1 to +5.2); "
        "hurts: synthetic (-2.1). 2 videos, 2 seeds."
    )


def change_arms(path, change):
    result = json.loads((path / "comparison.json").read_text())
    for arm in ARMS[1:]:
        change(result["arms"][arm])
    (path / "comparison.json").write_text(json.dumps(result))


def test_verdict_says_no_difference_when_the_best_arm_shows_none(make_comparison):
    path = make_comparison()
    change_arms(path, lambda arm: arm.update(verdict="no difference shown"))
    assert verdict_of(path).startswith("No difference shown: the best arm, standard+copy-paste+")


def test_the_best_of_several_arms_helps_only_if_that_is_shown_among_all(make_comparison):
    path = make_comparison()
    change_arms(path, lambda arm: arm.update(among_all=arm["verdict"]))
    assert verdict_of(path).startswith("Helps: the best arm")
    change_arms(path, lambda arm: arm.update(among_all="no difference shown"))
    begin = "No difference shown (one of 3 arms; its own interval lies above zero): the best arm, "
    assert verdict_of(path).startswith(begin)


def test_an_arm_that_helps_among_all_goes_before_one_that_only_scores_higher(make_comparison):
    path = make_comparison()
    words = iter(("no difference shown", "helps", "no difference shown"))
    change_arms(path, lambda arm: arm.update(verdict=(word := next(words)), among_all=word))
    line = verdict_of(path)
    assert line.startswith("Helps: standard+copy-paste reaches J&F 82.0 against 80.0 with standard")
    assert "; no difference shown: standard+copy-paste+synthetic (+3.1). 2 videos" in line
    assert "synthetic (-2.1)" not in line


def test_verdict_says_which_of_the_others_help_or_hurt_only_when_taken_alone(make_comparison):
    path = make_comparison()
    change_arms(path, lambda arm: arm.update(verdict="helps", among_all="helps"))
    assert "; also helps: synthetic (-2.1), standard+copy-paste (+2.0). 2" in verdict_of(path)
    change_arms(path, lambda arm: arm.update(among_all="no difference shown"))
    line = verdict_of(path)
    assert line.startswith("No difference shown (one of 3 arms; ")
    assert "; helps, taken alone: synthetic (-2.1), standard+copy-paste (+2.0). 2" in line
    assert "also helps" not in line
    change_arms(path, lambda arm: arm.update(verdict="hurts", mean={"J&F": 0.5}))
    assert "80.0; hurts, taken alone: synthetic (-2.1), " in verdict_of(path)


def test_verdict_says_when_nothing_beats_the_baseline(make_comparison):
    path = make_comparison()
    change_arms(path, lambda arm: arm.update(mean={"J&F": 0.5}, verdict="hurts"))
    line = verdict_of(path)
    begin = "No arm scores higher than standard, J&F 80.0; hurts: synthetic"
    assert line.startswith(f"{begin} (-2.1), ")
    change_arms(path, lambda arm: arm.update(verdict="no difference shown"))
    assert "; no difference shown: synthetic (-2.1), " in verdict_of(path)


def test_verdict_waits_for_the_baseline(make_comparison):
    path = make_comparison(arms={}, complete=False)
    assert verdict_of(path) == (
        "Nothing to say yet: J&F is not measured for standard and another arm."
    )
    assert "not measured" in page(path)


def test_contrasts_are_said_in_words(make_comparison):
    assert contrast_lines(read_comparison(make_comparison())) == [
        (
            "unclear",
            "Adding synthetic to standard+copy-paste shows no difference: "
            "+1.2 points (95 % interval -0.1 to +2.5).",
        )
    ]


def lengthen(path, verdict, baseline=ARMS[0], high=0.052):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arms"][-1]["length"] = 2.0
    (path / "manifest.json").write_text(json.dumps(manifest))
    result = json.loads((path / "comparison.json").read_text())
    result["arms"][ARMS[-1]]["verdict"] = verdict
    result["arms"][ARMS[-1]]["gain"]["J&F"]["high"] = high
    result["baseline"] = baseline
    (path / "comparison.json").write_text(json.dumps(result))


def test_an_arm_trained_longer_is_no_rival_but_tells_whether_trainings_end_too_early(
    make_comparison,
):
    path = make_comparison()
    lengthen(path, "helps")
    assert verdict_of(path).startswith(
        "No difference shown: the best arm, standard+copy-paste, reaches J&F 82.0"
    )
    assert ARMS[-1] not in verdict_of(path)
    said = (
        "standard+copy-paste+synthetic, 2 times as many steps, against standard: +3.1 points (95 % "
        "interval +1.1 to +5.2). Trainings end too early, so that the other gains are of starts, "
        "which may not last: raise the steps."
    )
    assert contrast_lines(read_comparison(path))[-1] == ("unclear", said)
    html = page(path)
    assert "Trainings end too early" in html
    assert "2 times as many steps<" in html
    assert f"Every arm but {ARMS[-1]} took the same number of steps" in html
    lengthen(path, "no difference shown")
    line = contrast_lines(read_comparison(path))[-1][1]
    assert line.endswith(", which leaves open whether trainings end too early.")
    lengthen(path, "no difference shown", high=0.009)
    line = contrast_lines(read_comparison(path))[-1][1]
    assert line.endswith("so no sign that trainings end too early.")
    assert single_note(read_comparison(path)).endswith("not corrected for the 2 arms.")
    lengthen(path, "helps", baseline=ARMS[-1])
    assert single_note(read_comparison(path)).endswith("not corrected for the 3 arms.")
    assert len(contrast_lines(read_comparison(path))) == 1


def test_a_longer_arm_of_another_mix_says_nothing_of_the_others_length(make_comparison):
    path = make_comparison()
    lengthen(path, "helps")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arms"][0]["shares"] = {"real": 1.0}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert contrast_lines(read_comparison(path))[-1][1].endswith("(95 % interval +1.1 to +5.2).")


def test_bullets_and_tables_say_which_verdicts_hold_only_when_taken_alone(make_comparison):
    contrast = {"arm": ARMS[2], "against": ARMS[0], "gain": gain(GAINS[3])["J&F"]}
    contrast |= {"verdict": "helps", "among_all": "no difference shown"}
    path = make_comparison(ids=(0, 3, 4), contrasts=[contrast])
    change_arms(path, lambda arm: arm.update(among_all="no difference shown"))
    html = page(path)
    said = "Adding copy-paste to standard helps, taken alone: +3.1 points"
    assert contrast_lines(read_comparison(path))[0][1].startswith(said)
    assert '<td class="helps">helps, taken alone</td>' in html
    assert '<td class="hurts">hurts, taken alone</td>' in html
    assert html.count("Intervals are single 95 % ones, not corrected for the 3 arms.") == 3


def test_an_arm_that_is_alone_needs_no_correction(make_comparison):
    path = make_comparison()
    manifest = json.loads((path / "manifest.json").read_text())
    files.write_json(path / "manifest.json", {**manifest, "arms": manifest["arms"][:2]})
    assert "Intervals are single" not in page(path)


def test_small_gains_are_not_rounded_to_a_signed_zero(make_comparison):
    path = make_comparison()
    small = {"J&F": {"mean": -0.0002, "low": -0.0004, "high": -0.0001}}
    change_arms(path, lambda arm: arm.update(gain=small, verdict="hurts"))
    html = page(path)
    assert "-0.020 points (95 % interval -0.040 to -0.010)" in html
    assert '<b>-0.020</b></td><td class="n">-0.040 to -0.010</td>' in html
    assert 'class="figure">-0.020  (-0.040 to -0.010)<' in html
    assert "hurts: synthetic (-0.020), " in verdict_of(path)
    assert "-0.0 " not in html


def test_tables_show_arms_and_units(make_comparison):
    html = page(make_comparison())
    for text in (
        "cows &lt;brown&gt;",
        "+1.1 to +5.2",
        '<td class="n">83.1</td><td class="n">70.0</td>',
        '<td class="hurts">hurts</td><td class="n">12.3</td><td class="n">0.76</td>',
        '<td class="cell hurts">-2.1<small>-3.0 to -1.2</small></td>',
        '<td class="cell helps">+4.1<small>+2.1 to +6.2</small></td>',
        "50 % real, 50 % synthetic, standard augmentation, loss weight 0.3 off the real items",
        "<dt>steps</dt><dd>150</dd>",
        "synthaug compare --davis DATA --video dog",
    ):
        assert text in html, text
    assert "mean time of a training, and" in html
    assert 'id="classes"' not in html
    assert 'id="incomplete"' not in html


def change_manifest(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arms"][1].update(name="auto", schedule="auto")
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def choice(why, weight=1.0, **shares):
    arm = {"name": "x", "shares": shares, "augment": True, "weight": weight, "schedule": "constant"}
    return {"arm": arm, "scores": {"x": [0.5]}, "why": why}


def test_auto_says_what_it_chose_and_why(make_comparison):
    path = make_comparison()
    why = "standard+synthetic 0.25: +1.2 points (standard error 0.4) <24 views>"
    made = {
        "cows <brown>": choice("no clear gain", real=1.0),
        "dog": choice(why, weight=0.3, real=0.75, synthetic=0.25),
    }
    change_manifest(path, choices={"auto": made})
    html = page(path)
    mixed = "75 % real, 25 % synthetic, standard augmentation, loss weight 0.3 off the real items"
    alone = "100 % real, standard augmentation"
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td class=\"soft\">(.*?)</td></tr>", html)
    assert rows == [
        ("dog", mixed, why.replace("<", "&lt;").replace(">", "&gt;")),
        ("cows &lt;brown&gt;", alone, "no clear gain"),
    ]
    diet = re.search(r"<dt>auto</dt><dd>(.*?)</dd>", html)[1]
    assert diet == (
        "chosen for each unit from its labelled images alone: "
        f"{alone} (1 of 2 units); {mixed} (1 of 2 units)"
    )
    assert "What auto chose" in html
    assert "mean time of a training, without the time in which auto chooses, and" in html


def test_auto_before_it_chose_shows_no_shares(make_comparison):
    path = make_comparison()
    change_manifest(path)
    html = page(path)
    assert "<dt>auto</dt><dd>chosen for each unit from its labelled images alone; not" in html
    assert "What auto chose" not in html


def test_chart_lists_the_arms_in_order_and_a_dot_per_unit(make_comparison):
    chart = re.search(r'<svg class="gains".*?</svg>', page(make_comparison()), re.S)[0]
    labels = re.findall(r'text-anchor="end">([^<]+)<', chart)
    assert labels == list(ARMS[1:])
    assert chart.count("<circle") == 2 * 3
    assert re.findall(r'<g class="(\w+)">', chart) == ["hurts", "unclear", "helps"]


def test_several_classes_get_a_table(make_comparison):
    html = page(make_comparison(ids=(0, 3, 4)))
    row = re.search(r"<tr><td>class_4</td>(.*?)</tr>", html)[1]
    plain = '<td class="cell ">90.0<small></small></td>'
    helped = '<td class="cell helps">90.0<small>+4.0 (+1.0 to +7.0)</small></td>'
    once = '<td class="cell ">90.0<small>+2.0</small></td>'
    assert row == plain + helped + once + plain  # the last was not tested together with standard


@pytest.mark.parametrize("ids", [(0, 3, 4), (0, 3)])
def test_classes_that_no_arm_has_learned_are_named(make_comparison, ids):
    def line(first, other):
        path = make_comparison(ids=ids, pictures=False)
        result = json.loads((path / "comparison.json").read_text())
        for arm, value in zip(ARMS, (first, other, None, 0.0), strict=True):
            result["arms"][arm]["per_class"]["3"] = value
        files.write_json(path / "comparison.json", result)
        return unlearned_line(read_comparison(path)), page(path)

    said, html = line(0.01, 0.04)
    assert said.startswith("Hardly learned by any arm (IoU under 5 %): class_3.")
    assert said in html
    assert line(0.01, 0.06)[0] == ""
    assert not unlearned_line(read_comparison(make_comparison(ids=(0, 1), pictures=False)))


def test_images_of_a_single_unit_get_a_table(make_comparison):
    def line(name, mean, low, high):
        return {"id": name, "gain": {"mean": mean, "low": low, "high": high}}

    ranked = {"tested": 31, "better": 20, "worse": 10}
    ranked |= {"worst": [line("<7>", -0.1, -0.2, -0.05)], "best": [line("9", 0.1, None, None)]}
    html = page(make_comparison(("own",), images={"synthetic": ranked}))
    row = re.search(r'id="images">.*<tr><td>synthetic</td>(.*?)</tr>', html, re.S)[1]
    assert row == (
        '<td class="n">20 of 31</td><td class="n">10</td>'
        '<td><div>&lt;7&gt; <b class="hurts">-10.0</b> <small class="soft">-20.0 to -5.0</small>'
        '</div></td><td><div>9 <b class="">+10.0</b></div></td>'
    )
    assert 'id="images"' not in page(make_comparison(("own",)))


def test_groups_of_classes_get_a_table_with_their_gains(make_comparison):
    def entry(mean, low):
        gain = {"mean": mean, "low": low, "high": 0.09}
        return {"mean": 0.4 + mean, "gain": gain, "verdict": ""}

    arms = {"standard": entry(0.0, 0.0), "synthetic": entry(0.052, 0.011)}
    groups = [
        {"ids": [0], "share": 0.93, "arms": arms},
        {"ids": [*range(1, 12)], "share": 0.07, "arms": {}},
    ]
    made = make_comparison(("own",), ids=range(12), pictures=False, groups={"own": groups})
    html = page(made)
    assert "Frequent and rare classes" in html
    assert "share of the labelled pixels of the training masks" in html
    assert '<td class="names">background</td><td class="n">93.0</td><td class="n">40.0</td>' in html
    assert '<td class="cell helps">+5.2<small>+1.1 to +9.0</small></td>' in html
    assert "class_1, class_2, class_3" in html
    assert "class_8 and 3 more" in html


def test_folders_of_before_there_were_groups_open(make_comparison):
    made = make_comparison(("own",), ids=(0, 3, 7), pictures=False)
    assert "Frequent and rare" not in page(made)


def test_frames_are_those_where_the_scores_differ_most(make_comparison):
    html = page(make_comparison(units=("dog",)))
    rows = re.findall(r"<h3>dog, (\d+)</h3>", html)
    assert rows == ["00003", "00002"]
    assert "among the test images whose predictions are kept, a few of each unit" in html
    assert html.count("<figcaption>truth</figcaption>") == 2
    assert "<figcaption>standard+copy-paste+synthetic <b>76.0</b></figcaption>" in html
    assert html.count('alt="sample of dog"') == 4


def test_page_says_what_its_intervals_are_over(make_comparison):
    html = page(make_comparison(pictures=False))
    assert "Bar: 95 % interval over 2 videos." in html
    assert "The intervals are over the 2 videos, each the mean of its seeds:" in html
    html = page(make_comparison(("own",), pictures=False))
    assert "Bar: 95 % interval over 2 seeds." in html
    assert "The intervals are over the seeds of the training alone:" in html
    runs = {arm: [["dog", 0], ["dog", 1]] for arm in ARMS}  # the second video has not begun
    html = page(make_comparison(pictures=False, complete=False, runs=runs))
    assert "Bar: 95 % interval over 2 seeds." in html


def test_page_without_pictures_leaves_their_sections_out(make_comparison):
    html = page(make_comparison(pictures=False))
    assert 'id="frames"' not in html
    assert 'id="samples"' not in html


def test_unfinished_comparison_says_so(make_comparison):
    path = make_comparison(complete=False)
    html = page(path)
    assert "8 of 16 runs are done" in html
    assert "<b>2</b><span>videos</span>" in html
    assert "<b>1 of 2</b><span>seeds</span>" in html
    line = verdict_of(path)
    assert line.startswith("So far: Helps: the best arm")
    assert line.endswith("2 of 2 videos, 1 of 2 seeds counted so far. Not all runs are done.")


def test_unfinished_comparison_counts_what_all_arms_share(make_comparison):
    runs = {arm: [["dog", 0], ["dog", 1]] for arm in ARMS[:2]}
    runs |= {ARMS[2]: [["dog", 0], ["cows <brown>", 1]], ARMS[3]: []}  # the last has not begun
    path = make_comparison(complete=False, runs=runs, missing={ARMS[2]: 2})
    assert verdict_of(path).endswith(
        ". 1 of 2 videos, 1 of 2 seeds counted so far. Not all runs are done: counted are those "
        "that all arms share, missing standard+copy-paste 2."
    )
    assert "<b>1 of 2</b><span>videos</span>" in page(path)


def test_single_run_has_no_interval(make_comparison):
    path = make_comparison(units=("dog",))
    none = {"J&F": {"mean": 0.01, "low": None, "high": None}}
    change_arms(path, lambda arm: arm.update(gain=none, verdict="no difference shown"))
    assert "too few runs for an interval" in verdict_of(path)
    assert "<svg" in page(path)


def test_other_folders_are_refused(tmp_path, make_comparison):
    with pytest.raises(InputError, match="no comparison manifest"):
        write_comparison_page(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "synthaug-bank-1"}')
    with pytest.raises(InputError, match="is not a comparison"):
        write_comparison_page(tmp_path)
    path = make_comparison()
    (path / "comparison.json").write_text("{")
    with pytest.raises(InputError, match="damaged comparison result"):
        write_comparison_page(path)
