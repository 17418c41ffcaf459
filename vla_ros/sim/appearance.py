"""Puts the look of a scene into a model that is drawn: light, colours, textures, and where the cameras really are."""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from vla_ros.geometry.rotations import matrix_to_quat_xyzw, rotvec_to_matrix
from vla_ros.sim.content import SceneContent
from vla_ros.sim.look import Look, paint_pattern
from vla_ros.sim.objects import show
from vla_ros.sim.scene import CameraPlace, Scene
from vla_ros.types import FloatArray

# Radii of the balls from which the camera offsets are drawn: position m and rotation vector rad, uniformly.
FIXED_JITTER_M, FIXED_JITTER_RAD = 0.03, float(np.radians(2.0))
CARRIED_JITTER_M, CARRIED_JITTER_RAD = 0.003, float(np.radians(0.5))
_CAMERA_STREAM = 15
# The light that casts shadows stands off from here, so that its map of depths covers table and hand.
_LIT_MIDDLE_M, _LIGHT_DISTANCE_M = (0.45, 0.0), 1.5
# MuJoCo's cameras look along -z with y up, optical frames along z with y down.
_R_CAM_MJCAM = np.diag([1.0, -1.0, -1.0])


def camera_pose(place: CameraPlace, name: str, content: SceneContent) -> FloatArray:
    """T_parent_cam (4, 4): where a camera's optical frame truly is in the link that carries it."""
    T_parent_cam = place.T_parent_cam.copy()
    if place.is_fixed:
        T_parent_cam[:3, 3] += place.R_base_parent.T @ np.array(content.camera_offset_m)
    if not content.has_camera_jitter:
        return T_parent_cam
    offset, R_cam_turned = _jitter(content.seed, name, place.is_fixed)
    T_parent_cam[:3, 3] += offset
    T_parent_cam[:3, :3] = T_parent_cam[:3, :3] @ R_cam_turned
    return T_parent_cam


@functools.lru_cache(maxsize=16)
def _jitter(seed: int, name: str, is_fixed: bool) -> tuple[FloatArray, FloatArray]:
    """Offset in the link that carries a camera, and how the camera is turned about itself."""
    rng = np.random.default_rng([_CAMERA_STREAM, seed, *name.encode()])
    reach_m, reach_rad = (FIXED_JITTER_M, FIXED_JITTER_RAD) if is_fixed else (CARRIED_JITTER_M, CARRIED_JITTER_RAD)
    offset = reach_m * _draw_in_ball(rng)
    return offset, rotvec_to_matrix(reach_rad * _draw_in_ball(rng))


def put_on(model: mujoco.MjModel, scene: Scene, content: SceneContent) -> tuple[int, ...]:
    """Writes a scene's look into a model of that cell which nothing else uses.

    Returns:
        The ids of the textures that changed, which are yet to be uploaded.
    """
    for name, place in scene.cameras.items():
        T_parent_mjcam = camera_pose(place, name, content)
        T_parent_mjcam[:3, :3] = T_parent_mjcam[:3, :3] @ _R_CAM_MJCAM
        camera = model.camera(name).id
        model.cam_pos[camera] = T_parent_mjcam[:3, 3]
        model.cam_quat[camera] = np.roll(matrix_to_quat_xyzw(T_parent_mjcam[:3, :3]), 1)
    if content.setting == "blocks" or content.look is None:
        return ()
    show(model, scene.slots, content)
    _light(model, scene, content.look)
    model.geom("floor").rgba[:3] = content.look.floor
    model.geom("mat_edge").rgba[:3] = content.look.mat_edge
    changed = []
    for name, pattern in (("table", content.look.table), ("mat", content.look.mat)):
        texture = model.tex(name)
        texture.data[:] = paint_pattern(pattern).reshape(texture.data.shape)
        changed.append(texture.id)
    return tuple(changed)


def _light(model: mujoco.MjModel, scene: Scene, look: Look) -> None:
    R_world_base = scene.T_world_base[:3, :3]
    p_world_middle = scene.T_world_base[:3, 3] + R_world_base @ np.array([*_LIT_MIDDLE_M, scene.rig.table_height_m])
    for light, direction, diffuse in ((0, look.light_direction, look.light), (1, look.fill_direction, look.fill)):
        model.light_dir[light] = R_world_base @ np.array(direction)
        model.light_pos[light] = p_world_middle - _LIGHT_DISTANCE_M * model.light_dir[light]
        model.light_diffuse[light] = diffuse
    model.light_castshadow[0] = look.has_shadows
    model.vis.headlight.ambient[:] = look.ambient
    model.vis.headlight.diffuse[:] = 0.0


def _draw_in_ball(rng: np.random.Generator) -> FloatArray:
    """A point uniformly drawn from the unit ball."""
    direction = rng.standard_normal(3)
    return np.asarray(direction / np.linalg.norm(direction) * rng.random() ** (1.0 / 3.0))
