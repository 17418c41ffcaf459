"""A small OpenVLA checkpoint with random weights, in the hub's layout and under the real names, for tests and figures.

It is exact in structure (registers, LayerScale, fused matrices, attention pool, padded vocabulary, tokenizer, sharding)
and small in width and depth. Its weights are scaled so that activations matter everywhere and action tokens win.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from vla_ros.policies.openvla.checkpoint import INDEX_FILE
from vla_ros.policies.openvla.config import TOWERS_KEY, LanguageConfig, ModelConfig, TowerConfig
from vla_ros.policies.openvla.weights import stored_tensors
from vla_ros.policies.representations.bins import BIN_COUNT

SMALL = ModelConfig(
    towers=(
        TowerConfig("dinov2", width=32, layers=3, heads=2, mlp_width=128, registers=4, image_px=56),
        TowerConfig("siglip", width=48, layers=3, heads=3, mlp_width=100, image_px=56),
    ),
    language=LanguageConfig(vocab_size=32064, width=64, mlp_width=112, layers=3, heads=4, key_value_heads=4),
    dtype="float32",
)
# As in Bridge: position, Euler angles, and a gripper that isn't normalised.
_BRIDGE = {
    "q01": [-0.0287, -0.0417, -0.0261, -0.0808, -0.0923, -0.2064, 0.0],
    "q99": [0.0283, 0.0409, 0.0402, 0.0819, 0.0779, 0.2038, 1.0],
    "mean": [0.0002, 0.0001, -0.0001, -0.0002, -0.0005, 0.0002, 0.5765],
    "std": [0.0098, 0.0137, 0.0127, 0.0286, 0.0306, 0.0773, 0.4973],
    "min": [-0.4007, -0.1388, -0.2255, -3.2010, -1.8619, -6.2792, 0.0],
    "max": [0.4169, 0.2503, 0.2121, 3.1220, 1.8618, 6.2720, 1.0],
    "mask": [True, True, True, True, True, True, False],
}
# Letters at the ids that Llama's tokenizer has them at, as far as it matters: "▁" is 29871, ":" 29901.
_LETTERS_FROM, _LETTERS = 29871, "▁etainorslhdcumpgfybw.vk,IO012:?x-zjq3456789'TSAWC"
_MERGES = (
    ("i", "n"),
    ("o", "n"),
    ("▁", "t"),
    ("▁t", "h"),
    ("▁th", "e"),
    ("▁", "r"),
    ("▁r", "o"),
    ("▁", "a"),
    ("▁", "b"),
)


def make_small_checkpoint(
    folder: Path | str, seed: int = 0, config: ModelConfig = SMALL, datasets: tuple[str, ...] = ("bridge_orig",)
) -> Path:
    """Writes a checkpoint that `checkpoint.read_checkpoint` and `policy` take.

    Args:
        folder: made if it isn't there.
        seed: of the weights.
        config: the structure; its vocabulary has to be padded from 32000.
        datasets: names that the statistics are given under.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(config, seed)
    _write(folder / "config.json", hub_config(config, datasets))
    _write(folder / "preprocessor_config.json", hub_preprocessor(config))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True})
    names = sorted(tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    weight_map: dict[str, str] = {}
    for i, half in enumerate(halves):
        file = f"model-{i + 1:05d}-of-{len(halves):05d}.safetensors"
        save_file({name: tensors[name] for name in half}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return folder


def make_small_adapter(
    folder: Path | str, seed: int = 0, config: ModelConfig = SMALL, rank: int = 4, layers: tuple[str, ...] | None = None
) -> Path:
    """Writes a LoRA adapter as OpenVLA's fine-tuning does: peft's files, the checkpoint's names, all linear layers.

    Args:
        folder: made if it isn't there.
        seed: of the weights.
        config: the structure of the model that it is for.
        rank: of the changes.
        layers: names of the layers; None for every linear one but `lm_head`.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    shapes = {name.removesuffix(".weight"): stored.shape for name, stored in stored_tensors(config).items()}
    if layers is None:
        layers = tuple(
            name for name, shape in shapes.items() if len(shape) == 2 and not name.endswith(("embed_tokens", "lm_head"))
        )
    tensors = {}
    for layer in layers:
        outputs, inputs = shapes[layer]
        at = f"base_model.model.{layer}"
        tensors[f"{at}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        tensors[f"{at}.lora_B.weight"] = 0.3 * torch.randn(outputs, rank, generator=generator) / rank**0.5
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none"}
    _write(folder / "adapter_config.json", settings | {"target_modules": "all-linear", "use_rslora": False})
    return folder


def random_tensors(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, by its stored name."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, stored in stored_tensors(config).items():
        values = torch.randn(stored.shape, generator=generator)
        if name.endswith("scale_factor") or (len(stored.shape) == 1 and name.endswith(".weight")):
            values = 1.0 + 0.3 * values
        elif len(stored.shape) == 1:
            values = 0.1 * values
        elif len(stored.shape) in (2, 4) and "embed_tokens" not in name:
            values = values / math.prod(stored.shape[1:]) ** 0.5
        tensors[name] = values
    # Loud rows, so that a random model says actions and nothing else.
    head = tensors["language_model.lm_head.weight"]
    head[config.action_vocabulary - BIN_COUNT : config.action_vocabulary] *= 8.0
    dtype = getattr(torch, config.dtype)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def hub_config(config: ModelConfig, datasets: tuple[str, ...]) -> dict[str, Any]:
    """config.json as OpenVLA's exporter writes it, and our key for other sizes than the published."""
    language = config.language
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "arch_specifier": "no-align+fused-gelu-mlp",
        "hf_llm_id": "meta-llama/Llama-2-7b-hf",
        "image_resize_strategy": "resize-naive",
        "image_sizes": [tower.image_px for tower in config.towers],
        "llm_backbone_id": "llama2-7b-pure",
        "llm_max_length": language.max_positions,
        "model_type": "openvla",
        "n_action_bins": BIN_COUNT,
        "norm_stats": {name: {"action": _BRIDGE, "num_transitions": 2135463} for name in datasets},
        "pad_to_multiple_of": config.padding,
        "pad_token_id": config.action_vocabulary,
        "text_config": {
            "model_type": "llama",
            "pad_token_id": config.action_vocabulary,
            "torch_dtype": config.dtype,
            "vocab_size": language.vocab_size,
            "hidden_size": language.width,
            "intermediate_size": language.mlp_width,
            "num_hidden_layers": language.layers,
            "num_attention_heads": language.heads,
            "num_key_value_heads": language.key_value_heads,
        },
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "timm_override_act_layers": [None, None],
        "torch_dtype": config.dtype,
        "transformers_version": "4.40.1",
        "use_fused_vision_backbone": True,
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        TOWERS_KEY: [dataclasses.asdict(tower) for tower in config.towers],
    }


def hub_preprocessor(config: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json with the published normalisations (ImageNet's as bfloat16 has it, and 0.5)."""
    sizes = [tower.image_px for tower in config.towers]
    normalisations = (
        ([0.484375, 0.455078125, 0.40625], [0.228515625, 0.2236328125, 0.224609375]),
        ([0.5] * 3, [0.5] * 3),
    )
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, size, size] for size in sizes],
        "interpolations": ["bicubic"] * len(sizes),
        "tvf_crop_params": [{"output_size": [size, size]} for size in sizes],
        "tvf_do_letterbox": False,
        "tvf_letterbox_fill": None,
        "tvf_normalize_params": [{"inplace": False, "mean": mean, "std": std} for mean, std in normalisations],
        "tvf_resize_params": [
            {"antialias": True, "interpolation": 3, "max_size": None, "size": [size, size]} for size in sizes
        ],
        "use_fused_vision_backbone": True,
    }


def make_tokenizer() -> Tokenizer:
    """A tokenizer laid out like Llama 2's: special tokens, bytes, words, single letters at the end, PAD at 32000."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {left + right: 259 + i for i, (left, right) in enumerate(_MERGES)}
    vocabulary |= {letter: _LETTERS_FROM + i for i, letter in enumerate(_LETTERS)}
    taken = set(vocabulary.values())
    vocabulary |= {f"<filler_{i}>": i for i in range(32000) if i not in taken}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(_MERGES), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    words = ("<unk>", "<s>", "</s>", "<PAD>")
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in words])
    return tokenizer


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
