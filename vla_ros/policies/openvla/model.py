"""OpenVLA's model: patches of one image, seen by DINOv2 and SigLIP, put after a Llama's first token.

Source: Kim et al., OpenVLA (arXiv 2406.09246), and Karamcheti et al., Prismatic VLMs (arXiv 2402.07865).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from vla_ros.policies.openvla.config import LanguageConfig, ModelConfig, TowerConfig

# timm's, for both towers.
_LAYER_NORM_EPSILON = 1e-6


class VisionBackbone(nn.Module):
    """Both towers on the same picture, their features side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dinov2, siglip = config.towers
        self._prefix_tokens = 1 + dinov2.registers
        self.featurizer = Dinov2WithRegistersModel(_dinov2_config(dinov2))
        self.fused_featurizer = SiglipVisionModel(_siglip_config(siglip))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 6, H, W), normalised for DINOv2 (3) and SigLIP (3), to (B, patches, sum of widths).

        The features are those that leave the second-to-last block, before any norm, without CLS and registers; the last
        block is therefore not computed.
        """
        for_dinov2, for_siglip = pixel_values[:, :3], pixel_values[:, 3:]
        hidden = self.featurizer.embeddings(for_dinov2)
        for layer in self.featurizer.encoder.layer[:-1]:
            hidden = layer(hidden)
        fused = self.fused_featurizer.embeddings(for_siglip)
        for layer in self.fused_featurizer.encoder.layers[:-1]:
            fused = layer(fused, None)
        return torch.cat([hidden[:, self._prefix_tokens :], fused], dim=2)


class Projector(nn.Module):
    """From vision features v to the Llama's width h: v -> 4v -> h -> h with GELU between."""

    def __init__(self, vision_width: int, language_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, 4 * vision_width)
        self.fc2 = nn.Linear(4 * vision_width, language_width)
        self.fc3 = nn.Linear(language_width, language_width)

    def forward(self, features: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.fc1(features))
        return self.fc3(nn.functional.gelu(self.fc2(hidden)))


class OpenVLA(nn.Module):
    """The whole of it. Parameters are as constructed; `checkpoint.load_model` fills them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(config.vision_width, config.language.width)
        self.language_model = LlamaForCausalLM(_llama_config(config.language))

    @property
    def device(self) -> torch.device:
        return self.language_model.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.model.norm.weight.dtype

    def embed(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """The Llama's input: the first token (BOS), the patches, the rest of the prompt.

        Args:
            pixel_values: (B, 6, H, W).
            input_ids: (B, n), BOS first.

        Returns:
            (B, patches + n, width).
        """
        patches = self.projector(self.vision_backbone(pixel_values.to(self.dtype)))
        words = self.language_model.model.embed_tokens(input_ids)
        return torch.cat([words[:, :1], patches, words[:, 1:]], dim=1)

    def hidden(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """(B, patches + n, width) what the head makes logits of, at every place. See `embed`.

        Of what follows a place nothing is seen there, so that prompts may be filled up at their ends.
        """
        embeddings = self.embed(pixel_values, input_ids)
        return self.language_model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """(B, patches + n, vocabulary) logits of the next token at every place. See `embed`."""
        return self.language_model(inputs_embeds=self.embed(pixel_values, input_ids), use_cache=False).logits

    @torch.inference_mode()
    def generate(self, pixel_values: Tensor, input_ids: Tensor, count: int, use_cache: bool = True) -> Tensor:
        """The likeliest next tokens, one by one.

        Args:
            pixel_values: (B, 6, H, W).
            input_ids: (B, n), prompts of one length.
            count: tokens to generate.
            use_cache: whether keys and values of what went before are kept; without, all is computed anew each time.

        Returns:
            (B, count) ids.
        """
        embeddings = self.embed(pixel_values, input_ids)
        cache = DynamicCache() if use_cache else None
        ids: list[Tensor] = []
        for _ in range(count):
            output = self.language_model(
                inputs_embeds=embeddings, past_key_values=cache, use_cache=use_cache, logits_to_keep=1
            )
            ids.append(output.logits[:, -1].argmax(dim=-1))
            word = self.language_model.model.embed_tokens(ids[-1][:, None])
            embeddings = word if use_cache else torch.cat([embeddings, word], dim=1)
        return torch.stack(ids, dim=1)


def build_empty(config: ModelConfig, dtype: torch.dtype, device: str) -> OpenVLA:
    """The module tree with memory for its parameters, whose values are whatever was there."""
    with torch.device("meta"):
        model = OpenVLA(config)
    model = model.to(dtype).eval().requires_grad_(False)
    if device == "meta":
        return model
    model.to_empty(device=device)
    # These are computed from the config, never stored.
    model.language_model.model.rotary_emb = LlamaRotaryEmbedding(_llama_config(config.language)).to(device)
    embeddings = model.vision_backbone.fused_featurizer.embeddings
    embeddings.position_ids.copy_(torch.arange(config.patches, device=device)[None])
    return model


def _dinov2_config(tower: TowerConfig) -> Dinov2WithRegistersConfig:
    return Dinov2WithRegistersConfig(
        hidden_size=tower.width,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        mlp_ratio=tower.mlp_width // tower.width,
        hidden_act="gelu",
        layer_norm_eps=_LAYER_NORM_EPSILON,
        image_size=tower.image_px,
        patch_size=tower.patch_px,
        num_register_tokens=tower.registers,
    )


def _siglip_config(tower: TowerConfig) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=tower.width,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        intermediate_size=tower.mlp_width,
        # timm's SigLIP has the exact GELU where the original one has the tanh form; OpenVLA was trained with timm's.
        hidden_act="gelu",
        layer_norm_eps=_LAYER_NORM_EPSILON,
        image_size=tower.image_px,
        patch_size=tower.patch_px,
    )


def _llama_config(language: LanguageConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=language.vocab_size,
        hidden_size=language.width,
        intermediate_size=language.mlp_width,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        num_key_value_heads=language.key_value_heads,
        rms_norm_eps=language.rms_norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": language.rope_theta},
        max_position_embeddings=language.max_positions,
    )
