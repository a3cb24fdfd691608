"""A linear layer with 8-bit weights for CPUs: the same arithmetic in training and in evaluation."""

from __future__ import annotations

from typing import Any

from bitsandbytes.autograd._functions import matmul
from bitsandbytes.nn.modules import Linear8bitLt
from torch import Tensor


class WeightOnlyLinear8bit(Linear8bitLt):
    """bitsandbytes' layer, which on CPUs computes otherwise in evaluation than in training.

    In training it multiplies by the weights as they are read back from 8 bit. In evaluation it would also round the
    activations (LLM.int8(), Dettmers et al. 2022), all but columns in which any row of the *batch* has a value above a
    threshold, so that the logits of a text would depend on its neighbours. A GPU has a fast product of bytes to win by
    that; a CPU has not. Here evaluation computes as training does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, [..., outputs]; the weights are read back for this call only, also in the backward pass."""
        layer: Any = self
        # peft's DoRA puts a new parameter in place of the weight in each forward pass on a CPU, without its scales.
        if layer.weight.CB is not None and layer.weight.SCB is not None:
            layer.init_8bit_state()
        layer.state.is_training = True
        bias = self.bias.to(x.dtype) if self.bias is not None else None
        product: Tensor = matmul(x, self.weight, bias=bias, state=self.state)
        return product
