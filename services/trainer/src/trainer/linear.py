"""A linear layer that is fast on the CPU it finds, and that can multiply in bfloat16.

PyTorch multiplies float32 matrices with Intel's MKL, which leaves half of an AMD CPU with AVX-512 unused: one core of
a Zen 5 does 87 GFLOP/s with it and 180 GFLOP/s with oneDNN, which PyTorch carries too, at the same precision. An update
is mostly matrix products, so there they go to oneDNN. Everywhere else this is `torch.nn.Linear`.

bfloat16 is for the products alone, forward and backward (Kalamkar et al. 2019, arXiv:1905.12322): parameters, their
gradients, Adam's moments, normalisation, sums and losses stay float32. It has float32's range, so losses need no
scaling. Unlike `torch.autocast` it is a property of the layer: whatever follows one computes in float32 again.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_ONEDNN_SIZE = 128
"""Below this many inputs or outputs the call costs more than the product; measured at a batch of 256."""


@cache
def onednn_is_faster() -> bool:
    """Whether float32 products should go to oneDNN. Depends on the CPU alone, so that a restart computes the same."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` by oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class _OneDnnLinear(torch.autograd.Function):
    """``x @ weight.T + bias`` for x [B, in] and weight [out, in], with all three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        for_weight = for_bias = None
        if ctx.needs_input_grad[1]:
            for_weight = _product(gradient.t(), x.t())  # [out, B] @ [B, in]
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum(0)
        return for_x, for_weight, for_bias


class Linear(nn.Linear):
    """`torch.nn.Linear` for inputs [B, in], by whichever library is faster."""

    bf16 = False
    """Whether it multiplies in bfloat16; what it takes and gives is float32 all the same."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bf16:
            narrow = (tensor.to(torch.bfloat16) for tensor in (x, self.weight, self.bias))
            return nn.functional.linear(*narrow).float()
        large = min(self.in_features, self.out_features) >= SMALLEST_ONEDNN_SIZE
        if large and x.ndim == 2 and x.device.type == "cpu" and x.dtype is torch.float32 and onednn_is_faster():
            result: Tensor = _OneDnnLinear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return result
        return nn.functional.linear(x, self.weight, self.bias)


def multiply_in_bf16(module: nn.Module) -> None:
    """Let every linear layer of `module` multiply in bfloat16."""
    for layer in module.modules():
        if isinstance(layer, Linear):
            layer.bf16 = True
