"""OpenVLA's model against one written a second time, against timm, and against its own published structure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytest.importorskip("tokenizers")

from torch import Tensor

from vla_ros.errors import ConfigError
from vla_ros.policies.openvla.checkpoint import load_model, read_checkpoint
from vla_ros.policies.openvla.config import PUBLISHED_TOWERS, LanguageConfig, ModelConfig, parse_config
from vla_ros.policies.openvla.model import build_empty
from vla_ros.policies.openvla.small import SMALL, hub_config, make_small_checkpoint
from vla_ros.policies.openvla.weights import part_of, stored_tensors

IDS = [1, 29871, 29896, 29876, 500, 31000, 263, 29871]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_checkpoint(tmp_path_factory.mktemp("openvla"), seed=3)


def random_pixels(count: int = 1, edge_px: int = 56) -> Tensor:
    return torch.randn(count, 6, edge_px, edge_px, generator=torch.Generator().manual_seed(1))


class Reference:
    """An OpenVLA written from the published formulas and on the stored names, without transformers' modules.

    Sources: Dosovitskiy et al. (arXiv 2010.11929); Darcet et al., registers (2309.16588); Touvron et al., LayerScale
    (2103.17239) and Llama 2 (2307.09288); Su et al., rotary embeddings (2104.09864); Zhang and Sennrich, RMSNorm
    (1910.07467).
    """

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.weights: dict[str, Tensor] = {}
        for file in folder.glob("*.safetensors"):
            self.weights |= {name: tensor.double() for name, tensor in safetensors_torch.load_file(file).items()}
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
            self.linear(f"{at}self_attn.{name}_proj", normed).reshape(len(x), heads, -1).transpose(0, 1)
            for name in "qkv"
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
    """(heads, tokens, width): entries i and i + width/2 turned by position * 10000^(-2i/width)."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * torch.cos(angles) - b * torch.sin(angles), b * torch.cos(angles) + a * torch.sin(angles)], -1)


def test_logits_equal_the_reference(folder: Path) -> None:
    pixels = random_pixels()
    wanted = Reference(folder).logits(pixels[0], IDS)
    model = load_model(read_checkpoint(folder))
    # Single precision has 1.2e-7 an operation; the largest logits are about 30.
    assert torch.max(torch.abs(model(pixels, torch.tensor([IDS]))[0] - wanted)) < 1e-5 * wanted.abs().max()
    # In double precision what is left is RMSNorm and the angles of the embeddings, which transformers keeps single.
    exact = model.double()(pixels.double(), torch.tensor([IDS]))[0]
    torch.testing.assert_close(exact, wanted, rtol=0.0, atol=1e-5)


def test_vision_features_equal_the_reference_to_rounding(folder: Path) -> None:
    pixels = random_pixels().double()
    reference = Reference(folder)
    model = load_model(read_checkpoint(folder)).double()
    torch.testing.assert_close(model.vision_backbone(pixels)[0], reference.features(pixels[0]), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["featurizer.reg_token", "featurizer.blocks.0.ls2.scale_factor", "featurizer.cls_token"]
)
def test_features_hang_on_registers_layer_scale_and_cls(folder: Path, name: str) -> None:
    """Else the equality above would say nothing of them."""
    reference = Reference(folder)
    before = reference.features(random_pixels()[0].double())
    reference.weights[f"vision_backbone.{name}"] *= 1.1
    after = reference.features(random_pixels()[0].double())
    assert torch.max(torch.abs(after - before)) > 1e-3


def test_only_the_last_block_and_what_follows_it_is_unused(folder: Path) -> None:
    reference = Reference(folder)
    reference.logits(random_pixels()[0], IDS)
    unused = reference.weights.keys() - reference.used
    assert {name.split(".")[2] for name in unused} == {"blocks", "norm", "attn_pool"}
    assert all(".blocks.2." in name for name in unused if ".blocks." in name)


def test_generation_with_a_cache_equals_generation_without(folder: Path) -> None:
    model = load_model(read_checkpoint(folder))
    pixels, ids = random_pixels(3), torch.tensor([IDS, IDS[::-1], IDS])
    cached = model.generate(pixels, ids, 7)
    assert torch.equal(cached, model.generate(pixels, ids, 7, use_cache=False))
    # And both say what a step-by-step look at the whole sequence's logits says.
    tokens = ids
    for _ in range(7):
        tokens = torch.cat([tokens, model(pixels, tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(cached, tokens[:, ids.shape[1] :])


def test_a_picture_changes_what_is_said(folder: Path) -> None:
    model = load_model(read_checkpoint(folder))
    pixels = random_pixels(8)
    assert len(torch.unique(model.generate(pixels, torch.tensor([IDS] * 8), 7), dim=0)) > 1


@pytest.fixture(scope="module")
def published() -> ModelConfig:
    """From what openvla-7b's config.json says, and nothing of ours."""
    return parse_config(
        {
            "model_type": "openvla",
            "arch_specifier": "no-align+fused-gelu-mlp",
            "vision_backbone_id": "dinosiglip-vit-so-224px",
            "llm_backbone_id": "llama2-7b-pure",
            "image_resize_strategy": "resize-naive",
            "image_sizes": [224, 224],
            "use_fused_vision_backbone": True,
            "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
            "n_action_bins": 256,
            "pad_to_multiple_of": 64,
            "pad_token_id": 32000,
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "llama",
                "pad_token_id": 32000,
                "torch_dtype": "bfloat16",
                "vocab_size": 32064,
            },
        },
        "config.json",
    )


def test_published_config_gives_the_published_structure(published: ModelConfig) -> None:
    dinov2, siglip = published.towers
    assert (dinov2.width, dinov2.layers, dinov2.heads, dinov2.registers, dinov2.patches) == (1024, 24, 16, 4, 256)
    assert (siglip.width, siglip.layers, siglip.heads, siglip.mlp_width, siglip.patches) == (1152, 27, 16, 4304, 256)
    assert published.action_vocabulary == 32000
    shapes = {name: stored.shape for name, stored in stored_tensors(published).items()}
    v, f = "vision_backbone.featurizer.", "vision_backbone.fused_featurizer."
    expected = {
        f"{v}cls_token": (1, 1, 1024),
        f"{v}reg_token": (1, 4, 1024),
        f"{v}pos_embed": (1, 256, 1024),
        f"{v}patch_embed.proj.weight": (1024, 3, 14, 14),
        f"{v}blocks.23.attn.qkv.weight": (3072, 1024),
        f"{v}blocks.0.ls1.scale_factor": (1024,),
        f"{v}blocks.0.mlp.fc1.weight": (4096, 1024),
        f"{f}pos_embed": (1, 256, 1152),
        f"{f}blocks.26.attn.qkv.bias": (3456,),
        f"{f}blocks.26.mlp.fc2.weight": (1152, 4304),
        f"{f}attn_pool.kv.weight": (2304, 1152),
        "projector.fc1.weight": (8704, 2176),
        "projector.fc2.weight": (4096, 8704),
        "projector.fc3.bias": (4096,),
        "language_model.model.embed_tokens.weight": (32064, 4096),
        "language_model.model.layers.31.mlp.down_proj.weight": (4096, 11008),
        "language_model.lm_head.weight": (32064, 4096),
    }
    assert expected.items() <= shapes.items()
    assert not any(name.startswith((f"{v}blocks.24.", f"{f}blocks.27.")) for name in shapes)
    # The hub's page of openvla-7b: 7.54 billion parameters; metadata.total_size of its index is twice that in bytes.
    assert 2 * sum(math.prod(shape) for shape in shapes.values()) == 15_082_474_368


@pytest.mark.parametrize("size", ["published", "small"])
def test_stored_tensors_fill_every_parameter_once(published: ModelConfig, size: str) -> None:
    """Each parameter's elements are counted: filled by a stored tensor exactly once, but for two that are zeros."""
    config = published if size == "published" else SMALL
    parameters = build_empty(config, torch.bfloat16, "meta").state_dict()
    filled = dict.fromkeys(parameters, 0)
    for name, stored in stored_tensors(config).items():
        rows = sum((p.rows[1] - p.rows[0] if p.rows else stored.shape[0]) for p in stored.pieces)
        assert rows == stored.shape[0], name
        for piece in stored.pieces:
            place = part_of(parameters[piece.target], piece)
            part_shape = (rows // len(stored.pieces), *stored.shape[1:])
            assert place.numel() == math.prod(part_shape), name
            filled[piece.target] += place.numel()
    width = config.towers[0].width
    lacking = {
        name: parameters[name].numel() - count for name, count in filled.items() if parameters[name].numel() != count
    }
    embeddings = "vision_backbone.featurizer.embeddings."
    assert lacking == {f"{embeddings}mask_token": width, f"{embeddings}position_embeddings": width}


def build_timm(config: ModelConfig | None) -> list[Any]:
    """timm's two towers: of the published sizes on the meta device without a config, else small."""
    timm = pytest.importorskip("timm")
    if config is None:
        ids = ("vit_large_patch14_reg4_dinov2", "vit_so400m_patch14_siglip_224")
        with torch.device("meta"):
            return [timm.create_model(name, pretrained=False, num_classes=0, img_size=224) for name in ids]
    towers = []
    for tower in config.towers:
        is_dinov2 = tower.kind == "dinov2"
        extra = {"init_values": 1e-5, "reg_tokens": tower.registers, "no_embed_class": True} if is_dinov2 else {}
        towers.append(
            timm.models.vision_transformer.VisionTransformer(
                img_size=tower.image_px,
                patch_size=tower.patch_px,
                embed_dim=tower.width,
                depth=tower.layers,
                num_heads=tower.heads,
                mlp_ratio=tower.mlp_width / tower.width,
                class_token=is_dinov2,
                global_pool="token" if is_dinov2 else "map",
                num_classes=0,
                **extra,
            ).eval()
        )
    return towers


def test_names_and_shapes_are_timms(published: ModelConfig) -> None:
    found = {}
    for prefix, tower in zip(("featurizer", "fused_featurizer"), build_timm(None), strict=True):
        for name, tensor in tower.state_dict().items():
            stored = name.removesuffix("gamma") + "scale_factor" if name.endswith("gamma") else name
            found[f"vision_backbone.{prefix}.{stored}"] = tuple(tensor.shape)
    tensors = stored_tensors(published)
    assert found == {name: stored.shape for name, stored in tensors.items() if name.startswith("vision_backbone")}


def test_features_equal_timms(folder: Path) -> None:
    pixels, features = random_pixels(2), []
    weights = Reference(folder).weights
    for i, (prefix, tower) in enumerate(zip(("featurizer", "fused_featurizer"), build_timm(SMALL), strict=True)):
        at = f"vision_backbone.{prefix}."
        own = {name.removeprefix(at): tensor for name, tensor in weights.items() if name.startswith(at)}
        tower.double().load_state_dict({name.replace("scale_factor", "gamma"): tensor for name, tensor in own.items()})
        one = pixels[:, 3 * i : 3 * i + 3].double()
        (layer,) = tower.get_intermediate_layers(one, n={SMALL.towers[i].layers - 2})
        features.append(layer)
    model = load_model(read_checkpoint(folder)).double()
    torch.testing.assert_close(model.vision_backbone(pixels.double()), torch.cat(features, 2), rtol=0.0, atol=1e-10)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "prismatic"),
        ("vision_backbone_id", "clip-vit-l"),
        ("llm_backbone_id", "mistral-v0.1-7b-pure"),
        ("use_fused_vision_backbone", False),
        ("image_sizes", [225, 224]),
        ("n_action_bins", 128),
        ("text_config.tie_word_embeddings", True),
        ("text_config.rope_scaling", {"type": "linear", "factor": 2.0}),
    ],
)
def test_config_of_another_structure_is_refused_by_key(key: str, value: Any) -> None:
    data = hub_config(ModelConfig(PUBLISHED_TOWERS["dinosiglip-vit-so-224px"], LanguageConfig(vocab_size=32064)), ())
    parse_config(data, "config.json")
    place, _, inner = key.rpartition(".")
    (data[place] if place else data)[inner] = value
    with pytest.raises(ConfigError, match=inner):
        parse_config(data, "config.json")
