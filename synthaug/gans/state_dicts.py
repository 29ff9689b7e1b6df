"""Filling a network from a state dict that was read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from synthaug.errors import InputError


def fill(
    module: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str, mend: str = ""
) -> None:
    """Load strictly and freeze; names, shapes and values of all tensors are checked before.

    Args:
        module: on any device, ``meta`` included: it takes the tensors over.
        state: of exactly the names that the module has.
        path: where it was read, for the error line.
        what: what it should be, for the error line ("OASIS").
        mend: ends that line.

    Raises:
        InputError: tensors are missing, unknown, of another shape, or not finite.
    """
    expected = module.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if missing or extra or wrong:
        problem = (
            f"{len(missing)} tensor(s) are missing (such as {missing[0]})"
            if missing
            else f"{len(extra)} tensor(s) are unknown (such as {extra[0]})"
            if extra
            else f"{wrong[0]} is {tuple(state[wrong[0]].shape)}, not "
            f"{tuple(expected[wrong[0]].shape)}"
        )
        raise InputError(f"{path} is no {what} checkpoint of this kind: {problem}{mend}")
    plain = {k: v.to(expected[k].dtype).contiguous() for k, v in state.items()}
    if broken := [k for k, v in plain.items() if not v.isfinite().all()]:
        raise InputError(f"{path} cannot be used: its {broken[0]} holds NaN or infinities")
    module.load_state_dict(plain, strict=True, assign=True)
    module.requires_grad_(False)


def load_beside(module: nn.Module, state: Mapping[str, Tensor], *new: str) -> None:
    """Load weights strictly; those whose names begin with ``new`` stay as they are."""
    own = module.state_dict()
    fresh = {key: value for key, value in own.items() if key.startswith(new)}
    module.load_state_dict({**fresh, **state}, strict=True)
