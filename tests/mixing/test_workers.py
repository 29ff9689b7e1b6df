from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Iterator, Mapping
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from synthaug.bank import Bank
from synthaug.errors import InputError
from synthaug.mixing import SynthAugment, SynthMix, seed_worker, workers
from synthaug.mixing.workers import find_pipelines

BATCHES, BATCH = 4, 6


class Augmented(Dataset[Any]):
    """The same flat image again and again; an item is what its pipeline made of it."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def __len__(self) -> int:
        return BATCHES * BATCH

    def __getitem__(self, index: int) -> int:
        image = np.full((36, 48, 3), 128, np.uint8)
        return int(self.pipeline(image=image)["image"].sum(dtype=np.int64))


class GlobalDraws(Augmented):
    def __getitem__(self, index: int) -> int:
        return int(np.random.randint(10**6)) * 10**6 + random.randrange(10**6)  # noqa: NPY002


def neighbour() -> A.Compose:
    return A.Compose([A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)], seed=7)


def epochs(
    dataset: Dataset[Any], *, seed: int = 0, count: int = 2, init: Any = seed_worker, **options: Any
) -> list[list[tuple[int, ...]]]:
    """Batches of each epoch; with two workers, they prepare the batches in turn."""
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=2,
        worker_init_fn=init,
        multiprocessing_context="fork",
        generator=torch.Generator().manual_seed(seed),
        **options,
    )
    return [[tuple(batch.tolist()) for batch in loader] for _ in range(count)]


def test_without_the_mend_neighbours_repeat_and_with_it_no_batch_does() -> None:
    plain = epochs(Augmented(neighbour()), init=None)
    assert plain[0][0] == plain[0][1] == plain[1][0]  # the fault of albumentations 2.0.8
    mended = epochs(Augmented(neighbour()))
    assert len({batch for epoch in mended for batch in epoch}) == 2 * BATCHES


def test_a_seeded_loader_repeats_the_whole_run() -> None:
    dataset = Augmented(neighbour())
    assert epochs(dataset, seed=1) == epochs(dataset, seed=1)
    assert epochs(dataset, seed=1) != epochs(dataset, seed=2)


def test_persistent_workers_differ_between_epochs_and_repeat() -> None:
    dataset = Augmented(neighbour())
    first = epochs(dataset, persistent_workers=True)
    assert len({batch for epoch in first for batch in epoch}) == 2 * BATCHES
    assert first == epochs(dataset, persistent_workers=True)


@pytest.mark.parametrize("persistent", [False, True])
def test_synthaugment_alone_differs_per_worker_and_epoch(bank: Bank, persistent: bool) -> None:
    dataset = Augmented(A.Compose([SynthAugment(bank.path, p=0.8)], seed=7))
    run = functools.partial(epochs, dataset, init=None, persistent_workers=persistent, count=3)
    first = run(seed=3)
    assert len({batch for epoch in first for batch in epoch}) == 3 * BATCHES
    assert first == run(seed=3)
    assert first != run(seed=4)


class Both(Augmented):
    """An item is what each of two pipelines made of the image."""

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([Augmented(one)[index] for one in self.pipeline])


@pytest.mark.parametrize("persistent", [False, True])
def test_two_synthaugments_over_one_bank_differ_and_repeat(bank: Bank, persistent: bool) -> None:
    def run() -> list[list[Any]]:
        pair = [A.Compose([SynthAugment(bank.path, p=0.8)]) for _ in range(2)]
        return epochs(Both(pair), init=None, persistent_workers=persistent)

    first = run()
    for epoch in first:
        assert all(np.not_equal(*np.transpose(batch)).any() for batch in epoch)
    assert str(first) == str(run())


def test_synthaugment_follows_the_stream_that_seed_worker_gave_its_pipeline(bank: Bank) -> None:
    dataset = Augmented(A.Compose([SynthAugment(bank.path, p=0.8), A.GaussNoise(p=1)]))
    first = epochs(dataset)
    assert len({batch for epoch in first for batch in epoch}) == 2 * BATCHES
    assert first == epochs(dataset)


def test_the_workers_global_generators_are_seeded_too() -> None:
    first = epochs(GlobalDraws(None))
    assert len({draw for epoch in first for batch in epoch for draw in batch}) == 2 * 24
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert first == epochs(GlobalDraws(None))


def test_pipelines_are_found_wherever_datasets_keep_them(bank: Bank) -> None:
    made = [neighbour() for _ in range(8)]
    single = A.HorizontalFlip()

    enclosed = made[4]

    def closure(**data: Any) -> Any:
        return enclosed(**data)

    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.names = [str(i) for i in range(1000)]
            self.itself = self

        def run(self, **data: Any) -> Any:
            return self.inner(**data)

    real = Augmented({"train": made[0], "all": [made[1], single]})
    mix = SynthMix(Subset(Augmented(made[2]), [0]), bank.path, 0.5, transform=made[3])
    root = ConcatDataset(
        [
            real,
            mix,
            Augmented(closure),
            Augmented(functools.partial(made[5], force_apply=True)),
            Augmented(Wrapper(made[6]).run),
            Augmented(Wrapper(made[7])),
            Augmented(made[0]),
        ]
    )
    found = find_pipelines(root)
    assert len(found) == 9
    assert {id(p) for p in found} == {id(p) for p in [*made, single]}


PIPELINE = neighbour()


def test_pipelines_of_classes_modules_slots_and_long_lists_are_found() -> None:
    made = [neighbour() for _ in range(4)]

    class OfClass(Augmented):
        shared = made[0]

        def __init__(self) -> None:
            pass

    class OfModule(OfClass):
        def __getitem__(self, index: int) -> int:
            return int(PIPELINE(image=np.zeros((36, 48, 3), np.uint8))["image"].sum())

    class Slots:
        __slots__ = ("kept", "unset")

        def __init__(self) -> None:
            self.kept = {neighbour: made[1]}

    def default(*, pipeline: Any = made[2], **data: Any) -> Any:
        return pipeline(**data)

    many = [Augmented(None) for _ in range(300)] + [Augmented(made[3])]
    found = find_pipelines([OfModule(), Slots(), default, ConcatDataset(many)])
    assert {id(p) for p in found} == {id(p) for p in [*made, PIPELINE]}
    assert len(found) == 5


def helper(image: Any) -> Any:
    return HELPED(image=image)


HELPED, COMPREHENDED, STATIC = neighbour(), neighbour(), neighbour()


class Indirect(Augmented):
    """Uses pipelines in methods, functions, comprehensions and properties alone."""

    def __init__(self) -> None:
        pass

    def load(self, image: Any) -> Any:
        return PIPELINE(image=image)

    @staticmethod
    def plain(image: Any) -> Any:
        return STATIC(image=image)

    @property
    def many(self) -> Any:
        return [COMPREHENDED(image=image) for image in (None,)]

    def __getitem__(self, index: int) -> int:
        return int(self.load(helper(index)) + self.many + self.plain(None))


def test_pipelines_behind_methods_functions_and_comprehensions_are_found() -> None:
    found = {id(pipeline) for pipeline in find_pipelines(Indirect())}
    assert found == {id(p) for p in (PIPELINE, HELPED, COMPREHENDED, STATIC)}


def test_a_mapping_that_reads_from_a_disk_is_left_alone() -> None:
    class Lazy(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise OSError("no disk")

        def __iter__(self) -> Iterator[str]:
            return iter("ab")

        def __len__(self) -> int:
            return 2

    kept = neighbour()
    assert find_pipelines([Lazy(), kept]) == [kept]


def test_a_spawned_worker_brings_its_rank_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # where it is pickled ...
    sent = pickle.dumps(seed_worker)
    monkeypatch.setenv("RANK", "0")  # ... and where it arrives
    monkeypatch.setattr(workers, "_brought", None)
    assert pickle.loads(sent) is seed_worker
    assert workers._rank() == 3


def test_every_rank_of_a_training_draws_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for rank in ("0", "1", "", "1"):
        monkeypatch.setenv("RANK", rank)
        drawn.append(epochs(Augmented(neighbour()), count=1))
    assert drawn[0] == drawn[2]
    assert drawn[1] == drawn[3]
    first, second = ({b for epoch in run for b in epoch} for run in drawn[:2])
    assert not first & second


class Torch:
    """What torchvision's transforms draw from."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return float(torch.rand(()))


def test_torch_draws_differ_by_rank_and_are_its_own_on_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    for rank, prepare in (("0", None), ("0", seed_worker), ("1", seed_worker)):
        monkeypatch.setenv("RANK", rank)
        start = torch.Generator().manual_seed(3)
        loader = DataLoader(Torch(), num_workers=1, worker_init_fn=prepare, generator=start)
        drawn.append(torch.cat(list(loader)).tolist())
    assert drawn[0] == drawn[1]
    assert not set(drawn[1]) & set(drawn[2])


def test_outside_a_worker_it_says_how_to_use_it() -> None:
    with pytest.raises(InputError, match="worker_init_fn=seed_worker"):
        seed_worker(0)
