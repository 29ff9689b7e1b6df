"""The batches of a `synthaug.mixing.SynthMix`, one process's share of them."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.utils.data import Sampler

from synthaug.errors import InputError

if TYPE_CHECKING:
    from synthaug.mixing.datasets import SynthMix

Position = tuple[int, int]
"""(epoch, index within the epoch): what the batch sampler asks for."""


def is_count(value: Any) -> bool:
    """Whether a value is a whole number, at least 1; it may be a float."""
    return isinstance(value, Real) and float(value) >= 1 and float(value).is_integer()


class MixBatchSampler(Sampler[list[Position]]):
    """Batches of (epoch, index) in the mix's own order; each pass is the next epoch.

    Of processes that train together (DDP) each takes every ``num_replicas``-th batch; all have the
    same number, so that none waits for another: the first batches come again where the last round
    is not full, or that round is left out with ``drop_last``.

    Nobody else must share the batches again: Lightning and Fabric take
    ``use_distributed_sampler=False``; for Accelerate, which shares them in ``prepare``, give
    ``num_replicas=1, rank=0``.

    Args:
        mix: the dataset to sample.
        batch_size: items per batch, of this process.
        drop_last: leave out the last batch when it is not full.
        num_replicas: processes that train together; by default those of torch's process group, 1
            without one.
        rank: this process's number among them, from 0; by default that of the process group.

    Raises:
        InputError: the batch size is not positive, or the rank not below ``num_replicas``; with
            ``drop_last`` an epoch has no batch; or Lightning makes it anew over a sampler of its
            own.
    """

    def __init__(
        self,
        mix: SynthMix,
        batch_size: int,
        *,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if not hasattr(mix, "settle"):
            raise InputError(
                "batch_sampler already shares batches among processes: pass "
                "use_distributed_sampler=False (Lightning, Fabric)"
            )
        if not is_count(batch_size):
            raise InputError(f"batch_size is {batch_size!r}: give a whole number, at least 1")
        grouped = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if grouped else 1
        if rank is None:
            rank = dist.get_rank() if grouped else 0
        if not 0 <= rank < num_replicas:
            raise InputError(f"rank is {rank}: give 0 to {num_replicas - 1}, below num_replicas")
        mix.settle()
        self.mix = mix
        self.batch_size = int(batch_size)
        self.drop_last = drop_last
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = mix.epoch
        self._told = mix.epochs_told
        if len(self) == 0:
            each = f" for each of {num_replicas} processes" if num_replicas > 1 else ""
            raise InputError(
                f"the mix holds {len(mix)} items an epoch, fewer than a batch of {self.batch_size}"
                f"{each}: set SynthMix(length=...), or leave out drop_last"
            )

    @property
    def sampler(self) -> SimpleNamespace:
        """Where Lightning and Fabric tell the epoch; never back, as Fabric resumes from 0."""
        return SimpleNamespace(set_epoch=lambda epoch: self.set_epoch(max(epoch, self.epoch)))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, to resume a training."""
        self.epoch = epoch

    def __len__(self) -> int:
        rounds, rest = divmod(self._batches(), self.num_replicas)
        return rounds + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Position]]:
        if self._told != self.mix.epochs_told:
            self.epoch, self._told = self.mix.epoch, self.mix.epochs_told
        epoch, self.epoch = self.epoch, self.epoch + 1
        for number in range(len(self)):
            batch = (number * self.num_replicas + self.rank) % self._batches()
            start = batch * self.batch_size
            stop = min(start + self.batch_size, len(self.mix))
            yield [(epoch, index) for index in range(start, stop)]

    def _batches(self) -> int:
        """Batches of all processes together."""
        full, rest = divmod(len(self.mix), self.batch_size)
        return full + (rest > 0 and not self.drop_last)
