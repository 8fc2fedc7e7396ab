"""Adam's second moments in a form that travels: per weight matrix one number a row and one a column.

Adam divides each weight's step by the root of a running mean v of its squared gradient (Kingma & Ba 2015). Without it a
run that goes on elsewhere must find it anew, with steps of the wrong size meanwhile. The factored v is Adafactor's
(Shazeer & Stern 2018, arXiv:1804.04235, algorithm 1): v ≈ r cᵀ / mean(r), r and c the means of v's rows and columns.
A generator's 24 MB become 0.3 MB. The first moments stay behind: they are anew within ten steps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SETTLED = 1000.0
"""Steps that a carried moment counts as having seen: enough for Adam's bias correction to be over."""


def _names(modules: Mapping[str, torch.nn.Module]) -> dict[Tensor, str]:
    return {p: f"{prefix}.{name}" for prefix, module in modules.items() for name, p in module.named_parameters()}


def factored(v: Tensor) -> tuple[Tensor, Tensor]:
    """Second moments [O,…] ≥ 0 → means of the rows [O] and of the columns [numel/O] of v as a matrix."""
    matrix = v.reshape(len(v), -1)
    return matrix.mean(1), matrix.mean(0)


def unfactored(rows: Tensor, columns: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `factored` for moments of rank one; else their approximation with the same means."""
    return (rows[:, None] * (columns / rows.mean().clamp_min(1e-30))).reshape(shape)


def pack(optimizer: torch.optim.Optimizer, modules: Mapping[str, torch.nn.Module]) -> dict[str, Tensor]:
    """Name → float32 CPU tensor: `<prefix>.<parameter>.rows`, `.columns`, or for vectors and scalars `.whole`.

    Args:
        modules: prefix → module whose parameters the optimiser steps.
    """
    tensors: dict[str, Tensor] = {}
    for p, name in _names(modules).items():
        if "exp_avg_sq" not in optimizer.state.get(p, {}):
            continue
        v = optimizer.state[p]["exp_avg_sq"].detach().float().cpu()
        if v.ndim < 2:
            tensors[f"{name}.whole"] = v.clone()
        else:
            rows, columns = factored(v)
            tensors |= {f"{name}.rows": rows.contiguous(), f"{name}.columns": columns.contiguous()}
    return tensors


def unpack(
    optimizer: torch.optim.Optimizer, modules: Mapping[str, torch.nn.Module], tensors: Mapping[str, Tensor]
) -> int:
    """Puts what `pack` gave into an Adam that has not stepped yet; returns how many parameters got their moments.

    A parameter of another shape than then (a wider z) or without carried moments begins anew.
    """
    names, found = _names(modules), 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            name = names.get(p)
            whole, rows, columns = (tensors.get(f"{name}.{kind}") for kind in ("whole", "rows", "columns"))
            if whole is not None and whole.shape == p.shape:
                v = whole
            elif (
                rows is not None
                and columns is not None
                and p.ndim > 1
                and (len(rows), len(columns))
                == (
                    len(p),
                    p.numel() // len(p),
                )
            ):
                v = unfactored(rows, columns, p.shape)
            else:
                continue
            step_device = p.device if group.get("fused") or group.get("capturable") else torch.device("cpu")
            optimizer.state[p] = {
                "step": torch.tensor(SETTLED, device=step_device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p).copy_(v),  # in the parameter's own order of memory
            }
            found += 1
    return found
