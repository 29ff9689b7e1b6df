from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synthaug.errors import InputError
from synthaug.formats.splits import Unit
from synthaug.gain import compare
from synthaug.gain.jobs import Jobs, default_jobs

MakeUnit = Callable[..., Unit]
MakeBank = Callable[..., Path]


def tiny_network(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 5, padding=2)


def double(value: int, *, progress: Callable[[int, int], None] | None = None) -> int:
    if progress is not None:
        progress(1, 3)
    if value < 0:
        raise InputError(f"{value} is negative: give 0 or more")
    return 2 * value


def threads() -> int:
    return torch.get_num_threads()


def say(*words: str, echo: Callable[[str], object]) -> None:
    for word in words:
        echo(word)


def die() -> None:
    os._exit(9)


def work(path: Path, *, saves: bool, echo: Callable[[str], object]) -> None:
    """Leave a file while at work, and as a fit does a checkpoint when told to stop."""
    pressed: list[int] = []
    if saves:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    path.touch()
    echo("at work")
    try:
        while not pressed:
            time.sleep(0.05)
        path.with_suffix(".saved").touch()
    finally:
        path.unlink()


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    """A comparison without its timings and memory."""
    for arm in result["arms"].values():
        del arm["seconds"], arm["peak_memory_gb"]
    return result


def test_jobs_side_by_side_give_the_same_bits(
    tmp_path: Path, make_unit: MakeUnit, make_bank: MakeBank
) -> None:
    units = [make_unit("one"), make_unit("two", start=50)]
    bank = make_bank()
    options: dict[str, Any] = {
        "arms": ["standard+synthetic", "auto"],
        "seeds": 2,
        "segmenter": f"{__name__}:tiny_network",
        "steps": 2,
        "batch_size": 2,
        "sources": {unit.name: {"synthetic": bank} for unit in units},
    }
    counted: list[tuple[int, int]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = compare(units, tmp_path / "alone", **options)
    finally:
        torch.set_num_threads(before)
    both = compare(
        units,
        tmp_path / "both",
        **options,
        jobs=2,
        progress=lambda done, total: counted.append((done, total)),
    )
    assert outcome(both) == outcome(alone)
    assert both["complete"]
    assert [done for done, _ in counted] == sorted(done for done, _ in counted)
    assert counted[-1] == (24, 24)
    for kind in ("json", "png"):
        written = [sorted((tmp_path / o).rglob(f"*.{kind}")) for o in ("alone", "both")]
        assert len(written[0]) == len(written[1]) > 0


def test_ctrl_c_breaks_off_and_the_same_call_goes_on(tmp_path: Path, make_unit: MakeUnit) -> None:
    units, lines = [make_unit()], list[str]()
    options: dict[str, Any] = {
        "arms": ["standard", "none"],
        "seeds": 2,
        "segmenter": f"{__name__}:tiny_network",
        "steps": 2,
        "batch_size": 2,
        "jobs": 2,
    }

    def interrupt(line: str) -> None:
        if line.startswith("[1/4]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(units, tmp_path / "out", echo=interrupt, **options)
    assert not multiprocessing.active_children()
    assert len(list((tmp_path / "out").glob("runs/*/*/*.json"))) == 1
    assert compare(units, tmp_path / "out", echo=lines.append, **options)["complete"]
    assert lines[0] == "1 of 4 runs are there already"


def stopped(line: str) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("saves", [False, True])
def test_what_is_broken_off_tidies_up(tmp_path: Path, saves: bool) -> None:
    path = tmp_path / "partial"
    with Jobs(2) as jobs, pytest.raises(KeyboardInterrupt):
        list(jobs.run(lambda _: jobs.call(work, path, saves=saves, echo=stopped), [0]))
    assert not multiprocessing.active_children()
    assert [found.name for found in tmp_path.iterdir()] == ["partial.saved"] * saves


def test_workers_do_not_hear_ctrl_c() -> None:
    with Jobs(2) as jobs:
        os.kill(jobs.call(os.getpid), signal.SIGINT)
        assert [jobs.call(double, value) for value in (1, 2, 3)] == [2, 4, 6]


def test_workers_end_with_a_parent_that_is_killed() -> None:
    script = (
        "import os, time\n"
        "from synthaug.gain.jobs import Jobs\n"
        "if __name__ == '__main__':\n"
        "    jobs = Jobs(2)\n"
        "    print(jobs.call(os.getpid), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "study.py").write_text(script)
        words = [sys.executable, str(Path(folder) / "study.py")]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as study:
            assert study.stdout is not None
            worker = int(study.stdout.readline())
            study.kill()
    limit = time.monotonic() + 20
    while (gone := not _runs(worker)) is False and time.monotonic() < limit:
        time.sleep(0.1)
    assert gone


def _runs(process: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:  # it may end while it is read
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_tasks_begin_in_order_and_count_their_steps() -> None:
    shown: list[int] = []
    with Jobs(2, shown.append) as jobs:
        found = dict(jobs.run(lambda value: jobs.call(double, value, worth=3), [1, 2, 3]))
        assert found == {1: 2, 2: 4, 3: 6}
    assert shown[-1] == 9
    with Jobs(1, shown.append) as jobs:
        assert list(jobs.run(lambda v: jobs.call(double, v, worth=3), [4, 5])) == [(4, 8), (5, 10)]
    assert shown[-4:] == [1, 3, 4, 6]


def test_a_learner_with_steps_of_its_own_counts_as_many_as_planned() -> None:
    seen: list[int] = []

    def learn(*, progress: Callable[[int, int], None]) -> None:
        for step in range(100):
            progress(step + 1, 100)

    with Jobs(1, seen.append) as jobs:
        jobs.call(learn, worth=10)
    assert seen == sorted(seen)
    assert seen[-1] == 10


def test_a_job_has_one_thread_when_there_are_several() -> None:
    with Jobs(2) as jobs:
        assert [n for _, n in jobs.run(lambda _: jobs.call(threads), [0, 1])] == [1, 1]


def test_jobs_may_share_out_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with Jobs(2, share=True) as jobs:
        assert [n for _, n in jobs.run(lambda _: jobs.call(threads), [0, 1])] == [3, 3]


@pytest.mark.parametrize("number", [1, 2])
def test_lines_reach_the_task_that_they_belong_to(number: int) -> None:
    told: dict[str, list[str]] = {"a": [], "b": []}
    with Jobs(number) as jobs:
        list(jobs.run(lambda key: jobs.call(say, key, key * 2, echo=told[key].append), ["a", "b"]))
    assert told == {"a": ["a", "aa"], "b": ["b", "bb"]}


def test_errors_of_jobs_come_through() -> None:
    with Jobs(2) as jobs, pytest.raises(InputError, match="-1 is negative"):
        list(jobs.run(lambda value: jobs.call(double, value), [0, -1, 2]))
    with Jobs(2) as jobs, pytest.raises(InputError, match=r"died.*--jobs"):
        list(jobs.run(lambda _: jobs.call(die), [0, 1]))
    with pytest.raises(InputError, match="at least 1"):
        Jobs(0)


def test_what_ended_beside_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthaug.gain.jobs.wait", lambda running, *_: wait(running))
    kept: list[int] = []
    with Jobs(2) as jobs, pytest.raises(InputError, match="-1 is negative"):
        kept.extend(result for _, result in jobs.run(double, [-1, 1]))
    assert kept == [2]


def test_one_job_per_core_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthaug.devices.cuda_works", lambda: False)
    for cores, jobs in ((1, 1), (3, 3), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert default_jobs() == jobs
    monkeypatch.setattr("synthaug.devices.cuda_works", lambda: True)
    assert default_jobs() == 1
