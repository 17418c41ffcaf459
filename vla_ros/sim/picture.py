"""A flat picture in the simulated cell, on the table or in the gripper: a calibration board."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from vla_ros.errors import UnknownNameError
from vla_ros.geometry.rotations import matrix_to_quat_xyzw
from vla_ros.types import FloatArray, ImageArray

_NAME = "picture"
_THICKNESS_M = 0.001


@dataclass(frozen=True)
class Picture:
    """A picture on a sheet that nothing touches.

    Attributes:
        image: (h, w) uint8, gray.
        width_m: of the sheet; its height follows.
        link: that carries it.
        T_link_picture: (4, 4) pose of the sheet's upper left corner: x right, y down, z into the sheet.
    """

    image: ImageArray
    width_m: float
    link: str
    T_link_picture: FloatArray


def add_picture(spec: mujoco.MjSpec, picture: Picture) -> None:
    """Adds the sheet to the link that carries it.

    Raises:
        UnknownNameError: for a link that the description doesn't have.
    """
    body = spec.body(picture.link)
    if body is None:
        raise UnknownNameError("link", picture.link, [item.name for item in spec.bodies[1:]])
    height, width = picture.image.shape
    size_m = picture.width_m * np.array([1.0, height / width])
    spec.add_texture(
        name=_NAME,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        width=width,
        height=height,
    )
    material = spec.add_material(name=_NAME, texuniform=False, texrepeat=[1.0, 1.0], specular=0.0, shininess=0.0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = _NAME
    T = picture.T_link_picture
    # A box, since planes can't move; MuJoCo lays pictures along x and y, up is +y.
    middle = T[:3, 3] + T[:3, :3] @ np.array([*(size_m / 2.0), _THICKNESS_M / 2.0])
    R_link_box = np.asarray(T[:3, :3] @ np.diag([1.0, -1.0, -1.0]))
    body.add_geom(
        name=_NAME,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=middle,
        quat=np.roll(matrix_to_quat_xyzw(R_link_box), 1),
        size=[*(size_m / 2.0), _THICKNESS_M / 2.0],
        material=_NAME,
        contype=0,
        conaffinity=0,
        mass=0.0,
    )


def paint_picture(model: mujoco.MjModel, picture: Picture) -> None:
    """Puts the image on the sheet of a compiled model that nothing draws yet."""
    data = model.tex(_NAME).data
    data[:] = np.repeat(picture.image[:, :, None], 3, axis=2).reshape(data.shape)
