"""The simulated cell as a MuJoCo model: the robot's URDF with actuators, and around it table, blocks, cameras, lights.

MuJoCo's world is the URDF's root link; furniture is given in the robot's base frame and put there with `T_world_base`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_ros.contract import Rig, RigCamera
from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.geometry.rotations import matrix_to_quat_xyzw, rpy_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.robots.config import GripperConfig, RobotConfig
from vla_ros.robots.description import load_description
from vla_ros.sim.content import SETTINGS, Setting
from vla_ros.sim.furniture import HIDDEN_GROUP, ROBOT_BIT, add_blocks, add_room
from vla_ros.sim.objects import Slot, add_slots, find_slots
from vla_ros.sim.picture import Picture, add_picture, paint_picture
from vla_ros.sim.placement import TASK_AREA, VARIED_AREA
from vla_ros.types import FloatArray

TIMESTEP_S = 0.002
# Reflected rotor inertia, kg m^2 and kg: of the order of what gears reflect on arms and grippers of this size.
_ARM_ARMATURE, _FINGER_ARMATURE = 0.1, 0.1
# Contacts as stiff as the time step allows: with MuJoCo's defaults 40 N press the fingers 5 mm into a 50 g block, and a
# held block creeps by millimetres a second.
_CONTACT_SOLREF, _CONTACT_SOLIMP = [2.5 * TIMESTEP_S, 1.0], [0.95, 0.99, 0.001, 0.5, 2.0]
_FINGER_STIFFNESS_N_M, _FINGER_DAMPING_N_S_M = 3000.0, 60.0


# Where shadows are drawn, the number of triangles is what drawing costs.
_SHADOW_MAP, _SHADOW_REACH_M, _COARSE = 512, 1.0, (16, 5)


@dataclass(frozen=True)
class CameraPlace:
    """Where a rig says that a camera sits.

    Attributes:
        T_parent_cam: (4, 4) its optical frame in the link that carries it.
        is_fixed: whether that link never moves.
        R_base_parent: (3, 3) how the link is turned in base, where it is fixed; else as at MuJoCo's zero.
    """

    T_parent_cam: FloatArray
    is_fixed: bool
    R_base_parent: FloatArray


@dataclass(frozen=True)
class Scene:
    """A compiled cell, with the addresses of what the simulator reads and writes.

    Attributes:
        model: MuJoCo's model, for physics. The world writes masses and the like to it at a reset, in a varied setting;
            who draws it in another thread needs a copy.
        setting: which things it can hold.
        robot: the robot in it.
        rig: the rig in it.
        T_world_base: (4, 4) the robot's base frame in MuJoCo's world.
        arm_qpos: (n,) addresses of the arm's positions, in the YAML's order.
        arm_dof: (n,) addresses of their velocities.
        arm_ctrl: (n,) addresses of their torque commands.
        finger_qpos: addresses of the finger positions, empty without a gripper.
        finger_dof: addresses of their velocities.
        finger_ctrl: addresses of the finger position commands.
        slots: the bodies for the things on the table, by the bodies' names.
        cameras: the rig's cameras, by name.
        has_picture: whether a picture is in the place of the things on the table.
    """

    model: mujoco.MjModel
    setting: Setting
    robot: RobotConfig
    rig: Rig
    T_world_base: FloatArray
    arm_qpos: NDArray[np.int64]
    arm_dof: NDArray[np.int64]
    arm_ctrl: NDArray[np.int64]
    finger_qpos: NDArray[np.int64]
    finger_dof: NDArray[np.int64]
    finger_ctrl: NDArray[np.int64]
    slots: dict[str, Slot]
    cameras: Mapping[str, CameraPlace]
    has_picture: bool = False


def build_scene(robot: RobotConfig, rig: Rig, setting: Setting = "blocks", picture: Picture | None = None) -> Scene:
    """Builds the cell of a rig around a robot; with a picture, nothing will lie on the table.

    Raises:
        ConfigError: if MuJoCo can't read the robot's description, or the setting is unknown.
        UnknownNameError: for a joint, base link or camera parent that the description doesn't have.
    """
    if setting not in SETTINGS:
        raise ConfigError("setting of the scene", f"{setting!r} is none", f"choose one of {', '.join(SETTINGS)}")
    is_varied = setting != "blocks"
    spec = _load_robot(robot)
    T_world_base = _static_pose(spec, robot.base_frame)
    _set_options(spec, rig)
    _add_actuators(spec, robot)
    for name, camera in rig.cameras.items():
        _add_camera(spec, name, camera)
    add_room(spec, T_world_base, rig.table_height_m, VARIED_AREA if is_varied else TASK_AREA, is_varied)
    if is_varied:
        spec.visual.quality.numslices, spec.visual.quality.numstacks = _COARSE
        spec.visual.quality.shadowsize = _SHADOW_MAP
        spec.visual.map.shadowclip = _SHADOW_REACH_M / spec.stat.extent
        add_slots(spec)
    else:
        add_blocks(spec)
    if picture is not None:
        add_picture(spec, picture)
        for body in spec.bodies[1:]:
            body.gravcomp = 1.0  # What is parked stays there.
    for geom in spec.geoms:
        geom.solref, geom.solimp = _CONTACT_SOLREF, _CONTACT_SOLIMP
    model = spec.compile()
    if picture is not None:
        paint_picture(model, picture)

    fingers = robot.gripper.joints if robot.gripper else ()
    return Scene(
        model=model,
        setting=setting,
        robot=robot,
        rig=rig,
        T_world_base=T_world_base,
        arm_qpos=np.array([model.joint(name).qposadr[0] for name in robot.joint_names], dtype=np.int64),
        arm_dof=np.array([model.joint(name).dofadr[0] for name in robot.joint_names], dtype=np.int64),
        arm_ctrl=np.array([model.actuator(name).id for name in robot.joint_names], dtype=np.int64),
        finger_qpos=np.array([model.joint(name).qposadr[0] for name in fingers], dtype=np.int64),
        finger_dof=np.array([model.joint(name).dofadr[0] for name in fingers], dtype=np.int64),
        finger_ctrl=np.array([model.actuator(name).id for name in fingers], dtype=np.int64),
        slots=find_slots(model, setting),
        cameras=_camera_places(model, rig, T_world_base),
        has_picture=picture is not None,
    )


def _load_robot(robot: RobotConfig) -> mujoco.MjSpec:
    try:
        spec = mujoco.MjSpec.from_string(load_description(robot))
    except ValueError as error:
        problem = f"MuJoCo can't read it ({' '.join(str(error).split())})"
        raise ConfigError(str(robot.description_file), problem, "keep it to primitives and known tags") from error
    spec.compiler.fusestatic = False  # Else links without a joint vanish, the tcp's among them.
    spec.compiler.discardvisual = False
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
        is_drawn = any(geom.contype == 0 for geom in body.geoms)
        for geom in body.geoms:
            if geom.contype:
                geom.contype, geom.conaffinity = ROBOT_BIT, 0
                geom.group = HIDDEN_GROUP if is_drawn else geom.group
    return spec


def _static_pose(spec: mujoco.MjSpec, link: str) -> FloatArray:
    """Pose of a link that no joint moves, in MuJoCo's world."""
    _find(spec, "link", link)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return make_pose(data.body(link).xpos.copy(), data.body(link).xmat.reshape(3, 3).copy())


def _set_options(spec: mujoco.MjSpec, rig: Rig) -> None:
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    # Without shadows and multisampling software rendering is ten times as fast.
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.numslices = 24
    spec.visual.quality.numstacks = 12
    spec.visual.global_.offwidth = max((camera.width for camera in rig.cameras.values()), default=1)
    spec.visual.global_.offheight = max((camera.height for camera in rig.cameras.values()), default=1)
    spec.stat.extent = 1.5
    spec.visual.map.znear = 0.01


def _add_actuators(spec: mujoco.MjSpec, robot: RobotConfig) -> None:
    for name, effort_nm in zip(robot.joint_names, robot.effort_nm, strict=True):
        _find(spec, "joint", name).armature = _ARM_ARMATURE
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_motor()
        actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
        actuator.forcerange = np.array([-effort_nm, effort_nm])
    if robot.gripper is not None:
        _add_gripper(spec, robot.gripper)


def _add_gripper(spec: mujoco.MjSpec, gripper: GripperConfig) -> None:
    for name, closed, opened in zip(gripper.joints, gripper.closed, gripper.open, strict=True):
        joint = _find(spec, "joint", name)
        joint.armature = _FINGER_ARMATURE
        # Virtual work: half the width a finger, so a unit of the joint moves the pad by this many metres.
        pad_m = 0.5 * gripper.max_width_m / abs(opened - closed)
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=_FINGER_STIFFNESS_N_M * pad_m**2, kv=_FINGER_DAMPING_N_S_M * pad_m**2)
        actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
        actuator.forcerange = np.array([-1.0, 1.0]) * gripper.force_n * pad_m
        for geom in joint.parent.geoms:
            # Rubber pads: sliding, torsional and rolling friction.
            geom.condim, geom.friction = 4, np.array([1.5, 0.02, 0.0001])
    first, first_closed, first_open = gripper.joints[0], gripper.closed[0], gripper.open[0]
    for name, closed, opened in zip(gripper.joints[1:], gripper.closed[1:], gripper.open[1:], strict=True):
        # The fingers are geared together: q = offset + slope * q_first.
        slope = (opened - closed) / (first_open - first_closed)
        equality = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=name, name2=first)
        equality.objtype = mujoco.mjtObj.mjOBJ_JOINT
        equality.data[:5] = [closed - slope * first_closed, slope, 0.0, 0.0, 0.0]
        equality.solref = np.array([2.5 * TIMESTEP_S, 1.0])


def _add_camera(spec: mujoco.MjSpec, name: str, camera: RigCamera) -> None:
    # MuJoCo's cameras look along -z with y up, optical frames along z with y down.
    R_parent_mjcam = rpy_to_matrix(np.array(camera.mount.rpy_rad)) @ np.diag([1.0, -1.0, -1.0])
    _find(spec, "camera parent link", camera.mount.parent).add_camera(
        name=name,
        pos=np.array(camera.mount.position_m),
        quat=np.roll(matrix_to_quat_xyzw(R_parent_mjcam), 1),
        fovy=float(np.degrees(camera.fovy_rad)),
    )


def _camera_places(model: mujoco.MjModel, rig: Rig, T_world_base: FloatArray) -> dict[str, CameraPlace]:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    places = {}
    for name, camera in rig.cameras.items():
        body = model.body(camera.mount.parent).id
        places[name] = CameraPlace(
            make_pose(np.array(camera.mount.position_m), rpy_to_matrix(np.array(camera.mount.rpy_rad))),
            bool(model.body_weldid[body] == 0),
            T_world_base[:3, :3].T @ data.xmat[body].reshape(3, 3),
        )
    return places


def _find(spec: mujoco.MjSpec, kind: str, name: str) -> mujoco.MjsBody | mujoco.MjsJoint:
    found = spec.joint(name) if kind == "joint" else spec.body(name)
    if found is None:
        items = spec.joints if kind == "joint" else spec.bodies[1:]
        raise UnknownNameError(kind, name, [item.name for item in items])
    return found
