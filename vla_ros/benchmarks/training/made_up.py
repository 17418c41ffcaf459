"""Examples of the small VLA's contract with made-up content, in mapped files as the trainer's cache has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.config import build
from vla_ros.contract import action_width, load_contract, state_width
from vla_ros.instruction import VOCABULARY
from vla_ros.training.config import read_settings

SETTINGS = "small_vla"
"""What is trained: config/training/small_vla.yaml."""

JOINTS, EPISODE_FRAMES = 7, 50


def make_examples(folder: Path, frames: int, seed: int = 0) -> Any:
    """An `ExampleSet` of that many frames, whose images are files in a folder."""
    from vla_ros.training.examples import ExampleEpisode, ExamplePart, ExampleSet
    from vla_ros.training.truth import POSE_WIDTH, THINGS, Truth

    settings, _ = read_settings(SETTINGS, None, ())
    contract, horizon = load_contract(str(settings["contract"])), int(settings.get("horizon", 8))
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for name, spec in contract.observation.images.items():
        file = folder / f"{name}.npy"
        np.save(file, rng.integers(0, 256, (frames, 3, spec.height, spec.width), dtype=np.uint8))
        images[name] = np.lib.format.open_memmap(file, mode="r")
    cameras, things = len(images), len(THINGS)
    truth = Truth(
        rng.random((frames, cameras, things, 2)),
        np.ones((frames, cameras, things), dtype=bool),
        rng.standard_normal((frames, things, POSE_WIDTH)),
        np.ones((frames, things), dtype=bool),
    )
    episodes = tuple(
        ExampleEpisode(f"made up {first}", 0, first, min(EPISODE_FRAMES, frames - first))
        for first in range(0, frames, EPISODE_FRAMES)
    )
    width = action_width(contract.action, JOINTS)
    return ExampleSet(
        contract=contract,
        joints=JOINTS,
        parts=(ExamplePart(folder, 0, images),),
        episodes=episodes,
        tasks=("pick up the red block",),
        task_of=np.zeros(frames, dtype=np.int64),
        states=rng.standard_normal((frames, state_width(contract.observation, JOINTS))),
        actions=0.05 * rng.standard_normal((frames, horizon, width)).astype(np.float32),
        is_valid=np.ones((frames, horizon), dtype=bool),
        truth=truth,
        rows=np.arange(frames),
        left_out={},
    )


def make_network(examples: Any) -> Any:
    """The network that `SETTINGS` train on such examples."""
    from vla_ros.policies.architectures.base import architecture_class

    settings, where = read_settings(SETTINGS, None, ())
    kind = architecture_class(str(settings["policy"]))
    config = build(kind.config_class, settings.get("architecture") or {}, where)
    return kind(examples.model_spec(VOCABULARY, int(settings.get("max_words", 16))), config)
