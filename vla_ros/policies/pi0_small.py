"""A small pi0 checkpoint with random weights, saved through transformers, for tests and for trying things out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PI0Config, PI0ForConditionalGeneration, PreTrainedTokenizerFast

from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    Normalisation,
    NormalisationSpec,
    ObservationSpec,
    StateItem,
)
from vla_ros.policies.statistics_file import STATISTICS_FILE
from vla_ros.types import FloatArray

SIDE, PATCH, IMAGE_ID, STEPS, CHUNK, PADDED = 16, 8, 40, 4, 6, 10
STATE_MEAN, STATE_STD = np.linspace(-1.0, 1.0, 8), np.linspace(0.5, 2.0, 8)
ACTION_MEAN, ACTION_STD = np.linspace(2.0, 3.0, 7), np.linspace(0.1, 0.7, 7)
# The whole vocabulary, by id; a newline is one of its words.
WORDS = ("<unk>", "<bos>", "pick", "up", "the", "red", "blue", "block", "\n", "reach", "green", "push", "left")


def small_contract() -> Contract:
    """What the checkpoint sees and does: two images, pose and gripper in; moves relative to the observation out."""
    return Contract(
        "small",
        ObservationSpec(
            {"base": ImageSpec("base", SIDE, SIDE), "wrist": ImageSpec("wrist", SIDE, SIDE)},
            (StateItem("tcp_pose"), StateItem("gripper")),
            "base",
        ),
        ActionSpec("tool", "observation", 0.1, rotation="rotvec"),
        Normalisation(NormalisationSpec("mean_std"), NormalisationSpec("mean_std")),
    )


def make_small_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Writes a checkpoint that `pi0.Pi0Policy` takes.

    Args:
        folder: made if it isn't there.
        seed: of the weights.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = PI0ForConditionalGeneration(_config())
        # transformers starts with weights so small that images and words would hardly matter.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    splits = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    wrap: Any = PreTrainedTokenizerFast  # Its constructor has no annotations.
    wrap(tokenizer_object=tokenizer, bos_token="<bos>", unk_token="<unk>").save_pretrained(folder)
    write_statistics(folder)
    return folder


def write_statistics(folder: Path, state_width: int = 8, action_width: int = 7) -> None:
    """Writes statistics of made-up data, as wide as said."""
    content = {
        "state": _statistics(np.resize(STATE_MEAN, state_width), np.resize(STATE_STD, state_width)),
        "action": _statistics(np.resize(ACTION_MEAN, action_width), np.resize(ACTION_STD, action_width)),
    }
    (folder / STATISTICS_FILE).write_text(json.dumps(content), encoding="utf-8")


def _statistics(mean: FloatArray, std: FloatArray) -> dict[str, object]:
    low, high = (mean - std).tolist(), (mean + std).tolist()
    return {
        "mean": mean.tolist(), "std": std.tolist(), "minimum": low, "maximum": high, "q01": low, "q99": high,
        "mask": None, "count": 100,
    }  # fmt: skip


def _config() -> PI0Config:
    gemma = {
        "model_type": "gemma", "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 8,
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False,
    }  # fmt: skip
    return PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": {**gemma, "hidden_size": 16, "intermediate_size": 32, "vocab_size": 40},
            "vision_config": vision, "projection_dim": 16, "image_token_id": IMAGE_ID,
        },
        dit_config={**gemma, "hidden_size": 12, "intermediate_size": 24},
        chunk_size=CHUNK, max_state_dim=PADDED, max_action_dim=PADDED, num_inference_steps=STEPS,
    )  # fmt: skip
