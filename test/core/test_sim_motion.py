"""The simulated arm under a stream of commands: tracking, picking and pushing, judged by the tasks' own judges."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.contract import load_rig
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.geometry.se3 import interpolate, make_pose, pose_error
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.layout import PUSH_MARGIN_M
from vla_ros.sim.placement import TASK_AREA, VARIED_AREA
from vla_ros.sim.tasks import Judge, Task
from vla_ros.sim.world import World
from vla_ros.types import FloatArray

pytestmark = pytest.mark.sim

ROBOTS = ("panda", "ur5e", "fr3", "ur10e")
PERIOD_S, STEPS = 0.004, 2  # Commands at 250 Hz, physics at 500 Hz.


class Mover:
    """Streams joint commands for tcp poses, by plain Newton steps with pinocchio's Jacobian."""

    def __init__(self, robot: str, seed: int = 0) -> None:
        self.world = World(load_robot(robot), load_rig(f"{robot}_table"), seed)
        self.model = RobotModel.from_config(self.world.scene.robot)
        self.q = self.model.home.copy()
        self.T_base_target = self.model.forward_kinematics(self.q)
        self.judges: list[Judge] = []

    def solve(self, T_base_tcp: FloatArray, steps: int = 4) -> FloatArray:
        q = self.q.copy()
        for _ in range(steps):
            T, J = self.model.tcp_pose_and_jacobian(q)
            error = pose_error(T, T_base_tcp)
            q += J.T @ np.linalg.solve(J @ J.T + 1e-8 * np.eye(6), error)
        return q

    def command(self, T_base_tcp: FloatArray) -> None:
        self.T_base_target, self.q = T_base_tcp, self.solve(T_base_tcp)
        self.world.set_joint_command(self.q)
        self.wait(PERIOD_S)

    def wait(self, duration_s: float) -> None:
        for _ in range(round(duration_s / PERIOD_S)):
            self.world.step(STEPS)
            for judge in self.judges:
                opening = self.world.robot_state(0).gripper_opening
                judge.update(self.world.object_poses(), self.world.tcp_pose(), opening, self.world.time_s)

    def go(self, T_base_tcp: FloatArray, duration_s: float) -> None:
        """A minimum-jerk move."""
        T_start, n = self.T_base_target, round(duration_s / PERIOD_S)
        for k in range(1, n + 1):
            x = k / n
            self.command(interpolate(T_start, T_base_tcp, x**3 * (10.0 - 15.0 * x + 6.0 * x * x)))

    def watch(self, *instructions: str) -> list[Judge]:
        self.judges = [Judge(Task.parse(text), self.world.object_poses()) for text in instructions]
        return self.judges


def downwards(p_base_tcp: FloatArray, yaw_rad: float = 0.0) -> FloatArray:
    R = rotvec_to_matrix(np.array([0.0, 0.0, yaw_rad])) @ np.diag([1.0, -1.0, -1.0])
    return make_pose(np.asarray(p_base_tcp), R)


def outcome(judge: Judge, world: World) -> str:
    return judge.update(world.object_poses(), world.tcp_pose(), 0.0, world.time_s)


@pytest.mark.parametrize("robot", ROBOTS)
def test_tcp_follows_a_motion_of_300_mm_s_within_2_mm(robot: str) -> None:
    mover = Mover(robot)
    T_home, radius_m, speed_m_s = mover.T_base_target, 0.08, 0.3
    errors, speeds = [], []
    for k in range(500):
        # The angle starts from rest, half a second of ramp.
        t = k * PERIOD_S
        angle = speed_m_s / radius_m * (t - 0.25 if t > 0.5 else t * t)
        T = T_home.copy()
        T[:3, 3] += radius_m * np.array([np.sin(angle), 1.0 - np.cos(angle), 0.5 * np.cos(angle) - 0.5])
        # The arm is where the last command was to bring it, and the next one is due.
        errors.append(np.linalg.norm(mover.world.tcp_pose()[:3, 3] - T[:3, 3]))
        T_before = mover.world.tcp_pose()
        mover.command(T)
        speeds.append(np.linalg.norm(mover.world.tcp_pose()[:3, 3] - T_before[:3, 3]) / PERIOD_S)
    assert np.max(speeds) > 0.29
    assert np.max(errors) < 2e-3


def test_arm_comes_to_rest_at_the_last_command_when_commands_stop() -> None:
    mover = Mover("panda")
    home = mover.q
    for k in range(100):
        mover.world.set_joint_command(home + 0.4 * PERIOD_S * k)
        mover.world.step(STEPS)
    assert np.min(mover.world.robot_state(0).velocities) > 0.3
    positions = []
    for _ in range(100):
        mover.world.step(STEPS)
        positions.append(mover.world.robot_state(0).positions)
    final = home + 0.4 * PERIOD_S * 99
    # Braking from 0.4 rad/s without warning takes some millirad.
    assert np.max(np.abs(np.array(positions) - final)) < 0.015
    np.testing.assert_allclose(positions[-1], final, atol=1e-4)
    np.testing.assert_allclose(mover.world.robot_state(0).velocities, 0.0, atol=2e-3)


def test_staircase_of_commands_gives_smooth_motion() -> None:
    mover = Mover("panda")
    velocities = []
    for k in range(300):
        command = mover.model.home.copy()
        command[0] += 0.5 * PERIOD_S * k
        mover.world.set_joint_command(command)
        for _ in range(STEPS):
            mover.world.step()
            velocities.append(mover.world.robot_state(0).velocities[0])
    steady = np.array(velocities[300:])
    assert np.mean(steady) == pytest.approx(0.5, rel=0.005)
    # A servo that followed the steps themselves would move at 0 and 1 rad/s in turns.
    assert np.ptp(steady) < 0.03


@pytest.mark.parametrize("robot", ROBOTS)
def test_whole_task_area_is_in_reach_within_the_joint_limits(robot: str) -> None:
    mover = Mover(robot)
    for x in TASK_AREA.x_m:
        for y in TASK_AREA.y_m:
            for height_m in (0.02, 0.15):
                for yaw in (-np.pi / 4, np.pi / 4):
                    T = downwards([x, y, height_m], yaw)
                    q = mover.solve(T, steps=30)
                    np.testing.assert_allclose(mover.model.forward_kinematics(q), T, atol=1e-6)
                    assert np.all((q > mover.model.lower + 0.05) & (q < mover.model.upper - 0.05))


@pytest.mark.parametrize("robot", ROBOTS)
def test_varied_task_area_and_the_ends_of_its_pushes_are_in_reach_near_home(robot: str) -> None:
    model = RobotModel.from_config(load_robot(robot))
    (x_low, x_high), (y_low, y_high) = VARIED_AREA.x_m, VARIED_AREA.y_m
    for x in (x_low - PUSH_MARGIN_M, 0.5 * (x_low + x_high), x_high + PUSH_MARGIN_M):
        for y in (y_low - PUSH_MARGIN_M, 0.0, y_high + PUSH_MARGIN_M):
            for height_m, yaw in ((0.02, -np.pi / 4), (0.02, np.pi / 4), (0.15, 0.0)):
                T, q = downwards([x, y, height_m], yaw), model.home.copy()
                for _ in range(60):
                    T_base_tcp, J = model.tcp_pose_and_jacobian(q)
                    inverse = J.T @ np.linalg.inv(J @ J.T + 1e-6 * np.eye(6))
                    # What the tool leaves free goes home.
                    step = inverse @ pose_error(T_base_tcp, T) + 0.3 * (np.eye(len(q)) - inverse @ J) @ (model.home - q)
                    q = q + step * min(1.0, 0.3 / np.max(np.abs(step)))
                np.testing.assert_allclose(model.forward_kinematics(q), T, atol=1e-4)
                assert np.all((q > model.lower + 0.03) & (q < model.upper - 0.03)), (x, y, height_m, yaw)


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_picked_block_is_held_through_fast_motion(robot: str, seed: int) -> None:
    mover = Mover(robot, seed)
    picked, other, reached = mover.watch("pick up the red block", "pick up the green block", "reach the red block")
    T_block = mover.world.object_poses()["block_red"]
    p = T_block[:3, 3]
    yaw = (np.arctan2(T_block[1, 0], T_block[0, 0]) + np.pi / 4) % (np.pi / 2) - np.pi / 4
    mover.go(downwards(p + np.array([0.0, 0.0, 0.12]), yaw), 1.2)
    mover.go(downwards(p, yaw), 0.6)
    mover.world.set_gripper_command(0.0)
    mover.wait(0.8)
    gripper = mover.world.scene.robot.gripper
    assert gripper is not None
    # The fingers stop at the block's 40 mm, less the contact's give.
    assert (mover.world.robot_state(0).gripper_opening or 0.0) * gripper.max_width_m == pytest.approx(0.04, abs=1.5e-3)
    mover.go(downwards(p + np.array([0.0, 0.0, 0.15]), yaw), 0.7)
    assert outcome(picked, mover.world) == "running"  # Not before it was held up for half a second.
    T_tcp_block = np.linalg.inv(mover.world.tcp_pose()) @ mover.world.object_poses()["block_red"]
    for y, z in ((0.15, 0.25), (-0.15, 0.15), (0.15, 0.2)):
        mover.go(downwards([0.45, y, z], yaw), 0.65)  # 0.9 m/s at the peak.
    T_tcp_block_after = np.linalg.inv(mover.world.tcp_pose()) @ mover.world.object_poses()["block_red"]
    np.testing.assert_allclose(T_tcp_block_after, T_tcp_block, atol=4e-3)
    assert outcome(picked, mover.world) == "success", picked.reason
    assert outcome(reached, mover.world) == "success", reached.reason
    assert outcome(other, mover.world) == "running"
    mover.world.set_gripper_command(1.0)
    mover.wait(1.0)
    assert mover.world.object_poses()["block_red"][2, 3] < 0.04


@pytest.mark.parametrize("robot", ROBOTS)
def test_pushed_block_moves_and_only_that_push_is_judged_done(robot: str) -> None:
    mover = Mover(robot, 3)
    left, right, other = mover.watch(
        *(f"push the {what}" for what in ("red block left", "red block right", "blue cube left"))
    )
    p = mover.world.object_poses()["block_red"][:3, 3]
    mover.world.set_gripper_command(0.0)
    mover.go(downwards(p + np.array([0.0, -0.07, 0.12])), 1.2)
    mover.go(downwards(p + np.array([0.0, -0.07, 0.0])), 0.6)
    assert outcome(left, mover.world) == "running"
    mover.go(downwards(p + np.array([0.0, 0.05, 0.0])), 1.2)
    assert [outcome(judge, mover.world) for judge in (left, right, other)] == ["success", "running", "running"]
