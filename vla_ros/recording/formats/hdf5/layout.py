"""Where robomimic looks for what: a file's groups, datasets and attributes, and which of our columns each is.

Source: robomimic, "Dataset Contents and Overview" and `robomimic/utils/dataset.py`. Below `data/demo_N`:

    actions, rewards, dones     the frames', and attribute `num_samples`
    obs/state, obs/tcp_pose     what was measured; a column `observation.X` is obs/X
    obs/<name>_image            (frames, height, width, 3) uint8, a chunk an image
    columns/<name>, tasks       what robomimic has no place for; its tools pass over it

Attributes of ours: `data`: `vla_ros_schema`; `demo_N`: `name` and `attributes` (JSON).
"""

from __future__ import annotations

import json
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import ACTION, IMAGES, JOINT_POSITIONS, STATE, TCP_POSE, Schema

DATA, MASK = "data", "mask"
TASKS = "tasks"
SCHEMA_ATTRIBUTE = "vla_ros_schema"
OBSERVATION = "observation."
IMAGE_ENDING = "_image"
REWARD, DONE = "reward", "done"
"""Columns of public datasets; ours have none, and the writer says what the outcome tells."""

_PATHS = {
    ACTION: "actions",
    REWARD: "rewards",
    DONE: "dones",
    "states": "states",
    STATE: "obs/state",
    TCP_POSE: "obs/tcp_pose",
    JOINT_POSITIONS: "obs/joint_positions",
}


def path_of(name: str) -> str:
    """Where a column or an image stands in a demo."""
    if name in _PATHS:
        return _PATHS[name]
    if name.startswith(IMAGES):
        return f"obs/{name.removeprefix(IMAGES)}{IMAGE_ENDING}"
    return f"obs/{name.removeprefix(OBSERVATION)}" if name.startswith(OBSERVATION) else f"columns/{name}"


def name_of(path: str) -> str:
    """Which column a public dataset's values are; images are told apart by who calls."""
    for name, known in _PATHS.items():
        if path == known and not path.startswith("obs/"):
            return name
    if path.startswith("obs/"):
        return OBSERVATION + path.removeprefix("obs/").replace("/", ".")
    return path.removeprefix("columns/").replace("/", ".")


def check_paths(schema: Schema, where: str) -> None:
    """Two columns can't stand in one place.

    Raises:
        DatasetError: naming them.
    """
    taken: dict[str, str] = {TASKS: "the tasks"}
    for name in [*(column.name for column in schema.columns), *(image.name for image in schema.images)]:
        path = path_of(name)
        if path in taken or not all(path.split("/")):
            other = taken.get(path, "nothing: a name can't begin or end with '/'")
            raise DatasetError(f"{where}: column {name!r} would stand in {path}, the place of {other}; rename it")
        taken[path] = name


def env_args(schema: Schema) -> str:
    """What robomimic wants to know of the environment. Of its types, 2 (gym) alone asks for no simulator of theirs."""
    settings: dict[str, Any] = {"control_freq": schema.fps, "robots": [schema.robot]}
    if schema.contract is not None:
        settings["contract"], settings["interface_hash"] = schema.contract.name, schema.contract.interface_hash
    return json.dumps({"env_name": schema.robot or "unknown", "type": 2, "env_kwargs": settings})
