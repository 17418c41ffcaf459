"""What the networks share: transformer blocks, positions, and the instruction as one vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.policies.architectures.spec import ModelSpec


def check_sizes(**sizes: float) -> None:
    """Raises ValueError for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} is below 1")


def check_attention(width: int, heads: int) -> None:
    """Raises ValueError for a width that heads and sine positions can't share."""
    if width < 4 or heads < 1 or width % 4 or width % heads:
        raise ValueError(f"width {width} isn't a multiple of 4 and of heads {heads}")


def sinusoids(position: Tensor, width: int) -> Tensor:
    """Sines and cosines of geometrically spaced frequencies: (...) to (..., width), positions about 1 apart.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=position.device) * (-math.log(1e4) / half))
    angle = position.float()[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention of (B, n, width) over (B, m, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.to_output = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask`: bool that broadcasts to (B, heads, n, m), True where x may look; it must see something."""
        key, value = self.to_key_value(memory).chunk(2, dim=-1)
        query, key, value = (self._split(part) for part in (self.to_query(x), key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Self-attention, attention over a memory if it has one, and a two-layer network, each on normalised input."""

    def __init__(self, width: int, heads: int, mlp_width: int, has_memory: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.memory_norm = nn.LayerNorm(width) if has_memory else None
        self.memory_attention = Attention(width, heads) if has_memory else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`mask` is of the self-attention, as in `Attention`."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        if self.memory_norm is not None and self.memory_attention is not None:
            x = x + self.dropout(self.memory_attention(self.memory_norm(x), memory))
        return x + self.dropout(self.mlp(x))


class InstructionEncoder(nn.Module):
    """Words (B, max_words) to one vector (B, width); their order counts."""

    def __init__(self, spec: ModelSpec, width: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(len(spec.vocabulary) + 1, width, padding_idx=0)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.block = TransformerBlock(width, heads, 2 * width)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.5)

    def forward(self, words: Tensor) -> Tensor:
        embedded = self.words(words) + sinusoids(torch.arange(words.shape[1], device=words.device), self.start.shape[0])
        x = torch.cat([self.start.expand(len(words), 1, -1), embedded], dim=1)
        # The start token is looked at, too, so that an empty instruction is no division by zero.
        is_word = F.pad(words > 0, (1, 0), value=True)
        return self.norm(self.block(x, mask=is_word[:, None, None, :])[:, 0])
