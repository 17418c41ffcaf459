"""The simulated cell: placement of the blocks, determinism, refused commands, the servos' limits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.contract import load_rig
from vla_ros.errors import ConfigError, LimitExceededError, UnknownNameError, VlaRosError
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.placement import BLOCK_NAMES, BLOCK_SIZE_M, MIN_DISTANCE_M, TASK_AREA, draw_placements
from vla_ros.sim.world import World

pytestmark = pytest.mark.sim

ROBOTS = ("panda", "ur5e", "fr3", "ur10e")


def make_world(robot: str, seed: int = 0) -> World:
    return World(load_robot(robot), load_rig(f"{robot}_table"), seed)


def run_a_sequence(world: World) -> str:
    """Digest of every position on a run with arm, gripper and contacts in motion."""
    home = world.robot_state(0).positions
    digest = hashlib.sha256()
    for k in range(200):
        world.set_joint_command(home + 0.1 * np.sin(0.02 * k) * np.arange(1, len(home) + 1) / len(home))
        world.set_gripper_command(float(k % 100 < 50))
        world.step(2)
        digest.update(world.snapshot().qpos.tobytes())
    return digest.hexdigest()


def test_blocks_lie_in_the_task_area_apart_from_each_other_and_everywhere_in_it() -> None:
    draws = np.array([draw_placements(seed) for seed in range(200)])
    low, high = np.array([TASK_AREA.x_m[0], TASK_AREA.y_m[0]]), np.array([TASK_AREA.x_m[1], TASK_AREA.y_m[1]])
    xy = draws[:, :, :2]
    assert np.all((xy >= low) & (xy <= high))
    distances = np.linalg.norm(xy[:, [0, 0, 1]] - xy[:, [1, 2, 2]], axis=-1)
    assert np.min(distances) >= MIN_DISTANCE_M
    # For each colour all four quarters of the area are used, and the yaws spread over the circle.
    quarters = (xy > (low + high) / 2.0) @ np.array([1, 2])
    for i in range(len(BLOCK_NAMES)):
        assert np.all(np.bincount(quarters[:, i], minlength=4) > 25)
        assert np.abs(np.mean(np.exp(1j * draws[:, i, 2]))) < 0.2
    assert len(np.unique(draws.reshape(200, -1), axis=0)) == 200


@pytest.mark.parametrize("robot", ROBOTS)
def test_reset_puts_blocks_and_arm_where_seed_and_config_say(robot: str) -> None:
    world = make_world(robot)
    for seed in range(5):
        world.reset(seed)
        for name, (x, y, yaw) in zip(BLOCK_NAMES, draw_placements(seed), strict=True):
            T = world.object_poses()[name]
            np.testing.assert_allclose(T[:3, 3], [x, y, BLOCK_SIZE_M / 2.0], atol=1e-9)
            np.testing.assert_allclose(T[:3, 0], [np.cos(yaw), np.sin(yaw), 0.0], atol=1e-9)
        state = world.robot_state(7)
        assert (state.stamp_ns, state.gripper_opening, world.time_s) == (7, 1.0, 0.0)
        np.testing.assert_array_equal(state.positions, [joint.home_rad for joint in world.scene.robot.joints])


@pytest.mark.parametrize("robot", ROBOTS)
def test_tcp_agrees_with_pinocchio(robot: str) -> None:
    world = make_world(robot)
    model = RobotModel.from_config(world.scene.robot)
    home = world.robot_state(0).positions
    world.set_joint_command(home + 0.2)
    world.step(200)
    positions = world.robot_state(0).positions
    assert np.min(positions - home) > 0.05
    np.testing.assert_allclose(world.tcp_pose(), model.forward_kinematics(positions), atol=1e-9)


@pytest.mark.parametrize("robot", ROBOTS)
def test_arm_and_blocks_rest_when_nothing_is_commanded(robot: str) -> None:
    world = make_world(robot)
    before, T_before = world.robot_state(0), world.object_poses()
    world.step(1000)
    np.testing.assert_allclose(world.robot_state(0).positions, before.positions, atol=1e-6)
    for name, T in world.object_poses().items():
        # They settle into the contact by a fraction of a millimetre.
        np.testing.assert_allclose(T, T_before[name], atol=2e-4)


@pytest.mark.parametrize("robot", ROBOTS)
def test_same_seed_and_commands_give_the_same_bits(robot: str) -> None:
    world = make_world(robot, 4)
    first = run_a_sequence(world)
    world.reset(4)
    assert run_a_sequence(world) == first
    world.reset(5)
    assert run_a_sequence(world) != first


def test_looking_at_the_world_does_not_change_it() -> None:
    looked_at, left_alone = make_world("panda"), make_world("panda")
    command = looked_at.robot_state(0).positions + 0.1
    for _ in range(100):
        for world in (looked_at, left_alone):
            world.set_joint_command(command)
            world.step(2)
        looked_at.tcp_pose()
        looked_at.object_poses()
        looked_at.snapshot().qpos[:] = 0.0
        looked_at.robot_state(0).positions[:] = 0.0
    np.testing.assert_array_equal(looked_at.snapshot().qpos, left_alone.snapshot().qpos)


def test_another_process_gets_the_same_bits() -> None:
    code = "from test_sim_world import *; print(run_a_sequence(make_world('panda', 4)))"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])  # noqa: PTH120
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == run_a_sequence(make_world("panda", 4)), done.stderr


@pytest.mark.parametrize("robot", ROBOTS)
def test_bad_joint_commands_are_refused_by_name_and_change_nothing(robot: str) -> None:
    world, twin = make_world(robot), make_world(robot)
    home = world.robot_state(0).positions
    first = world.scene.robot.joints[0]
    bad: list[tuple[np.ndarray, type[VlaRosError], str]] = [
        (home[:-1], ConfigError, first.name),
        (np.append(home, 0.0), ConfigError, first.name),
        (home[None], ConfigError, "shape"),
    ]
    for value in (np.nan, np.inf, -np.inf, first.position_rad[1] + 0.01, first.position_rad[0] - 0.01):
        command = home.copy()
        command[0] = value
        bad.append((command, LimitExceededError, first.name))
    for both in (world, twin):
        both.set_joint_command(home + 0.05)
    for command, error, text in bad:
        with pytest.raises(error, match=text):
            world.set_joint_command(command)
        world.step(5)
        twin.step(5)
    np.testing.assert_array_equal(world.snapshot().qpos, twin.snapshot().qpos)


def test_command_is_copied() -> None:
    world = make_world("panda")
    command = world.robot_state(0).positions
    world.set_joint_command(command)
    command += 0.5
    world.step(100)
    np.testing.assert_allclose(world.robot_state(0).positions, command - 0.5, atol=1e-6)


@pytest.mark.parametrize("opening", [np.nan, np.inf, -0.01, 1.01])
def test_bad_gripper_commands_are_refused_and_change_nothing(opening: float) -> None:
    world = make_world("panda")
    with pytest.raises(LimitExceededError, match="gripper"):
        world.set_gripper_command(opening)
    world.step(100)
    assert world.robot_state(0).gripper_opening == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("robot", ROBOTS)
def test_gripper_moves_at_its_speed_and_arrives(robot: str) -> None:
    world = make_world(robot)
    gripper = world.scene.robot.gripper
    assert gripper is not None
    for target, start in ((0.25, 1.0), (0.75, 0.25)):
        world.set_gripper_command(target)
        openings = []
        for _ in range(1000):
            world.step()
            openings.append(world.robot_state(0).gripper_opening or 0.0)
        speeds = np.abs(np.diff(openings)) / 0.002
        # 10 %: the finger lags at the start and catches up.
        assert np.max(speeds) < 1.1 * gripper.speed_per_s
        assert np.max(speeds) > 0.9 * gripper.speed_per_s
        assert np.sign(target - start) * (openings[100] - start) > 0.05
        assert openings[-1] == pytest.approx(target, abs=0.005)


@pytest.mark.parametrize("robot", ROBOTS)
def test_torques_stay_within_the_efforts_whatever_is_commanded(robot: str) -> None:
    world = make_world(robot)
    limits = np.array(world.scene.robot.effort_nm)
    home = world.robot_state(0).positions
    most = np.zeros(len(limits))
    rng = np.random.default_rng(0)
    for _ in range(100):
        world.set_joint_command(home + rng.uniform(-0.5, 0.5, len(home)))
        world.step(5)
        most = np.maximum(most, np.abs(world._data.actuator_force[world.scene.arm_ctrl]))
    assert np.all(most <= limits)
    assert np.any(most > 0.99 * limits)


def test_rig_of_another_robot_is_refused_by_the_missing_link() -> None:
    with pytest.raises(UnknownNameError, match="'panda_link0'"):
        World(load_robot("ur5e"), load_rig("panda_table"), 0)
