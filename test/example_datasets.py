"""Small LeRobot datasets to learn from, written by our own writer; what is in them is a formula that tests know."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    Normalisation,
    NormalisationSpec,
    ObservationSpec,
    StateItem,
)  # fmt: skip
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.rotation_forms import FROM_MATRIX
from vla_ros.recording.dataset import Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.formats import lerobot
from vla_ros.types import FloatArray, ImageArray

HEIGHT, WIDTH, PERIOD_S, JOINTS = 32, 48, 0.1, 7
CONTRACT = Contract(
    "little",
    ObservationSpec(
        {"base": ImageSpec("base", 24, 16), "wrist": ImageSpec("wrist", 24, 16)},
        (StateItem("tcp_pose", "rot6d"), StateItem("gripper"), StateItem("gripper_command")),
        "base",
    ),
    ActionSpec("tool", "observation", PERIOD_S, rotation="rotvec"),
    Normalisation(NormalisationSpec("mean_std"), NormalisationSpec("mean_std")),
)
FLAGS = ("is_intervention", "is_filtered", "is_held", "is_padding")


def with_action(contract: Contract, **changes: Any) -> Contract:
    return replace(contract, action=replace(contract.action, **changes))


def make_poses(seed: int, frames: int) -> FloatArray:
    """(frames, 4, 4) of a tool that points down, more or less, and wanders about."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.normal(scale=(0.01, 0.01, 0.01), size=(frames, 3)), axis=0)
    turns = np.cumsum(rng.normal(scale=0.05, size=(frames, 3)), axis=0)
    down = np.diag([1.0, -1.0, -1.0])
    return se3.make_pose(steps + np.array([0.4, 0.0, 0.3]), rotations.rotvec_to_matrix(turns) @ down)


def pose_values(poses: FloatArray) -> FloatArray:
    """(frames, 7) position and quaternion that goes on without changing sides."""
    quats = rotations.matrix_to_quat_xyzw(poses[:, :3, :3])
    for before, after in itertools.pairwise(quats):
        if before @ after < 0.0:
            after *= -1.0
    return np.concatenate([poses[:, :3, 3], quats], axis=1)


def make_image(seed: int, frame: int, bright: float) -> ImageArray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = bright + 3.0 * (seed % 8) + 4.0 * frame + 1.1 * x + 0.7 * y
    return np.clip(np.stack([ramp, 200.0 - 0.5 * ramp, 0.5 * ramp], axis=-1), 0, 255).astype(np.uint8)


def make_episode(
    seed: int, frames: int, *, changes: Mapping[str, Any] | None = None, tasks: Sequence[str] | None = None
) -> EpisodeFrames:
    """An episode of `CONTRACT`; `changes` replaces columns."""
    rng = np.random.default_rng([seed, 7])
    measured, targets = make_poses(seed, frames), make_poses(seed + 1000, frames)
    openings, commanded, wanted = rng.random((3, frames, 1))
    rot6d = FROM_MATRIX["rot6d"](measured[:, :3, :3])
    columns: dict[str, Any] = {
        "observation.state": np.concatenate([measured[:, :3, 3], rot6d, openings, commanded], 1).astype(np.float32),
        "action": np.concatenate([pose_values(targets), wanted], axis=1).astype(np.float32),
        "tcp_pose": pose_values(measured),
        "joint_positions": rng.normal(size=(frames, JOINTS)),
        "source": np.full((frames, 1), "expert", dtype=object),
        **{name: np.zeros((frames, 1), dtype=bool) for name in FLAGS},
        **(changes or {}),
    }

    def read_images() -> Iterator[tuple[str, int, ImageArray]]:
        for frame in range(frames):
            yield "observation.images.base", frame, make_image(seed, frame, 40.0)
            yield "observation.images.wrist", frame, make_image(seed, frame, 10.0)

    said = tuple(tasks or ["pick up the red block"] * frames)
    return EpisodeFrames(f"take {seed}", columns, said, read_images, {"outcome": "success"})


def schema_of(episode: EpisodeFrames, contract: Contract | None = CONTRACT) -> Schema:
    columns = tuple(
        Column(name, "string" if values.dtype == object else values.dtype.name, values.shape[1:])  # type: ignore[arg-type]
        for name, values in episode.columns.items()
    )
    images = tuple(
        ImageColumn(f"observation.images.{name}", HEIGHT, WIDTH, name if contract else "") for name in ("base", "wrist")
    )
    return Schema(1.0 / PERIOD_S, "panda", columns, images, contract)


def write_dataset(folder: Path, episodes: Sequence[EpisodeFrames], contract: Contract | None = CONTRACT) -> Path:
    with lerobot.create(folder, schema_of(episodes[0], contract), {"crf": 12}) as writer:
        for episode in episodes:
            writer.add(episode)
    return folder


def red_dot(x: float, y: float) -> ImageArray:
    """An image with a dot about a point, (0, 0) upper left to (1, 1) lower right."""
    image = np.zeros((HEIGHT * 4, WIDTH * 4, 3), dtype=np.uint8)
    centre = (round(x * WIDTH * 4 - 0.5), round(y * HEIGHT * 4 - 0.5))
    return np.asarray(cv2.circle(image, centre, 5, (255, 0, 0), -1), dtype=np.uint8)
