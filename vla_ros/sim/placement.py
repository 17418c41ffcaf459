"""Where the blocks lie: the task area, the same in every arm's base frame, and the draw that a seed stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_ros.instruction import Colour, Direction, Thing
from vla_ros.types import FloatArray

BLOCK_SIZE_M = 0.04
MIN_DISTANCE_M = 0.09


@dataclass(frozen=True)
class TaskArea:
    """Rectangle of base's xy plane for the blocks' centres: in every arm's reach, in the base camera's view."""

    x_m: tuple[float, float] = (0.36, 0.58)
    y_m: tuple[float, float] = (-0.20, 0.20)


TASK_AREA = TaskArea()
# Of the setting `varied`, which has more to hold.
VARIED_AREA = TaskArea((0.34, 0.60), (-0.25, 0.25))
# Unit vectors of the base's axes; forward is away from the robot.
AXES: dict[Direction, tuple[float, float]] = {
    "left": (0.0, 1.0),
    "right": (0.0, -1.0),
    "forward": (1.0, 0.0),
    "backward": (-1.0, 0.0),
}
# Of the setting `blocks`.
BLOCK_COLOURS: tuple[Colour, ...] = ("red", "green", "blue")
BLOCK_NAMES = tuple(Thing(colour).name for colour in BLOCK_COLOURS)


def draw_placements(seed: int) -> FloatArray:
    """The blocks' places for a seed, in the order of `BLOCK_NAMES`.

    Positions are uniform over all placements whose centres keep `MIN_DISTANCE_M`, yaw is uniform.

    Returns:
        (3, 3): x and y in base, m, and yaw, rad.
    """
    rng = np.random.default_rng(seed)
    low = np.array([TASK_AREA.x_m[0], TASK_AREA.y_m[0]])
    high = np.array([TASK_AREA.x_m[1], TASK_AREA.y_m[1]])
    while True:  # About two draws in three are accepted.
        xy = rng.uniform(low, high, size=(len(BLOCK_NAMES), 2))
        distances = np.linalg.norm(xy[:, None] - xy[None, :], axis=-1)
        if np.all(distances[np.triu_indices(len(xy), k=1)] >= MIN_DISTANCE_M):
            return np.column_stack([xy, rng.uniform(-np.pi, np.pi, size=len(xy))])
