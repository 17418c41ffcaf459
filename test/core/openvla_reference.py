"""An OpenVLA written a second time, from the published formulas and on the stored names, without transformers.

Sources: Dosovitskiy et al. (arXiv 2010.11929); Darcet et al., registers (2309.16588); Touvron et al., LayerScale
(2103.17239) and Llama 2 (2307.09288); Su et al., rotary embeddings (2104.09864); Zhang and Sennrich, RMSNorm (1910.07467).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


class Reference:
    """Reads every safetensors file of a folder and computes logits one token, one head and one block at a time."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.weights: dict[str, Tensor] = {}
        for file in folder.glob("*.safetensors"):
            self.weights |= {name: tensor.double() for name, tensor in load_file(file).items()}
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(name)
        return self.weights[name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-6) * self[f"{name}.weight"] + self[f"{name}.bias"]

    def rms_norm(self, name: str, x: Tensor) -> Tensor:
        return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6) * self[f"{name}.weight"]

    def patches(self, at: str, image: Tensor) -> Tensor:
        """(3, h, w) to (patches, width), row by row: each patch flattened against the convolution's kernel."""
        kernel, size = self[f"{at}patch_embed.proj.weight"], 14
        rows = [
            kernel.flatten(1) @ image[:, y : y + size, x : x + size].flatten() + self[f"{at}patch_embed.proj.bias"]
            for y in range(0, image.shape[1], size)
            for x in range(0, image.shape[2], size)
        ]
        return torch.stack(rows)

    def vit_block(self, at: str, x: Tensor, heads: int) -> Tensor:
        fused = self.linear(f"{at}attn.qkv", self.layer_norm(f"{at}norm1", x))
        q, k, v = fused.reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)
        mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1) @ v
        x = x + self.scale(f"{at}ls1", self.linear(f"{at}attn.proj", mixed.transpose(0, 1).reshape(len(x), -1)))
        hidden = gelu(self.linear(f"{at}mlp.fc1", self.layer_norm(f"{at}norm2", x)))
        return x + self.scale(f"{at}ls2", self.linear(f"{at}mlp.fc2", hidden))

    def scale(self, at: str, x: Tensor) -> Tensor:
        return x * self[f"{at}.scale_factor"] if f"{at}.scale_factor" in self.weights else x

    def tower(self, at: str, image: Tensor, layers: int, heads: int) -> Tensor:
        """Features of the patches as the second-to-last block leaves them."""
        x = self.patches(at, image) + self[f"{at}pos_embed"][0]
        prefix = [self[f"{at}{name}"][0] for name in ("cls_token", "reg_token") if f"{at}{name}" in self.weights]
        count = sum(len(tokens) for tokens in prefix)
        x = torch.cat([*prefix, x])
        for i in range(layers - 1):
            x = self.vit_block(f"{at}blocks.{i}.", x, heads)
        return x[count:]

    def llama_block(self, at: str, x: Tensor, heads: int) -> Tensor:
        normed = self.rms_norm(f"{at}input_layernorm", x)
        q, k, v = (
            self.linear(f"{at}self_attn.{name}_proj", normed).reshape(len(x), heads, -1).transpose(0, 1) for name in "qkv"
        )
        scores = rotate(q) @ rotate(k).transpose(1, 2) / math.sqrt(q.shape[-1])
        scores = scores + torch.full((len(x), len(x)), -torch.inf, dtype=x.dtype).triu(1)
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(0, 1).reshape(len(x), -1)
        x = x + self.linear(f"{at}self_attn.o_proj", mixed)
        normed = self.rms_norm(f"{at}post_attention_layernorm", x)
        gate = self.linear(f"{at}mlp.gate_proj", normed)
        hidden = gate / (1 + torch.exp(-gate)) * self.linear(f"{at}mlp.up_proj", normed)
        return x + self.linear(f"{at}mlp.down_proj", hidden)

    def features(self, pixels: Tensor) -> Tensor:
        """(6, h, w) to the features of both towers side by side."""
        dinov2, siglip = self.config["vla_ros_vision_towers"]
        return torch.cat(
            [
                self.tower("vision_backbone.featurizer.", pixels[:3], dinov2["layers"], dinov2["heads"]),
                self.tower("vision_backbone.fused_featurizer.", pixels[3:], siglip["layers"], siglip["heads"]),
            ],
            dim=1,
        )

    def logits(self, pixels: Tensor, ids: list[int]) -> Tensor:
        """(6, h, w) and n ids to (patches + n, vocabulary)."""
        projected = self.linear("projector.fc1", self.features(pixels.double()))
        projected = self.linear("projector.fc3", gelu(self.linear("projector.fc2", gelu(projected))))
        words = self["language_model.model.embed_tokens.weight"][ids]
        x = torch.cat([words[:1], projected, words[1:]])
        text = self.config["text_config"]
        for i in range(text["num_hidden_layers"]):
            x = self.llama_block(f"language_model.model.layers.{i}.", x, text["num_attention_heads"])
        return self.linear("language_model.lm_head", self.rms_norm("language_model.model.norm", x))


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def rotate(x: Tensor) -> Tensor:
    """(heads, tokens, width): entries i and i + width/2 turned by position * 10000^(-2i/width), as Llama stores them."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * torch.cos(angles) - b * torch.sin(angles), b * torch.cos(angles) + a * torch.sin(angles)], -1)
