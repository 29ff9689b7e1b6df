"""SynthMix: a PyTorch dataset that keeps an exact share of synthetic pairs."""

from __future__ import annotations

import math
import operator
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset

from synthaug import seeding
from synthaug.errors import InputError
from synthaug.mixing.batches import MixBatchSampler, Position, is_count
from synthaug.mixing.real_items import Structure, described, structure, with_parts
from synthaug.mixing.source import Source, check_ids_fit, open_source_once
from synthaug.sample import Sample

Schedule = Literal["constant", "synthetic-first"]


class SynthMix(Dataset[Any]):
    """Mix a dataset with the kept samples of a bank at a fixed ratio.

    Of any ``k`` consecutive items of an epoch exactly ``k * ratio`` are synthetic, rounded up or
    down where that is no whole number. Both sides are shuffled, and neither repeats an item
    before all of its items have been used, across epochs.

    Load it with the sampler that counts the epochs, so that each epoch goes on where the last
    one stopped::

        mix = SynthMix(real, "bank", ratio=0.5, transform=standard_augmentation(240, 427))
        loader = DataLoader(mix, batch_sampler=mix.batch_sampler(8), num_workers=2,
                            worker_init_fn=seed_worker)

    With a sampler of your own call `set_epoch` before each epoch, as for a ``DistributedSampler``;
    otherwise every epoch shows the same items, and ``synthetic-first`` is refused.

    Args:
        dataset: a map-style dataset of labelled images, each item ``(image, mask)`` or
            ``{"image": ..., "mask": ...}``; with other items give ``adapt``.
        bank: the bank's folder, opened on first use, once per process.
        ratio: share of synthetic items, in [0, 1]; ``"auto"`` chooses on first use, by the bank's
            own training pairs: of one pair 0.5, or 0 where that loses, of several 0, 0.25, 0.5 or
            0.75 (`synthaug.mixing.auto.mix_of_bank`). That takes a minute or two, once per bank:
            the choice is kept in its ``mix.json``. The loss weight of synthetic items is your
            training loop's matter and stays 1.
        seed: seeds the order of both sides.
        transform: called as ``transform(image=..., mask=...)`` on real and synthetic items alike
            (an albumentations pipeline). A mask of int64 stays so where it comes back as int32.
        adapt: turns a `Sample` (RGB uint8 image, uint8 ids) into an item as ``dataset`` yields
            them; the default takes the structure of the first real item, with NumPy arrays, grey
            where its image is, and the dtype of its mask; the id of ignored pixels stays 255.
        length: items per epoch; by default every real item is used once per epoch:
            ``floor(len(dataset) / (1 - ratio))``, or ``len(dataset)`` at ``ratio=1``. Set it when
            there are few real items, for example one.
        schedule: how the share runs over the training: ``constant``, or ``synthetic-first``: twice
            ``ratio`` in the first half of the epochs, and none in the second, so that the training
            ends on real items. An arm of that name, with ``ratio=0.5``, is what `compare` tests.
        epochs: of the training, for ``synthetic-first``; what is trained beyond them is real.
        provenance: add where each item comes from, ``"real/3"`` or ``"synthetic/00012"``: under
            the key ``"provenance"`` of a dict, else at the end of the tuple.

    Raises:
        InputError: a ratio, length, seed or number of epochs out of range, epochs without the
            schedule that asks for them, an empty dataset, a bank that is missing, damaged or
            without kept samples, or real items that the default ``adapt`` cannot imitate.
    """

    def __init__(
        self,
        dataset: Any,
        bank: str | os.PathLike[str],
        ratio: float | Literal["auto"] = "auto",
        *,
        seed: int = 0,
        transform: Callable[..., dict[str, Any]] | None = None,
        adapt: Callable[[Sample], Any] | None = None,
        length: int | None = None,
        schedule: Schedule = "constant",
        epochs: int | None = None,
        provenance: bool = False,
    ) -> None:
        if ratio != "auto" and (not isinstance(ratio, Real) or not 0 <= ratio <= 1):
            raise InputError(
                f"ratio is {ratio}: give the share of synthetic items, 0 to 1, or auto"
            )
        if length is not None and not is_count(length):
            raise InputError(f"length is {length!r}: give a whole number of items, at least one")
        _check_schedule(schedule, epochs, ratio)
        is_map_style = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if isinstance(dataset, IterableDataset) or not is_map_style:
            raise InputError(
                f"a {type(dataset).__name__} cannot be mixed with: give a map-style dataset, with "
                "__len__ and __getitem__"
            )
        if len(dataset) == 0:
            raise InputError("the dataset to mix with is empty: it needs at least one real item")
        self.dataset = dataset
        self.bank = os.path.abspath(bank)
        seeding.derive_seed(seed)  # refuses what is no whole number
        self.seed = seed
        self.transform = transform
        self.adapt = adapt
        self.provenance = provenance
        self._epoch = torch.tensor(-1)  # nobody has told
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers see it change
        self.epochs_told = 0
        self._auto = ratio == "auto"
        self._ratio: float | None = None if ratio == "auto" else float(ratio)
        self._given_length = None if length is None else int(length)
        self._scheduled = None if epochs is None else int(epochs)
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}
        self._real: Structure | None = None

    @property
    def ratio(self) -> float:
        """Share of synthetic items, in [0, 1]; with ``"auto"`` it is chosen now at the latest."""
        if self._ratio is None:
            from synthaug.mixing.auto import mix_of_bank

            self._ratio = mix_of_bank(self.bank).arm.shares.get("synthetic", 0.0)
        return self._ratio

    def settle(self) -> None:
        """Choose now if the ratio is ``"auto"``: in a process group the first one, for all.

        All processes of the group must call it; `batch_sampler` does.

        Raises:
            InputError: as `synthaug.mixing.auto.mix_of_bank`, in every process.
        """
        if self._auto and dist.is_available() and dist.is_initialized():
            found: list[Any] = [None]
            if dist.get_rank() == 0:
                try:
                    found = [self.ratio]
                except InputError as error:
                    found = [error]
            dist.broadcast_object_list(found, src=0)
            if isinstance(found[0], InputError):
                raise found[0]
            self._ratio = found[0]
        len(self)  # before workers start

    @cached_property
    def _share(self) -> Fraction:
        return Fraction(self.ratio).limit_denominator(1_000_000)

    def __len__(self) -> int:
        share, real = self._share, len(self.dataset)  # chosen here, before workers start
        if self._given_length is not None:
            return self._given_length
        return real if share == 1 else math.floor(real / (1 - share))

    @property
    def epoch(self) -> int:
        """The epoch that plain indices refer to."""
        return max(int(self._epoch), 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that plain indices refer to, in workers that persist as well.

        It is also the epoch of the next pass of every `batch_sampler`.
        """
        self._epoch.fill_(epoch)
        self.epochs_told += 1

    def __getitem__(self, index: int | Position) -> Any:
        """Return an item; an index alone refers to the epoch of `set_epoch`.

        Raises:
            InputError: an index alone, with ``synthetic-first``, before `set_epoch` was called.
            IndexError: there is no such item.
            TypeError: a slice, or anything else that is no whole number.
        """
        is_synthetic, rank = self._locate(index)
        if is_synthetic:
            item = self._synthetic(rank)
        else:
            item = self.dataset[self._real_index(rank)]
            self._compare(item)
        if self.transform is not None:
            item = self._transformed(item)
        if not self.provenance:
            return item
        origin = self.origin(index)
        return {**item, "provenance": origin} if isinstance(item, dict) else (*item, origin)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def origin(self, index: int | Position) -> str:
        """Say where an item comes from: ``"real/<index>"`` or ``"synthetic/<sample id>"``."""
        is_synthetic, rank = self._locate(index)
        if is_synthetic:
            return f"synthetic/{self._sample_id(rank)}"
        return f"real/{self._real_index(rank)}"

    def batch_sampler(
        self,
        batch_size: int,
        *,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> MixBatchSampler:
        """Return a batch sampler that keeps the ratio in every batch and counts the epochs.

        Args:
            batch_size: items per batch; the synthetic ones among them are ``batch_size * ratio``
                where that is a whole number, else the next lower or higher one.
            drop_last: leave out the last batch when it is not full.
            num_replicas: processes that train together, see `MixBatchSampler`.
            rank: this process's number among them.
        """
        return MixBatchSampler(
            self, batch_size, drop_last=drop_last, num_replicas=num_replicas, rank=rank
        )

    def _locate(self, index: int | Position) -> tuple[bool, int]:
        """Whether the item is synthetic, and its number among its kind since the first epoch."""
        if isinstance(index, slice):
            raise TypeError("SynthMix takes one index: for several use torch.utils.data.Subset")
        epoch, place = index if isinstance(index, tuple) else (self.epoch, operator.index(index))
        if self._scheduled is not None and not isinstance(index, tuple) and self._epoch < 0:
            raise InputError(
                "synthetic-first must know the epoch: load with "
                "batch_sampler=mix.batch_sampler(n), or call mix.set_epoch(epoch) before each epoch"
            )
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} items")
        share, number = self._share, epoch * len(self) + place  # remainders go on across epochs
        turn = number + 1  # from there on all are real
        if self._scheduled is not None:
            share, turn = min(2 * share, Fraction(1)), self._scheduled * len(self) // 2
        before = math.floor(min(number, turn) * share)
        is_synthetic = number < turn and math.floor((number + 1) * share) > before
        return is_synthetic, before if is_synthetic else number - before

    def _real_index(self, rank: int) -> int:
        return self._shuffled("real", rank, len(self.dataset))

    def _sample_id(self, rank: int) -> str:
        ids = self._source().ids
        return ids[self._shuffled("synthetic", rank, len(ids))]

    def _shuffled(self, kind: str, rank: int, size: int) -> int:
        """The item at ``rank`` when shuffled passes over ``size`` items follow each other."""
        number, place = divmod(rank, size)
        known = self._orders.get(kind)
        if known is None or known[0] != number or len(known[1]) != size:
            order = seeding.numpy_stream(self.seed, "mix", kind, number).permutation(size)
            known = self._orders[kind] = (number, order)
        return int(known[1][place])

    def _source(self) -> Source:
        source = open_source_once(self.bank)
        source.require_masks()
        if not source.ids:
            raise InputError(f"{self.bank} is a generator: make a bank of it with generate first")
        return source

    def _synthetic(self, rank: int) -> Any:
        sample = self._source().fetch({"sample_id": self._sample_id(rank)})
        if self.adapt is not None:
            return self.adapt(sample)
        if self._real is None:
            first = self.dataset[0]
            self._real = structure(first)
            self._compare(first)
            self._compare_sizes(first, sample)
        dtype = self._real.mask_dtype
        check_ids_fit(sample.mask, np.iinfo(dtype).max, dtype)
        return self._real.make(sample.image, sample.mask.astype(dtype))

    def _compare(self, item: Any) -> None:
        """Warn of ids that the bank has not, as soon as a real item shows any."""
        if self._real is not None:
            self._source().compare_ids(item["mask"] if self._real.keyed else item[1])

    def _compare_sizes(self, first: Any, sample: Sample) -> None:
        """Warn where items are all of one size, as far as two tell, and the bank's of another."""
        if self.transform is not None:
            return
        both = first, self.dataset[len(self.dataset) - 1]
        sizes = {(item["image"] if isinstance(item, dict) else item[0]).shape[:2] for item in both}
        if len(sizes) > 1 or sample.size in sizes:
            return
        here, there = (f"{height}x{width}" for height, width in (*sizes, sample.size))
        warnings.warn(
            f"the dataset's items are {here} px, those of {self.bank} {there}, so that they stack "
            "only if your collate_fn pads: pass SynthMix(transform=standard_augmentation(height, "
            "width)), or adapt=..., which resizes a Sample",
            UserWarning,
            stacklevel=2,
        )

    def _transformed(self, item: Any) -> Any:
        assert self.transform is not None
        keyed = isinstance(item, dict)
        paired = isinstance(item, (tuple, list)) and len(item) > 1
        given = item if keyed else {"image": item[0], "mask": item[1]} if paired else {}
        if not {"image", "mask"} <= set(given):
            raise InputError(
                f"transform is called with image and mask, and an item is {described(item)}: let "
                "the dataset, and adapt, give (image, mask) or a dict of image and mask"
            )
        image, mask = given["image"], given["mask"]
        arrays = isinstance(image, np.ndarray) and isinstance(mask, np.ndarray)
        if not arrays and type(self.transform).__module__.startswith("albumentations."):
            raise InputError(
                f"albumentations takes NumPy arrays, and the dataset yields {described(image)} "
                f"images and {described(mask)} masks: let the dataset give arrays"
            )
        try:
            result = self.transform(**given)
        except cv2.error as error:
            if not isinstance(mask, np.ndarray) or mask.dtype.kind != "b":
                raise
            raise InputError(
                "the transform cannot take bool masks: let the dataset, and adapt, give uint8, "
                "mask.astype(np.uint8)"
            ) from error
        if not isinstance(result, Mapping) or not {"image", "mask"} <= set(result):
            raise InputError(
                f"transform returned {described(result)}: it must return a dict of image and mask"
            )
        result = {**result, "mask": _as_wide(result["mask"], mask)}
        return with_parts(item, result)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}, "_real": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # a copy's own workers see it


def _as_wide(mask: Any, given: Any) -> Any:
    """Undo a cast to narrower integers: albumentations' Affine makes int32 of int64 as it fires."""
    integers = all(isinstance(m, np.ndarray) and m.dtype.kind in "iu" for m in (mask, given))
    if integers and np.can_cast(mask.dtype, given.dtype):
        return mask.astype(given.dtype, copy=False)
    return mask


def _check_schedule(schedule: str, epochs: int | None, ratio: float | str) -> None:
    if schedule not in get_args(Schedule):
        raise InputError(f"schedule is {schedule!r}: choose one of {', '.join(get_args(Schedule))}")
    if schedule == "constant":
        if epochs is not None:
            raise InputError("a constant share has no use for epochs: leave them out")
        return
    if not is_count(epochs):
        raise InputError(
            f"epochs is {epochs!r}: synthetic-first needs the whole number that will be trained"
        )
    if isinstance(ratio, Real) and ratio > 0.5:
        raise InputError(
            f"ratio is {ratio}: of synthetic-first it is at most 0.5, all of the first half"
        )
