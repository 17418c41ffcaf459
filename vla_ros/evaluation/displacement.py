"""A camera that doesn't stand where the rig says: moved in the simulated scene, unknown to everybody who looks."""

from __future__ import annotations

import numpy as np

from vla_ros.contract import Rig
from vla_ros.sim.scene import Scene
from vla_ros.types import FloatArray

MOVED = "base"
"""The camera that is moved."""


def draw_direction(seed: int) -> FloatArray:
    """(3,) unit vector, uniform on the sphere, of a stream of its own."""
    vector = np.random.default_rng([seed, 0xCA3]).standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def displace_camera(scene: Scene, rig: Rig, offset_m: float, seed: int) -> None:
    """Moves the base camera from where the scene has it after a reset, without turning it.

    Args:
        scene: whose model is changed, until `World.reset` or another call.
        rig: the cell.
        offset_m: how far.
        seed: of the direction.
    """
    if offset_m == 0.0 or MOVED not in rig.cameras:
        return
    camera = scene.model.camera(MOVED)
    camera.pos[:] = np.array(rig.cameras[MOVED].mount.position_m) + offset_m * draw_direction(seed)
