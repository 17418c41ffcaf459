"""Where a camera stands that doesn't stand where the rig says: off in a direction of the seed, and nobody is told."""

from __future__ import annotations

import numpy as np

from vla_ros.types import FloatArray

_STREAM = 0xCA3


def draw_direction(seed: int) -> FloatArray:
    """(3,) unit vector, uniform on the sphere, of a stream of its own."""
    vector = np.random.default_rng([seed, _STREAM]).standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))
