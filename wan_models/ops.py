"""The layers a model is built from when no other namespace of layers is given.

Every model takes `ops`, a namespace with Linear, Conv1d, Conv2d, Conv3d, LayerNorm, RMSNorm and Embedding, and builds
each weighted leaf from it. That is how the host's memory management, LoRA patching, fp8 and GGUF come in
without a line in any model. The layers here are torch's own, except that a weight of another dtype is cast
to the input's: official weights are often bfloat16 where the official code computes in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _like(param: Any, x: Tensor) -> Any:
    return param if param is None or param.dtype == x.dtype else param.to(x.dtype)


class Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, _like(self.weight, input), _like(self.bias, input))


class Conv1d(nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, _like(self.weight, input), _like(self.bias, input))


class Conv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, _like(self.weight, input), _like(self.bias, input))


class Conv3d(nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, _like(self.weight, input), _like(self.bias, input))


class LayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(
            input, self.normalized_shape, _like(self.weight, input), _like(self.bias, input), self.eps
        )


class RMSNorm(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, _like(self.weight, x), self.eps)


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # where a normal distribution would import torch's compiler, for seconds
            super().reset_parameters()

    def forward(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        """Rows of the table; cast to `out_dtype` where given (the host's Embedding takes the same argument)."""
        rows = super().forward(input)
        return rows if out_dtype is None else rows.to(out_dtype)
