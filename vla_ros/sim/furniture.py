"""What stands around the simulated robot: floor, table, work mat, pedestal, lights, and the three blocks."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_ros.geometry.rotations import matrix_to_quat_xyzw
from vla_ros.sim.look import TEXTURE_SIZE, TEXTURE_SPAN_M
from vla_ros.sim.placement import BLOCK_COLOURS, BLOCK_NAMES, BLOCK_SIZE_M, TaskArea
from vla_ros.types import FloatArray

HIDDEN_GROUP = 3
# Contact bits: the robot touches the world but never itself.
ROBOT_BIT, WORLD_BIT = 1, 2
BLOCK_MASS_KG = 0.05
BLOCK_RGBA = {
    "red": (0.83, 0.13, 0.11, 1.0),
    "green": (0.10, 0.62, 0.22, 1.0),
    "blue": (0.10, 0.28, 0.84, 1.0),
}
# Table top in base: near and far edge and half width, m. A table at the base's height or below carries the arm.
TABLE_X_M, TABLE_HALF_WIDTH_M, TABLE_THICKNESS_M = (-0.28, 0.86), 0.55, 0.04
_TABLE_X_BESIDE_M = 0.16  # Near edge of a higher table, which stands before the arm.
_FLOOR_BELOW_TABLE_M = 0.72
_MAT_MARGIN_M = 0.07

# All but the blocks is nearly colourless, so that a block's hue is the block's alone.
_TABLE = (0.80, 0.76, 0.70, 1.0)
_TABLE_LEG = (0.35, 0.36, 0.38, 1.0)
_MAT, _MAT_EDGE = (0.30, 0.32, 0.35, 1.0), (0.92, 0.92, 0.90, 1.0)
_STEEL = (0.45, 0.47, 0.50, 1.0)
_FLOOR, _SKY_HIGH, _SKY_LOW = (0.60, 0.62, 0.64), (0.62, 0.68, 0.74), (0.86, 0.88, 0.90)


def add_room(
    spec: mujoco.MjSpec, T_world_base: FloatArray, table_height_m: float, area: TaskArea, is_varied: bool
) -> None:
    """Adds table, pedestal, floor and lights.

    Args:
        spec: the model being built.
        T_world_base: (4, 4) robot base in MuJoCo's world.
        table_height_m: z of the table's top in base.
        area: what the mat lies under.
        is_varied: whether table and mat have textures, and a light casts shadows.
    """
    room = spec.worldbody.add_frame(pos=T_world_base[:3, 3], quat=np.roll(matrix_to_quat_xyzw(T_world_base[:3, :3]), 1))
    floor_m = table_height_m - _FLOOR_BELOW_TABLE_M

    def add_box(name: str, low: FloatArray, high: FloatArray, rgba: tuple[float, ...], is_solid: bool = False) -> None:
        geom = spec.worldbody.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(low + high) / 2.0,
            size=(high - low) / 2.0,
            rgba=rgba,
            contype=WORLD_BIT if is_solid else 0,
            conaffinity=WORLD_BIT | ROBOT_BIT if is_solid else 0,
        )
        geom.set_frame(room)

    x_low = TABLE_X_M[0] if table_height_m <= 0.0 else _TABLE_X_BESIDE_M
    low = np.array([x_low, -TABLE_HALF_WIDTH_M, table_height_m - TABLE_THICKNESS_M])
    high = np.array([TABLE_X_M[1], TABLE_HALF_WIDTH_M, table_height_m])
    add_box("table", low, high, _TABLE, is_solid=True)
    for i, (x, y) in enumerate(
        (x, y) for x in (low[0] + 0.05, high[0] - 0.05) for y in (low[1] + 0.05, high[1] - 0.05)
    ):
        foot = np.array([x - 0.025, y - 0.025, floor_m])
        add_box(f"table_leg{i}", foot, np.array([x + 0.025, y + 0.025, low[2]]), _TABLE_LEG)
    add_box("pedestal", np.array([-0.11, -0.11, floor_m]), np.array([0.11, 0.11, 0.0]), _TABLE_LEG)
    add_box("mounting_plate", np.array([-0.15, -0.13, -0.01]), np.array([0.12, 0.13, 0.004]), _STEEL)
    for name, margin_m, top_m, rgba in (
        ("mat_edge", _MAT_MARGIN_M, 0.0006, _MAT_EDGE),
        ("mat", _MAT_MARGIN_M - 0.005, 0.0012, _MAT),
    ):
        low = np.array([area.x_m[0] - margin_m, area.y_m[0] - margin_m, table_height_m - 0.001])
        high = np.array([area.x_m[1] + margin_m, area.y_m[1] + margin_m, table_height_m + top_m])
        add_box(name, low, high, rgba)
    floor = spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=[0.0, 0.0, floor_m],
        size=[4.0, 4.0, 0.1],
        rgba=(*_FLOOR, 1.0),
    )
    floor.contype, floor.conaffinity = WORLD_BIT, WORLD_BIT | ROBOT_BIT
    floor.set_frame(room)
    _add_lights(spec, room, is_varied)
    if is_varied:
        for name in ("table", "mat"):
            _add_texture(spec, name)


def add_blocks(spec: mujoco.MjSpec) -> None:
    """Adds the three blocks as free bodies; the world puts them in their places at a reset."""
    for colour, name in zip(BLOCK_COLOURS, BLOCK_NAMES, strict=True):
        body = spec.worldbody.add_body(name=name)
        body.add_freejoint(name=name)
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[BLOCK_SIZE_M / 2.0] * 3,
            mass=BLOCK_MASS_KG,
            rgba=BLOCK_RGBA[colour],
            contype=WORLD_BIT,
            conaffinity=WORLD_BIT | ROBOT_BIT,
            condim=4,
            friction=[0.8, 0.01, 0.0001],
        )


def _add_texture(spec: mujoco.MjSpec, name: str) -> None:
    """Gives a geom a texture of its name, to be painted for each scene."""
    spec.add_texture(
        name=name,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        width=TEXTURE_SIZE,
        height=TEXTURE_SIZE,
    )
    material = spec.add_material(name=name, texuniform=True, texrepeat=[1.0 / TEXTURE_SPAN_M] * 2)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    geom = spec.geom(name)
    geom.material, geom.rgba = name, [1.0] * 4


def _add_lights(spec: mujoco.MjSpec, room: mujoco.MjsFrame, has_shadows: bool) -> None:
    spec.visual.headlight.ambient = [0.46, 0.46, 0.46]
    spec.visual.headlight.diffuse = [0.16, 0.16, 0.16]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    lights = ((np.array([-0.35, 0.45, -1.0]), 0.40, has_shadows), (np.array([0.6, -0.5, -0.4]), 0.12, False))
    for direction, diffuse, casts_shadow in lights:
        light = spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=[0.5, 0.0, 2.0],
            dir=direction / np.linalg.norm(direction),
            diffuse=[diffuse] * 3,
            specular=[0.05] * 3,
            ambient=[0.0] * 3,
            castshadow=casts_shadow,
        )
        light.set_frame(room)
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=list(_SKY_HIGH),
        rgb2=list(_SKY_LOW),
        width=64,
        height=384,
    )
