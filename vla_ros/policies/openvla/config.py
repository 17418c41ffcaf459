"""What a checkpoint's config.json says of the model: two vision towers, a projector and a Llama."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vla_ros.config import build
from vla_ros.errors import ConfigError

# Key of config.json, ours, with which a checkpoint gives its towers other sizes than the published ones.
TOWERS_KEY = "vla_ros_vision_towers"
# What OpenVLA's exporter writes only where it differs: the defaults of transformers 4.40.1's LlamaConfig.
_LANGUAGE_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "key_value_heads",
    "rms_norm_eps": "rms_norm_epsilon",
    "rope_theta": "rope_theta",
    "max_position_embeddings": "max_positions",
}
# Keys with the only value that this model computes.
_FIXED = {
    "model_type": "openvla",
    "llm_backbone_id": "llama2-7b-pure",
    "use_fused_vision_backbone": True,
    "n_action_bins": 256,
}
_FIXED_LANGUAGE = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rope_scaling": None,
}


@dataclass(frozen=True)
class TowerConfig:
    """One vision transformer.

    Attributes:
        kind: `dinov2` with CLS, registers and LayerScale, or `siglip` with neither but an attention pool.
        width: of a token.
        layers: blocks; the last one isn't looked at.
        heads: of attention.
        mlp_width: hidden width of a block's MLP.
        registers: register tokens, 0 for SigLIP.
        image_px: edge of its square image.
        patch_px: edge of a patch.
    """

    kind: Literal["dinov2", "siglip"]
    width: int
    layers: int
    heads: int
    mlp_width: int
    registers: int = 0
    image_px: int = 224
    patch_px: int = 14

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} isn't a multiple of {self.heads} heads")
        if self.layers < 2:
            raise ValueError(f"{self.layers} layers: the features are those of the second-to-last")
        if self.kind == "dinov2" and self.mlp_width % self.width:
            raise ValueError(f"mlp_width {self.mlp_width} isn't a multiple of width {self.width}, as DINOv2's is")
        if self.image_px % self.patch_px:
            raise ValueError(f"image_px {self.image_px} isn't a multiple of patch_px {self.patch_px}")

    @property
    def patches(self) -> int:
        return (self.image_px // self.patch_px) ** 2


@dataclass(frozen=True)
class LanguageConfig:
    """The Llama; the defaults are Llama 2 7B's, as transformers 4.40.1 has them."""

    vocab_size: int = 32000
    width: int = 4096
    mlp_width: int = 11008
    layers: int = 32
    heads: int = 32
    key_value_heads: int = 32
    rms_norm_epsilon: float = 1e-6
    rope_theta: float = 10000.0
    max_positions: int = 2048

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.key_value_heads:
            raise ValueError(
                f"width {self.width}, heads {self.heads}, key_value_heads {self.key_value_heads} don't divide"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads


# Source: timm's vit_large_patch14_reg4_dinov2 and vit_so400m_patch14_siglip_224 (int(3.7362 * 1152) = 4304).
PUBLISHED_TOWERS: dict[str, tuple[TowerConfig, ...]] = {
    "dinosiglip-vit-so-224px": (
        TowerConfig("dinov2", width=1024, layers=24, heads=16, mlp_width=4096, registers=4),
        TowerConfig("siglip", width=1152, layers=27, heads=16, mlp_width=4304),
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """The whole model.

    Attributes:
        towers: DINOv2 first, SigLIP second: the order of the image's channels and of the features.
        language: the Llama.
        padding: entries that were added to the vocabulary to pad it; action ids end where they begin.
        dtype: of the stored weights, as torch names it.
    """

    towers: tuple[TowerConfig, ...]
    language: LanguageConfig
    padding: int = 64
    dtype: str = "bfloat16"

    @property
    def vision_width(self) -> int:
        return sum(tower.width for tower in self.towers)

    @property
    def patches(self) -> int:
        return self.towers[0].patches

    @property
    def action_vocabulary(self) -> int:
        """First id past the tokens of actions: 32000."""
        return self.language.vocab_size - self.padding


def parse_config(data: Mapping[str, Any], where: str) -> ModelConfig:
    """The model that a config.json describes.

    Args:
        data: the file's content.
        where: the file, for error texts.

    Raises:
        ConfigError: for a model of another structure; the text names the key.
    """
    _check_keys(data, where)
    text = data.get("text_config") or {}
    language = {ours: text[theirs] for theirs, ours in _LANGUAGE_KEYS.items() if text.get(theirs) is not None}
    if "heads" in language:
        language.setdefault("key_value_heads", language["heads"])
    extra = {ours: data[theirs] for theirs, ours in _EXTRA_KEYS.items() if theirs in data}
    config = ModelConfig(_parse_towers(data, where), build(LanguageConfig, language, f"{where}: text_config"), **extra)
    if len({tower.patches for tower in config.towers}) != 1:
        counts = [tower.patches for tower in config.towers]
        raise ConfigError(where, f"the towers see {counts} patches", "they have to see the same number")
    return config


_EXTRA_KEYS = {"pad_to_multiple_of": "padding", "torch_dtype": "dtype"}


def _check_keys(data: Mapping[str, Any], where: str) -> None:
    """Refuses what this model doesn't compute."""
    text = data.get("text_config") or {}
    fixed = [("", data, key, value) for key, value in _FIXED.items()]
    fixed += [("text_config.", text, key, value) for key, value in _FIXED_LANGUAGE.items()]
    for prefix, place, key, value in fixed:
        if place.get(key, value) != value:
            raise ConfigError(f"{where}: {prefix}{key}", f"is {place[key]!r}", f"only {value!r} is supported")


def _parse_towers(data: Mapping[str, Any], where: str) -> tuple[TowerConfig, ...]:
    name = str(data.get("vision_backbone_id"))
    if name not in PUBLISHED_TOWERS:
        known = ", ".join(PUBLISHED_TOWERS)
        raise ConfigError(f"{where}: vision_backbone_id", f"is {name!r}", f"supported: {known}")
    towers = PUBLISHED_TOWERS[name]
    if TOWERS_KEY in data:
        sizes = data[TOWERS_KEY]
        towers = tuple(build(TowerConfig, size, f"{where}: {TOWERS_KEY}[{i}]") for i, size in enumerate(sizes))
        if [tower.kind for tower in towers] != ["dinov2", "siglip"]:
            raise ConfigError(f"{where}: {TOWERS_KEY}", f"has {[t.kind for t in towers]}", "give dinov2, then siglip")
    edges_px = data.get("image_sizes", [tower.image_px for tower in towers])
    try:
        return tuple(dataclasses.replace(tower, image_px=px) for tower, px in zip(towers, edges_px, strict=True))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: image_sizes", f"{edges_px!r} doesn't fit ({error})", "fetch config.json again"
        ) from error
