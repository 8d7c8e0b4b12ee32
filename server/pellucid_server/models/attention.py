"""The weights of attention, recomputed: fused kernels return none."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .gates import OutOfPlace, Undefined


class Attention(OutOfPlace):
    """A forward pass under it leaves the weights of every attention, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: list[Tensor] = []

    def weights(self) -> Tensor:
        """n×layers×heads×tokens×tokens; row by row they sum to 1."""
        return torch.stack(self._weights, 1)

    def refusal(self, image_count: int, patches: tuple[int, int] | None) -> str | None:
        """Why rolling the weights out is not defined, if so."""
        if not self._weights:
            return "the network has no attention that can be seen"
        if patches is None:
            return "the network has no grid of patches"
        token_counts = {weights.shape[-1] for weights in self._weights}
        if any(len(w) != image_count for w in self._weights) or len(token_counts) > 1:
            return "the network's attention is not global: it looks at windows or scales"
        if len({weights.shape[1] for weights in self._weights}) > 1:
            return "the numbers of the network's attention heads differ"
        if token_counts.pop() <= patches[0] * patches[1]:
            return "the network has no class token to roll attention out from"
        return None

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is F.scaled_dot_product_attention:
            self._weights.append(_of_heads(*args, **kwargs))
        elif func is F.multi_head_attention_forward:
            self._weights.append(_of_module(*args, **kwargs))
        return func(*args, **kwargs)


def _of_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """From queries and keys, n×heads×tokens×channels."""
    if attn_mask is not None or is_causal or enable_gqa or query.dim() != 4:
        raise Undefined("the network's attention is masked or grouped")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return (query @ key.transpose(-2, -1) * scale).softmax(-1)


def _of_module(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """From the inputs of nn.MultiheadAttention, tokens×n×channels."""
    if in_proj_weight is None or query is not key or kwargs.get("attn_mask") is not None:
        raise Undefined("the network's attention is masked, or looks at other tokens than its own")
    rows = 2 * embed_dim_to_check
    bias = None if in_proj_bias is None else in_proj_bias[:rows]
    projected = F.linear(query.transpose(0, 1), in_proj_weight[:rows], bias)
    queries, keys = (
        part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in projected.chunk(2, -1)
    )
    return _of_heads(queries, keys, keys)
