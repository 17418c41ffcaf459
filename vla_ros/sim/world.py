"""The simulated cell in motion: commands in, measurements and ground truth out. One thread steps it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from vla_ros.contract import Rig
from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.geometry.rotations import matrix_to_quat_xyzw, rotvec_to_matrix
from vla_ros.geometry.se3 import invert, make_pose
from vla_ros.instruction import Instruction
from vla_ros.robots.config import RobotConfig
from vla_ros.sim.appearance import camera_pose
from vla_ros.sim.content import SceneContent, Setting, draw_content
from vla_ros.sim.objects import BODIES, Slot, assign, equip, parked_position
from vla_ros.sim.outside_forces import OutsideForces
from vla_ros.sim.picture import Picture
from vla_ros.sim.scene import Scene, build_scene
from vla_ros.sim.servo import ArmServo, GripperServo
from vla_ros.sim.tool_servo import ToolServo
from vla_ros.sim.trajectory import DesiredState
from vla_ros.types import FloatArray, RobotState


@dataclass(frozen=True)
class Snapshot:
    """What a renderer needs of a moment.

    Attributes:
        time_s: simulated time.
        qpos: MuJoCo's positions, a copy.
        content: what the scene is and how it looks.
    """

    time_s: float
    qpos: FloatArray
    content: SceneContent


class World:
    """A robot at its table. The same seed and commands give the same positions to the last bit."""

    content: SceneContent
    """What the scene is, since the last reset."""

    def __init__(
        self, robot: RobotConfig, rig: Rig, seed: int, setting: Setting = "blocks", picture: Picture | None = None
    ) -> None:
        """Builds the cell, with a picture in the place of things where one is given, and resets it to a seed.

        Raises:
            ConfigError, UnknownNameError: as `build_scene`.
        """
        self.scene: Scene = build_scene(robot, rig, setting, picture)
        self._data = mujoco.MjData(self.scene.model)
        self._slots: dict[str, Slot] = {}
        self._view = mujoco.MjData(self.scene.model)
        self._T_base_world = invert(self.scene.T_world_base)
        self._arm = ArmServo(self.scene)
        self._tool = ToolServo(self.scene, self._arm)
        self._gripper = GripperServo(self.scene, robot.gripper) if robot.gripper else None
        self._outside = OutsideForces(self.scene)
        self.reset(seed)

    def reset(
        self,
        seed: int,
        needed: Instruction | None = None,
        camera_offset_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Time zero: the arm at home and at rest, the gripper open, the things where the seed puts them.

        Args:
            seed: of the scene.
            needed: what the scene must allow, as `draw_content` has it.
            camera_offset_m: by how much the fixed cameras are moved, in base.

        Raises:
            ConfigError: as `draw_content`; nothing has changed then.
        """
        content = draw_content(seed, self.scene.setting, needed)
        if self.scene.has_picture:
            content = replace(content, objects=(), bowl=None, distractors=())
        self.reset_to(replace(content, camera_offset_m=camera_offset_m))

    def reset_to(self, content: SceneContent) -> None:
        """As `reset`, to a scene that was drawn before, and perhaps changed.

        Raises:
            ConfigError: if it is of another setting than this world.
        """
        scene, data = self.scene, self._data
        if content.setting != scene.setting:
            raise ConfigError("scene", f"is of the setting {content.setting}", f"this world's is {scene.setting}")
        self.content, self._slots = content, assign(scene.slots, content)
        if content.setting != "blocks":
            equip(scene.model, scene.slots, content)
        mujoco.mj_resetData(scene.model, data)
        home = np.array([joint.home_rad for joint in scene.robot.joints])
        data.qpos[scene.arm_qpos] = home
        self._arm.reset(home, content.servo_scale)
        self._tool.reset()
        if self._gripper:
            data.qpos[scene.finger_qpos] = self._gripper.positions(1.0)
            self._gripper.reset(1.0, content.finger_damping_scale)
        for slot in scene.slots.values():
            data.qpos[slot.qpos[:3]] = parked_position(slot)
        for thing in content.things:
            p = np.array([*thing.xy_m, scene.rig.table_height_m + BODIES[thing.shape].half_height_m])
            self._put(thing.name, make_pose(p, rotvec_to_matrix(np.array([0.0, 0.0, thing.yaw_rad]))))
        mujoco.mj_forward(scene.model, data)

    def place_arm(self, positions: FloatArray, opening: float | None = None) -> None:
        """Puts the arm somewhere at once, at rest and holding; time goes on and the things stay.

        Args:
            positions: (n,) rad, in the YAML's order.
            opening: of the gripper; None: as it is.

        Raises:
            ConfigError, LimitExceededError: as `set_joint_command` and `set_gripper_command`; nothing has moved then.
        """
        scene, data = self.scene, self._data
        if opening is not None:
            self.set_gripper_command(opening)
        self.set_joint_command(positions)
        data.qpos[scene.arm_qpos] = self._arm.command
        data.qvel[scene.arm_dof] = 0.0
        self._arm.reset(self._arm.command, self.content.servo_scale)
        if self._gripper and opening is not None:
            data.qpos[scene.finger_qpos] = self._gripper.positions(opening)
            data.qvel[scene.finger_dof] = 0.0
            self._gripper.reset(opening, self.content.finger_damping_scale)
        mujoco.mj_forward(scene.model, data)

    def place_object(self, name: str, T_base_object: FloatArray) -> None:
        """Puts a thing of the scene somewhere at once, at rest.

        Raises:
            UnknownNameError: if the scene has none of that name.
        """
        if name not in self._slots:
            raise UnknownNameError("object of the scene", name, self._slots)
        self._put(name, T_base_object)
        mujoco.mj_forward(self.scene.model, self._data)

    def _put(self, name: str, T_base_object: FloatArray) -> None:
        slot, T_world_object = self._slots[name], self.scene.T_world_base @ T_base_object
        self._data.qpos[slot.qpos[:3]] = T_world_object[:3, 3]
        self._data.qpos[slot.qpos[3:]] = np.roll(matrix_to_quat_xyzw(T_world_object[:3, :3]), 1)
        self._data.qvel[slot.dof] = 0.0

    @property
    def time_s(self) -> float:
        """Simulated time since the reset."""
        return float(self._data.time)

    def set_joint_command(self, positions: FloatArray) -> None:
        """Commands the arm: (n,) rad, in the YAML's order; held until the next one.

        Raises:
            ConfigError, LimitExceededError: as `ArmServo.set_command`; the command in force stays.
        """
        self._tool.reset()
        self._arm.set_command(positions)

    def set_joint_velocities(self, velocities: FloatArray, timeout_s: float | None) -> None:
        """Commands the arm: (n,) rad/s, until the next command, or for so long if none comes.

        Without a timeout the arm moves on, as with the forward controllers of ros2_control.

        Raises:
            ConfigError, LimitExceededError: as `ArmServo.set_velocities`; the command in force stays.
        """
        self._tool.reset()
        self._arm.set_velocities(velocities, math.inf if timeout_s is None else self.time_s + timeout_s)

    def set_joint_trajectory(self, times_s: list[float], points: DesiredState) -> float:
        """Commands the arm: a trajectory that replaces the one in force; none of its points, and the arm holds.

        Args:
            times_s: of the points, as simulated time.
            points: where the arm is wanted at these times.

        Returns:
            How far, rad, the desired positions of some joint jump at that.

        Raises:
            ConfigError, LimitExceededError: as `ArmServo.set_trajectory`; the command in force stays.
        """
        self._tool.reset()
        return self._arm.set_trajectory(self.time_s, times_s, points)

    def set_tool_command(self, T_base_tcp: FloatArray) -> None:
        """Commands the arm: a pose (4, 4) for its own controller to solve for; held until the next one.

        Raises:
            ConfigError: if it is no pose; the command in force stays.
        """
        self._tool.set_target(T_base_tcp)

    def set_tool_twist(self, twist: FloatArray, timeout_s: float) -> None:
        """Commands the arm: (6,) linear m/s and angular rad/s of the tcp in base axes, for so long if no other comes.

        Raises:
            ConfigError: if it isn't finite; the command in force stays.
        """
        self._tool.set_twist(twist, self.time_s + timeout_s)

    def set_gripper_command(self, opening: float) -> None:
        """Commands the gripper: 0 closed .. 1 open; held until the next one.

        Raises:
            ConfigError: if the robot has no gripper.
            LimitExceededError: if it isn't in [0, 1]; the command in force stays.
        """
        if self._gripper is None:
            raise ConfigError(f"robot {self.scene.robot.name}", "has no gripper", "send it no gripper commands")
        self._gripper.set_command(opening)

    def step(self, n: int = 1) -> None:
        """Advances by n physics steps of `TIMESTEP_S`."""
        model, data = self.scene.model, self._data
        for _ in range(n):
            mujoco.mj_step1(model, data)
            self._tool.step(data)
            self._arm.step(data)
            if self._gripper:
                self._gripper.step(data)
            mujoco.mj_step2(model, data)

    def robot_state(self, stamp_ns: int) -> RobotState:
        """The arm as its encoders see it, under the stamp given."""
        return RobotState(
            stamp_ns=stamp_ns,
            positions=self._data.qpos[self.scene.arm_qpos],
            velocities=self._data.qvel[self.scene.arm_dof],
            gripper_opening=self._gripper.measure(self._data) if self._gripper else None,
        )

    def outside_torques(self) -> FloatArray:
        """(n,) N m, what contacts exert on the arm's joints."""
        return self._outside.torques(self._data)

    def outside_wrench(self) -> FloatArray:
        """(6,) N and N m, the force and torque at the tcp, in base, that contacts amount to."""
        return self._outside.wrench(self._data)

    def object_poses(self) -> dict[str, FloatArray]:
        """Ground truth: name (`block_red`, `bowl`, ...) -> T_base_object (4, 4), the origin at the object's centre."""
        return {name: self._body_pose(slot.name) for name, slot in self._slots.items()}

    def truth(self) -> dict[str, FloatArray]:
        """All ground truth: name -> T_base_x (4, 4) of every object, of `tcp`, and of `camera/<name>`.

        A camera's is that of its optical frame as it truly is, which the rig only says within its jitter.
        """
        cameras = {f"camera/{name}": self._camera_pose(name) for name in self.scene.cameras}
        return {**self.object_poses(), "tcp": self.tcp_pose(), **cameras}

    def _camera_pose(self, name: str) -> FloatArray:
        T_base_parent = self._body_pose(self.scene.rig.cameras[name].mount.parent)
        return T_base_parent @ camera_pose(self.scene.cameras[name], name, self.content)

    def tcp_pose(self) -> FloatArray:
        """Ground truth: T_base_tcp (4, 4)."""
        return self.link_pose(self.scene.robot.tcp_frame)

    def link_pose(self, link: str) -> FloatArray:
        """Ground truth: T_base_link (4, 4) of any link of the description or object."""
        return self._body_pose(self._slots[link].name if link in self._slots else link)

    def _body_pose(self, name: str) -> FloatArray:
        # In a second MjData, so that looking can't change what is stepped.
        if self._view.time != self._data.time or not np.array_equal(self._view.qpos, self._data.qpos):
            self._view.time = self._data.time
            self._view.qpos[:] = self._data.qpos
            mujoco.mj_kinematics(self.scene.model, self._view)
        body = self._view.body(name)
        return np.asarray(self._T_base_world @ make_pose(body.xpos, body.xmat.reshape(3, 3)), dtype=np.float64)

    def snapshot(self) -> Snapshot:
        """This moment for `CameraRenderer`, in any thread."""
        return Snapshot(self.time_s, self._data.qpos.copy(), self.content)
