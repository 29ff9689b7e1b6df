"""Where bf16, with its eight bits, is not enough."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(like: Tensor) -> torch.autocast:
    """Return a context in which nothing is cast down, on the device of a tensor."""
    return torch.autocast(like.device.type, enabled=False)


def full(logits: Tensor) -> Tensor:
    """Bring half precision to single; more stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
