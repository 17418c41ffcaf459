"""What OpenVLA's weights in fewer bits cost: bytes, errors of logits and of actions, on small models of its structure.

Weights are random; a trained model's errors differ. The bytes of the published model come from its structure alone.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.policies.packages import packages_for

_IMAGES, _PROMPT_TOKENS = 24, 8
_OURS = ("int8_tensor", "int8_channel", "int8_group", "int4_tensor", "int4_channel", "int4_group", "nf4")


def run(options: Options) -> Result:
    """Measures `int8_logit_error` and `nf4_over_int4_tensor`, and all schemes in the details."""
    with packages_for("the comparison of quantised weights"):
        import torch

        from vla_ros.policies.openvla.checkpoint import load_model, read_checkpoint
        from vla_ros.policies.openvla.comparison import QuantisationFigures, compare_quantisations
        from vla_ros.policies.openvla.small import make_small_checkpoint
    generator = torch.Generator().manual_seed(options.seed)
    config = _config()
    size = config.towers[0].image_px
    pixels = torch.randn(_IMAGES, 6, size, size, generator=generator)
    prompts = torch.randint(300, 31000, (_IMAGES, _PROMPT_TOKENS), generator=generator)
    models = 1 if options.is_quick else 4
    found: dict[str, list[QuantisationFigures]] = {}
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        for number in range(models):
            options.progress("quantisation", number / models)
            checkpoint = read_checkpoint(make_small_checkpoint(Path(name) / str(number), options.seed + number, config))
            for row in compare_quantisations(functools.partial(load_model, checkpoint), pixels, prompts):
                found.setdefault(row.scheme, []).append(row)
    published = _published_bytes()
    errors = {scheme: float(np.mean([row.logit_error for row in rows])) for scheme, rows in found.items()}
    details: dict[str, dict[str, Any]] = {}
    for scheme, rows in found.items():
        details[scheme] = {
            "bytes": rows[0].weight_bytes,
            "logit_error": errors[scheme],
            "action_error": float(np.mean([row.action_error for row in rows])),
            "same_tokens": float(np.mean([row.token_agreement for row in rows])),
            "published_model_gb": published.get(scheme, float("nan")) / 1e9,
        }
        if rows[0].refusal:
            details[scheme] = {"refusal": rows[0].refusal}
    figures = {
        "int8_logit_error": errors["int8_group"],
        "nf4_over_int4_tensor": errors["nf4"] / errors["int4_tensor"],
    }
    return Result(figures, {"models": models, "images": _IMAGES, "schemes": details})


def _config() -> Any:
    """OpenVLA's structure with few and narrow layers."""
    from vla_ros.policies.openvla.config import LanguageConfig, ModelConfig, TowerConfig

    towers = (
        TowerConfig("dinov2", width=128, layers=2, heads=2, mlp_width=256, registers=4, image_px=28),
        TowerConfig("siglip", width=128, layers=2, heads=2, mlp_width=320, image_px=28),
    )
    language = LanguageConfig(
        vocab_size=32064, width=192, mlp_width=384, layers=2, heads=3, key_value_heads=3
    )  # fmt: skip
    return ModelConfig(towers=towers, language=language, dtype="float32")


def _published_bytes() -> dict[str, int]:
    """Bytes of the published 7B model by scheme, in bfloat16 where it isn't quantised; nothing is allocated."""
    import torch

    from vla_ros.policies.openvla.config import PUBLISHED_TOWERS, LanguageConfig, ModelConfig
    from vla_ros.policies.openvla.model import build_empty
    from vla_ros.policies.openvla.quantisation import quantise, weight_bytes

    config = ModelConfig(PUBLISHED_TOWERS["dinosiglip-vit-so-224px"], LanguageConfig(vocab_size=32064))
    sizes = {"none": weight_bytes(build_empty(config, torch.bfloat16, "meta"))}
    for scheme in _OURS:
        sizes[scheme] = weight_bytes(quantise(build_empty(config, torch.bfloat16, "meta"), scheme))
    return sizes
