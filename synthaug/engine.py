"""Devices, precision and processes: the only importer of Lightning Fabric."""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import signal
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.utilities import distributed
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from synthaug.devices import NO_MEMORY, cuda_works, has_native_bf16
from synthaug.errors import InputError

# Its information, such as the precision it was asked for, would stand between our own lines.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)

_OTHER_PORTS = 2
"""A port that was free may be taken when it is needed: so many others are tried."""


class Engine:
    """One process's view of the devices that train together.

    Every process holds the whole GAN and steps it with the mean gradient of all processes. The
    gradients travel as one flat tensor after the backward pass, so that any order of generator and
    discriminator passes is allowed.

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``; ``auto`` takes CUDA where it is there,
            and never MPS, which lacks some of the operations at some sizes.
        devices: number of processes, one per device.
        precision: ``auto``, or a precision of Lightning Fabric's; ``auto`` takes bf16-mixed where
            the processor computes it natively (CUDA 8.0 and up; a CPU with AVX512-BF16 or AMX).

    Raises:
        InputError: the accelerator or that many devices are not there.
    """

    def __init__(
        self, accelerator: str = "auto", devices: int = 1, precision: str = "auto"
    ) -> None:
        if not _is_here(accelerator):
            raise InputError(f"no {accelerator} device here: use --accelerator cpu or auto")
        asked = accelerator
        if asked == "auto":
            accelerator = "cuda" if cuda_works() else "cpu"
        if precision == "auto":
            precision = "bf16-mixed" if _takes_bf16(accelerator) else "32-true"
        self.precision = precision
        self._computers = [_OneComputer()] if devices > 1 else []
        try:
            self._fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                precision=precision,
                strategy="ddp_spawn" if devices > 1 else "auto",
                plugins=self._computers or None,
            )
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            reason = textwrap.shorten(str(error), 160, placeholder=" ...")
            raise InputError(
                f"cannot train on {devices} x {asked} ({reason}): use fewer --devices, or "
                "--accelerator cpu"
            ) from error

    def launch(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function(engine, *args)`` in every process; returns the main process's result.

        With several processes Ctrl-C is theirs to handle, and this one waits for them; SIGTERM and
        SIGHUP reach ``function`` as Ctrl-C, whichever of the processes they were sent to.

        Raises:
            InputError: ``function`` raised it in any process.
        """
        if self._fabric.world_size == 1:
            return function(self, *args)
        with _handled(signal.SIG_IGN, _interrupt_children):
            try:
                return self._start(functools.partial(_call, self, function, args))
            except ProcessRaisedException as error:
                last = str(error).strip().splitlines()[-1]
                name, _, message = last.partition(": ")
                if name.endswith(InputError.__name__):
                    raise InputError(message) from error
                if name.endswith("OutOfMemoryError"):
                    raise InputError(NO_MEMORY) from error
                raise

    def _start(self, function: Callable[..., Any]) -> Any:
        """Launch; the processes meet at the port before any of them begins the function."""
        for _ in range(_OTHER_PORTS):
            try:
                return self._fabric.launch(function)
            except ProcessRaisedException as error:
                if "EADDRINUSE" not in str(error):
                    raise
            for computer in self._computers:
                computer.choose_port()
        return self._fabric.launch(function)

    @contextmanager
    def relay(self, callback: Callable[[Any], object] | None) -> Iterator[Any]:
        """Yield a stand-in for ``callback`` that may be handed to `launch`.

        Spawned processes cannot be given any function: theirs sends its argument to this process,
        where a thread calls ``callback`` with it.
        """
        if callback is None or self.world_size == 1:
            yield callback
            return
        queue = multiprocessing.get_context("spawn").SimpleQueue()

        failure: list[BaseException] = []

        def listen() -> None:
            while (message := queue.get()) is not None:
                if failure:
                    continue  # the others would wait for a full pipe
                try:
                    callback(message)
                except BaseException as error:
                    failure.append(error)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield queue.put
        finally:
            queue.put(None)
            thread.join()
        if failure:
            raise failure[0]

    @property
    def device(self) -> torch.device:
        """This process's device."""
        device: torch.device = self._fabric.device
        return device

    @property
    def rank(self) -> int:
        """This process's number, 0 is the main one."""
        return int(self._fabric.global_rank)

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return int(self._fabric.world_size)

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which forward passes run at the chosen precision."""
        context: AbstractContextManager[Any] = self._fabric.autocast()
        return context

    def average_gradients(self, module: nn.Module) -> None:
        """Replace every gradient of ``module`` by its mean over the processes."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        mean = self._sum(flat) / self.world_size
        for gradient, part in zip(
            gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def gather(self, values: Tensor) -> Tensor:
        """Return the values (B,) of all processes, one after the other."""
        if self.world_size == 1:
            return values
        rows = values.new_zeros(self.world_size, len(values))
        rows[self.rank] = values
        return self._sum(rows).flatten()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world_size == 1:
            return flag
        return bool(self._sum(torch.tensor(float(flag), device=self.device)) > 0)

    def _sum(self, values: Tensor) -> Tensor:
        """Replace values by their sum over the processes; Fabric's would wait for the device."""
        dist.all_reduce(values)
        return values


def _takes_bf16(accelerator: str) -> bool:
    if accelerator in ("cuda", "gpu") and cuda_works():
        return torch.cuda.get_device_capability()[0] >= 8
    return accelerator == "cpu" and has_native_bf16()


def _is_here(accelerator: str) -> bool:
    mps = accelerator in ("gpu", "mps") and torch.backends.mps.is_available()
    if accelerator in ("cuda", "gpu"):
        return mps or cuda_works()
    return mps or accelerator != "mps"


def _call(engine: Engine, function: Callable[..., Any], args: tuple[Any, ...], _: Fabric) -> Any:
    with _handled(signal.getsignal(signal.SIGINT), _interrupt):
        try:
            result = function(engine, *args)
        except BaseException:
            # At this process's exit Fabric would wait for the others, who wait for this one.
            clean_up = getattr(distributed, "_destroy_dist_connection", None)
            if clean_up is not None:
                atexit.unregister(clean_up)
            raise
        dist.destroy_process_group()  # gloo's threads, left to the exit, now and then abort it
        return result


class _OneComputer(LightningEnvironment):  # type: ignore[misc]  # has no types
    """All processes run here, and this one starts them, whatever a cluster's variables say."""

    def __init__(self) -> None:
        super().__init__()
        self.choose_port()

    def choose_port(self) -> None:
        with socket.socket() as probe:
            probe.bind((self.main_address, 0))
            self._port: int = probe.getsockname()[1]

    @property
    def creates_processes_externally(self) -> bool:
        return False

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._port

    def node_rank(self) -> int:
        return 0


@contextmanager
def _handled(interrupt: Any, stop: Callable[..., None]) -> Iterator[None]:
    """Handle Ctrl-C, and what else stops a process, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # no SIGHUP on Windows
        if number is not None and (name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN):
            before[number] = signal.signal(number, interrupt if name == "SIGINT" else stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _interrupt_children(*_: object) -> None:
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
