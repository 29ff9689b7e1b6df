"""Trainings side by side, in processes of one thread each where there are as many as cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import count
from types import FrameType
from typing import Any, TypeVar

import torch

from synthaug import devices
from synthaug.errors import InputError

Item = TypeVar("Item")
T = TypeVar("T")
MOST_JOBS = 8
_GLANCE_S = 0.5
_GRACE_S = 10.0
"""How long a process that is told to end may tidy up, or save a checkpoint."""
_counter: Any = None
"""In a worker: the count of training steps that it shares with its parent."""
_lines: Any = None
"""In a worker: the queue by which it tells its parent lines, each with the number of its task."""


def default_jobs() -> int:
    """One job per core that this process may use, at most `MOST_JOBS`; one where a GPU is."""
    if devices.cuda_works():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_JOBS, cores or 1))


class Jobs:
    """Does tasks in order, several at a time; a context manager.

    A task prepares something here, in a thread of its own, and hands the heavy part to `call`,
    which runs it in a process of one torch thread, or of an equal share of this process' threads.
    With one job everything happens in this thread and process, with as many torch threads as there
    are. A training's last bits depend on its number of threads: with one for each they are equal
    for any number of jobs from two on, not for one and two.

    Args:
        number: tasks at a time.
        glance: called now and then with the number of training steps done so far.
        share: let processes share out this process' threads where there are more than jobs.

    Raises:
        InputError: the number is not positive.
    """

    def __init__(
        self,
        number: int,
        glance: Callable[[int], None] = lambda steps: None,
        *,
        share: bool = False,
    ) -> None:
        if number < 1:
            raise InputError(f"jobs is {number}: give at least 1")
        self.number = number
        self._glance = glance
        self._done = 0
        self._processes: ProcessPoolExecutor | None = None
        if number > 1:
            context = multiprocessing.get_context("spawn")
            self._shared = context.Value("q", 0)
            self._lines = context.SimpleQueue()
            self._listeners: dict[int, Callable[[str], object]] = {}
            self._numbers = count()
            threads = max(1, torch.get_num_threads() // number) if share else 1
            self._processes = ProcessPoolExecutor(
                number,
                context,
                initializer=_start_worker,
                initargs=(self._shared, self._lines, threads),
            )

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._processes is None:
            return
        processes = list((self._processes._processes or {}).values())
        for process in processes:
            process.terminate()
        limit = time.monotonic() + _GRACE_S
        for process in processes:
            process.join(max(0.0, limit - time.monotonic()))
            process.kill()
        self._processes.shutdown(cancel_futures=True)

    def call(
        self,
        function: Callable[..., T],
        *arguments: Any,
        worth: int = 0,
        echo: Callable[[str], object] | None = None,
        **named: Any,
    ) -> T:
        """Call a function, in another process if there are several jobs.

        Args:
            function: of a module, so that another process finds it.
            *arguments: passed on.
            worth: training steps that it counts; if any, it is also given ``progress``, to be
                called with (steps done, steps).
            echo: called, in the thread of `run`, with the lines that the function tells; if any,
                it is also given ``echo``, to tell them.
            **named: passed on.

        Raises:
            InputError: the process died, as it does for lack of memory.
        """
        if self._processes is None:
            if echo is not None:
                named["echo"] = echo
            return _counted(function, arguments, named, worth, self.count)
        listener = None
        if echo is not None:
            listener = next(self._numbers)
            self._listeners[listener] = echo
        try:
            return self._processes.submit(
                _in_worker, function, arguments, named, worth, listener
            ).result()
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {self.number} trainings side by side died, perhaps for lack of memory: "
                "run fewer with --jobs (in a recipe --set compare.jobs=1), what is done is kept; a "
                "script that starts them needs if __name__ == '__main__'"
            ) from error

    def run(self, task: Callable[[Item], T], items: Sequence[Item]) -> Iterator[tuple[Item, T]]:
        """Do a task on every item; yield (item, result) as they end.

        Args:
            task: called with an item.
            items: in the order in which they are begun.

        Raises:
            Exception: the first that a task raised; the tasks under way are broken off.
        """
        if self._processes is None:
            for item in items:
                yield item, task(item)
            return
        with ThreadPoolExecutor(self.number) as threads:
            try:
                yield from self._side_by_side(threads, task, items)
            finally:
                self.__exit__()  # else the threads would wait for their processes

    def _side_by_side(
        self, threads: ThreadPoolExecutor, task: Callable[[Item], T], items: Sequence[Item]
    ) -> Iterator[tuple[Item, T]]:
        running: dict[Future[T], Item] = {}
        left = iter(items)
        while True:
            while len(running) < self.number and (item := next(left, None)) is not None:
                running[threads.submit(task, item)] = item
            if not running:
                return
            ended, _ = wait(running, _GLANCE_S, FIRST_COMPLETED)
            self._listen()
            self._glance(self._shared.value)
            for future in sorted(ended, key=lambda f: f.exception() is not None):
                yield running.pop(future), future.result()  # what was done before what failed

    def _listen(self) -> None:
        while not self._lines.empty():
            listener, line = self._lines.get()
            self._listeners[listener](line)

    def count(self, steps: int) -> None:
        """Count training steps as done."""
        if self._processes is None:
            self._done += steps
            self._glance(self._done)
        else:
            _add(self._shared, steps)


def _start_worker(counter: Any, lines: Any, threads: int) -> None:
    global _counter, _lines
    _counter, _lines = counter, lines
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # a fit listens to it, but it is the parent's business
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has gone: one that is killed cannot tell it to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_S)
        os._exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """End this process: a fit after its checkpoint is saved, all else after tidying up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interrupt = signal.getsignal(signal.SIGINT)
    if callable(interrupt):
        interrupt(number, frame)
    else:
        raise SystemExit(1)


def _in_worker(
    function: Callable[..., T],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    worth: int,
    listener: int | None,
) -> T:
    if listener is not None:
        named["echo"] = lambda line: _lines.put((listener, line))
    try:
        return _counted(function, arguments, named, worth, partial(_add, _counter))
    except (SystemExit, KeyboardInterrupt):
        os._exit(1)  # told to stop, and all is tidied up


def _add(counter: Any, steps: int) -> None:
    with counter.get_lock():
        counter.value += steps


def _counted(
    function: Callable[..., T],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    worth: int,
    add: Callable[[int], None],
) -> T:
    """Call a function; ``add`` what it reports, in the end ``worth`` in all."""
    if not worth:
        return function(*arguments, **named)
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        share = done * worth // total  # a learner may have steps of its own
        add(share - told)
        told = share

    result = function(*arguments, **named, progress=progress)
    add(worth - told)
    return result
