"""The names under which OpenVLA's checkpoints store weights, and where each goes in transformers' modules.

OpenVLA's towers are timm's: queries, keys and values are one fused matrix there and three here, LayerScale's `gamma`
is stored as `scale_factor`, and DINOv2's positions have no entry for the CLS token (timm folds it into the token).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vla_ros.policies.openvla.config import LanguageConfig, ModelConfig, TowerConfig


@dataclass(frozen=True)
class Piece:
    """A part of a stored tensor and the part of a parameter that it is.

    Attributes:
        target: name of the parameter in our model.
        rows: rows of the stored tensor, first and end; None for all of it.
        at: dimension of the parameter, first and end; None for all of it.
    """

    target: str
    rows: tuple[int, int] | None = None
    at: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the checkpoint: its shape there, and the pieces that make up all of it."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


# Parameters of ours, or parts of them, that timm's model doesn't have; zero is what makes the two equal.
_ZEROS = (
    Piece("vision_backbone.featurizer.embeddings.mask_token"),
    Piece("vision_backbone.featurizer.embeddings.position_embeddings", at=(1, 0, 1)),
)


def stored_tensors(config: ModelConfig) -> dict[str, StoredTensor]:
    """Every tensor that a checkpoint of this structure has, by its name there."""
    dinov2, siglip = config.towers
    entries = [
        *_dinov2(dinov2, "vision_backbone.featurizer."),
        *_siglip(siglip, "vision_backbone.fused_featurizer."),
        *_projector(config),
        *_llama(config.language),
    ]
    return dict(entries)


def fill(parameters: Mapping[str, Any], tensor: Any, stored: StoredTensor) -> None:
    """Copies a stored tensor to where its pieces go.

    Args:
        parameters: our model's state dict.
        tensor: as read from the file, of `stored.shape`.
        stored: what it is.
    """
    for piece in stored.pieces:
        part = tensor if piece.rows is None else tensor[piece.rows[0] : piece.rows[1]]
        place = part_of(parameters[piece.target], piece)
        place.copy_(part.reshape(place.shape))


def fill_zeros(parameters: Mapping[str, Any]) -> None:
    """Sets what the checkpoint can't know: see `_ZEROS`."""
    for piece in _ZEROS:
        part_of(parameters[piece.target], piece).zero_()


def part_of(parameter: Any, piece: Piece) -> Any:
    """The view of a parameter that a piece fills."""
    if piece.at is None:
        return parameter
    dimension, start, end = piece.at
    return parameter.narrow(dimension, start, end - start)


def stored_linears(config: ModelConfig) -> dict[str, tuple[tuple[str, tuple[int, int] | None], ...]]:
    """For each linear layer as the checkpoint names it: our layers that it became, with their rows of it.

    The attention pool, which is never computed, isn't among them where it is no layer of ours.
    """
    found = {}
    for name, stored in stored_tensors(config).items():
        if name.endswith("embed_tokens.weight"):
            continue
        is_layer = all(piece.target.endswith(".weight") and piece.at is None for piece in stored.pieces)
        if name.endswith(".weight") and len(stored.shape) == 2 and is_layer:
            found[name.removesuffix(".weight")] = tuple(
                (piece.target.removesuffix(".weight"), piece.rows) for piece in stored.pieces
            )
    return found


def unused_modules(config: ModelConfig) -> tuple[str, ...]:
    """Beginnings of the names of our modules that are loaded but never computed: each tower's last block, the pool."""
    dinov2, siglip = config.towers
    vision = "vision_backbone."
    return (
        f"{vision}featurizer.encoder.layer.{dinov2.layers - 1}.",
        f"{vision}fused_featurizer.encoder.layers.{siglip.layers - 1}.",
        f"{vision}fused_featurizer.head.",
    )


Entry = tuple[str, StoredTensor]


def _same(name: str, target: str, *shape: int) -> Entry:
    return name, StoredTensor(shape, (Piece(target),))


def _linear(name: str, target: str, rows: int, columns: int) -> Iterator[Entry]:
    yield _same(f"{name}.weight", f"{target}.weight", rows, columns)
    yield _same(f"{name}.bias", f"{target}.bias", rows)


def _norm(name: str, target: str, width: int) -> Iterator[Entry]:
    yield _same(f"{name}.weight", f"{target}.weight", width)
    yield _same(f"{name}.bias", f"{target}.bias", width)


def _fused_qkv(name: str, targets: tuple[str, str, str], width: int) -> Iterator[Entry]:
    for part, shape in (("weight", (3 * width, width)), ("bias", (3 * width,))):
        pieces = [Piece(f"{target}.{part}", rows=(i * width, (i + 1) * width)) for i, target in enumerate(targets)]
        yield f"{name}.{part}", StoredTensor(shape, tuple(pieces))


def _block(name: str, target: str, tower: TowerConfig, ours: Mapping[str, str]) -> Iterator[Entry]:
    """What the blocks of both towers have. `ours` names norms and attention as the tower's module does."""
    attention = f"{target}.{ours['attention']}"
    yield from _norm(f"{name}.norm1", f"{target}.{ours['norm1']}", tower.width)
    yield from _fused_qkv(
        f"{name}.attn.qkv", (f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"), tower.width
    )
    yield from _linear(f"{name}.attn.proj", f"{attention}.{ours['out']}", tower.width, tower.width)
    yield from _norm(f"{name}.norm2", f"{target}.{ours['norm2']}", tower.width)
    yield from _linear(f"{name}.mlp.fc1", f"{target}.mlp.fc1", tower.mlp_width, tower.width)
    yield from _linear(f"{name}.mlp.fc2", f"{target}.mlp.fc2", tower.width, tower.mlp_width)


def _dinov2(tower: TowerConfig, at: str) -> Iterator[Entry]:
    width, embeddings = tower.width, f"{at}embeddings."
    positions = Piece(f"{embeddings}position_embeddings", at=(1, 1, tower.patches + 1))
    yield _same(f"{at}cls_token", f"{embeddings}cls_token", 1, 1, width)
    yield _same(f"{at}reg_token", f"{embeddings}register_tokens", 1, tower.registers, width)
    yield f"{at}pos_embed", StoredTensor((1, tower.patches, width), (positions,))
    projection = f"{embeddings}patch_embeddings.projection"
    yield _same(f"{at}patch_embed.proj.weight", f"{projection}.weight", width, 3, tower.patch_px, tower.patch_px)
    yield _same(f"{at}patch_embed.proj.bias", f"{projection}.bias", width)
    ours = {"norm1": "norm1", "norm2": "norm2", "attention": "attention", "out": "o_proj"}
    for i in range(tower.layers):
        block, layer = f"{at}blocks.{i}", f"{at}encoder.layer.{i}"
        yield from _block(block, layer, tower, ours)
        yield _same(f"{block}.ls1.scale_factor", f"{layer}.layer_scale1.lambda1", width)
        yield _same(f"{block}.ls2.scale_factor", f"{layer}.layer_scale2.lambda1", width)
    yield from _norm(f"{at}norm", f"{at}layernorm", width)


def _siglip(tower: TowerConfig, at: str) -> Iterator[Entry]:
    width, embeddings = tower.width, f"{at}embeddings."
    yield f"{at}pos_embed", StoredTensor((1, tower.patches, width), (Piece(f"{embeddings}position_embedding.weight"),))
    projection = f"{embeddings}patch_embedding"
    yield _same(f"{at}patch_embed.proj.weight", f"{projection}.weight", width, 3, tower.patch_px, tower.patch_px)
    yield _same(f"{at}patch_embed.proj.bias", f"{projection}.bias", width)
    ours = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attention": "self_attn", "out": "out_proj"}
    for i in range(tower.layers):
        yield from _block(f"{at}blocks.{i}", f"{at}encoder.layers.{i}", tower, ours)
    yield from _norm(f"{at}norm", f"{at}post_layernorm", width)
    yield from _attention_pool(tower, f"{at}attn_pool", f"{at}head")


def _attention_pool(tower: TowerConfig, pool: str, head: str) -> Iterator[Entry]:
    """Stored though no action depends on it; it is kept so that a checkpoint can be written again whole."""
    width = tower.width
    yield _same(f"{pool}.latent", f"{head}.probe", 1, 1, width)
    for part, columns in (("weight", (width,)), ("bias", ())):
        target = f"{head}.attention.in_proj_{part}"
        yield f"{pool}.q.{part}", StoredTensor((width, *columns), (Piece(target, at=(0, 0, width)),))
        yield f"{pool}.kv.{part}", StoredTensor((2 * width, *columns), (Piece(target, at=(0, width, 3 * width)),))
    yield from _linear(f"{pool}.proj", f"{head}.attention.out_proj", width, width)
    yield from _norm(f"{pool}.norm", f"{head}.layernorm", width)
    yield from _linear(f"{pool}.mlp.fc1", f"{head}.mlp.fc1", tower.mlp_width, width)
    yield from _linear(f"{pool}.mlp.fc2", f"{head}.mlp.fc2", width, tower.mlp_width)


def _projector(config: ModelConfig) -> Iterator[Entry]:
    vision, language = config.vision_width, config.language.width
    for name, rows, columns in (
        ("fc1", 4 * vision, vision),
        ("fc2", language, 4 * vision),
        ("fc3", language, language),
    ):
        yield from _linear(f"projector.{name}", f"projector.{name}", rows, columns)


def _llama(language: LanguageConfig) -> Iterator[Entry]:
    """Stored under the names that transformers uses, too."""
    width, mlp, keys = language.width, language.mlp_width, language.key_value_heads * language.head_width
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (language.vocab_size, width)}
    for i in range(language.layers):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.q_proj": (width, width),
            f"{layer}.self_attn.k_proj": (keys, width),
            f"{layer}.self_attn.v_proj": (keys, width),
            f"{layer}.self_attn.o_proj": (width, width),
            f"{layer}.mlp.gate_proj": (mlp, width),
            f"{layer}.mlp.up_proj": (mlp, width),
            f"{layer}.mlp.down_proj": (width, mlp),
            f"{layer}.input_layernorm": (width,),
            f"{layer}.post_attention_layernorm": (width,),
        }
    shapes |= {"model.norm": (width,), "lm_head": (language.vocab_size, width)}
    for name, shape in shapes.items():
        yield _same(f"language_model.{name}.weight", f"language_model.{name}.weight", *shape)
