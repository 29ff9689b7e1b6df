from __future__ import annotations

import io
import sys

import pytest

from synthaug.cli import progress
from synthaug.cli.progress import ProgressLine, tell


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_tenth_where_nobody_watches(clock, capsys):
    line = ProgressLine("step")
    for step in range(1, 201):
        clock[0] += 1
        line(step, 200)
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1] == "step 200/200"
    assert lines[5] == "step 100/200, 1 min 40 s left"
    assert not any("\x1b" in text or "\r" in text for text in lines)


def test_one_line_is_rewritten_on_a_terminal(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    line = ProgressLine("step")
    for step in range(1, 101):
        clock[0] += 0.05
        line(step, 100, note="loss 1")
    text = terminal.getvalue()
    assert text.count("\n") == 1
    assert 20 <= text.count("\r") <= 30
    assert text.endswith("step 100/100  loss 1\n")
    assert "\x1b[3" not in text  # no colour


def test_second_count_starts_anew(clock, capsys):
    line = ProgressLine("sample")
    line(1, 2)
    line(2, 2)
    clock[0] += 5
    line(1, 2)
    line(2, 2)
    assert capsys.readouterr().err.splitlines() == [
        "sample 1/2",
        "sample 2/2",
        "sample 1/2",
        "sample 2/2",
    ]


def test_a_longer_count_after_a_short_one_is_shown(clock, capsys):
    line = ProgressLine("step")
    line(1, 1)
    for step in range(1, 21):
        clock[0] += 1
        line(step, 20)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + 11
    assert lines[6] == "step 10/20, 10 s left"


@pytest.mark.parametrize(("left", "text"), [(3.4, "3 s"), (75, "1 min 15 s"), (3725, "1 h 02 min")])
def test_given_time_left_is_shown(clock, capsys, left, text):
    ProgressLine("step")(1, 1000, left_s=left)
    assert capsys.readouterr().err == f"step 1/1000, {text} left\n"


class Lost(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("lost", ["none", "closed", "full disk"])
def test_a_lost_stderr_loses_lines_alone(monkeypatch, capsys, lost):
    stream = {"none": None, "closed": io.StringIO(), "full disk": Lost()}[lost]
    if lost == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    line = ProgressLine("step")
    line(1, 2)
    line(2, 2)
    tell("done")
    assert capsys.readouterr().out == ""
