"""Spectral norms of averaged networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList


@torch.no_grad()
def renew_spectral_norms(network: nn.Module) -> None:
    """Take the largest singular value of each kernel anew, exactly.

    Vectors that followed the weights of a training do not fit averages of these.
    """
    for held in network.modules():
        for scale in held if isinstance(held, ParametrizationList) else ():
            vectors = dict(scale.named_buffers())
            if "_u" in vectors:
                kernel = held.get_parameter("original").flatten(1)
                kernel = (kernel.cpu() if kernel.device.type == "mps" else kernel).double()
                left = torch.linalg.eigh(kernel @ kernel.T).eigenvectors[:, -1]
                vectors["_u"].copy_(left)
                vectors["_v"].copy_(F.normalize(kernel.T @ left, dim=0))
