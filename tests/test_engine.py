from __future__ import annotations

import logging
import socket

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from synthaug.engine import Engine, _OneComputer
from synthaug.errors import InputError
from synthaug.gans.osmis.fast import FastOSMIS
from synthaug.plugins.diffaug import DiffAugment
from synthaug.plugins.diversity import Diversity
from synthaug.training import LoopSettings, TrainingState, train

LOOP = LoopSettings(
    iterations=3,
    batch_size=2,
    lr_generator=1e-3,
    lr_discriminator=1e-3,
    lr_pretrain=1e-3,
    betas=(0.0, 0.99),
    ema=0.9,
    share_fakes=True,
    seed=0,
)


def average_and_train(engine, folder, report):
    """Run in two processes; leave what each of them saw in ``folder``."""
    layer = nn.Linear(3, 2)
    layer.weight.grad = torch.full((2, 3), float(engine.rank + 1))
    layer.bias.grad = torch.tensor([4.0, 0.0]) * engine.rank
    engine.average_gradients(layer)
    flags = [engine.any(engine.rank == 1), engine.any(False)]

    torch.manual_seed(0)
    gan = FastOSMIS(32, 32, 2, pretrain_steps=1, bernoulli_steps=2, pretrained=False)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    masks = torch.zeros(1, 2, 64, 64)
    masks[:, 1, 20:40, 20:40] = 1
    masks[:, 0] = 1 - masks[:, 1]
    gan.initialise(images, masks)
    state = TrainingState(gan, [DiffAugment(), Diversity()], LOOP)
    losses = []

    def after_step(terms):
        losses.append({name: float(term) for name, term in terms.items()})
        if report is not None and engine.rank == 0:
            report(state.step)
        return False

    train(state, images, masks, engine, after_step)
    torch.save(
        {
            "gradients": [layer.weight.grad, layer.bias.grad],
            "flags": flags,
            "gathered": engine.gather(torch.tensor([1.0, 2.0]) + 10 * engine.rank),
            "weights": dict(state.gan.state_dict()),
            "ema": dict(state.ema.state_dict()),
            "losses": losses,
        },
        folder / f"{engine.rank}.pt",
    )
    engine.any(False)  # wait for all
    return engine.world_size


def test_two_processes_share_gradients_and_hold_equal_weights(tmp_path):
    seen = []
    engine = Engine("cpu", 2, "32-true")
    with engine.relay(lambda step: seen.append(step)) as report:
        assert engine.launch(average_and_train, tmp_path, report) == 2
    assert seen == [1, 2, 3]
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for result in (one, two):
        assert torch.equal(result["gradients"][0], torch.full((2, 3), 1.5))
        assert torch.equal(result["gradients"][1], torch.tensor([2.0, 0.0]))
        assert result["flags"] == [True, False]
        assert result["gathered"].tolist() == [1, 2, 11, 12]
    for part in ("weights", "ema"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), name
    assert one["losses"] != two["losses"]  # each trained on draws of its own


def world_size(engine):
    return engine.world_size


def test_a_port_that_was_taken_meanwhile_is_left_for_another(monkeypatch):
    choose = _OneComputer.choose_port
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = other.getsockname()[1]

        def choose_taken(computer):
            monkeypatch.setattr(_OneComputer, "choose_port", choose)
            computer._port = taken

        monkeypatch.setattr(_OneComputer, "choose_port", choose_taken)
        assert Engine("cpu", 2, "32-true").launch(world_size) == 2


def send_much(engine, report):
    """Tell more than a pipe holds."""
    if engine.rank == 0:
        for number in range(3):
            report("x" * 100_000 + str(number))
    engine.any(False)  # wait for all
    return engine.world_size


def test_a_progress_line_that_fails_neither_hangs_nor_is_lost(monkeypatch):
    """Started from SLURM and torchrun alike, whose variables tell of one process."""
    for name, value in (("SLURM_NTASKS", "1"), ("SLURM_JOB_NAME", "job"), ("SLURM_PROCID", "0")):
        monkeypatch.setenv(name, value)
    for name, value in (("WORLD_SIZE", "1"), ("RANK", "0"), ("TORCHELASTIC_RUN_ID", "a")):
        monkeypatch.setenv(name, value)
    heard = []

    def closed(message):
        heard.append(message[-1])
        raise BrokenPipeError("nobody listens")

    engine = Engine("cpu", 2, "32-true")
    assert engine.world_size == 2
    with pytest.raises(BrokenPipeError, match="nobody listens"), engine.relay(closed) as report:
        assert engine.launch(send_much, report) == 2
    assert heard == ["0"]


def test_one_process_is_a_plain_call(tmp_path):
    seen = []
    engine = Engine("cpu", 1, "32-true")
    with engine.relay(seen.append) as report:
        assert engine.launch(lambda same, report: report(same), report) is None
    assert seen == [engine]
    assert (engine.rank, engine.world_size, engine.device.type) == (0, 1, "cpu")
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.ones(1, 2)
    engine.average_gradients(layer)
    assert torch.equal(layer.weight.grad, torch.ones(1, 2))
    assert engine.any(True)
    assert not engine.any(False)
    assert engine.gather(torch.ones(3)).tolist() == [1, 1, 1]


def test_bf16_runs_matrix_products_in_half_precision():
    engine = Engine("cpu", 1, "bf16-mixed")
    with engine.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_fabric_adds_no_lines_of_its_own(caplog):
    logger = logging.getLogger("lightning_fabric")
    logger.addHandler(caplog.handler)
    Engine("cpu", 1, "bf16-mixed")
    logger.removeHandler(caplog.handler)
    assert caplog.messages == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_more_devices_than_there_are_is_one_line(monkeypatch):
    def misconfigured(**_):
        raise MisconfigurationException("You requested gpu: [0, 1]\n But there is only: [0]")

    monkeypatch.setattr("synthaug.engine.Fabric", misconfigured)
    with pytest.raises(InputError, match=r"cannot train on 2 x auto .*: use fewer --dev") as told:
        Engine("auto", 2, "32-true")
    assert "\n" not in str(told.value)


def test_a_missing_device_is_named():
    with pytest.raises(InputError, match=r"no cuda device here: use --accelerator cpu"):
        Engine("cuda")
