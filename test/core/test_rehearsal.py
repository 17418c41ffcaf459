"""Recorded actions through filter, controller and physics in one process: the same path, and limits that have names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.config import load, package_share
from vla_ros.contract import load_contract, load_rig
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import DatasetError
from vla_ros.evaluation.path_error import farthest_m, path_error, path_length_m
from vla_ros.evaluation.rehearsal import IdealArm, rehearse
from vla_ros.geometry.rotations import matrix_to_quat_xyzw, rotvec_to_matrix
from vla_ros.recording.dataset import ACTION, JOINT_POSITIONS, STAMP, STATE, Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.recorded_actions import RecordedActions, actions_of_frames, actions_of_recording
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.sim.world import World
from vla_ros.types import JointCommand, RobotState

pytestmark = pytest.mark.sim

CONFIG = package_share() / "config"
SAFETY = load(SafetyConfig, CONFIG / "safety.yaml")
CONTROLLER = load(ControllerConfig, CONFIG / "controller.yaml")
PATH_TOLERANCE_M = 5e-3
"""What a round trip may cost."""


class SimulatedArm:
    """MuJoCo's arm under the commands, as sim_node has it."""

    def __init__(self, robot: str) -> None:
        self.world = World(load_robot(robot), load_rig(f"{robot}_table"), 0)
        self.tcp_positions: list[Any] = []
        self.openings: list[float] = []

    def measure(self, stamp_ns: int) -> RobotState:
        return self.world.robot_state(stamp_ns)

    def follow(self, command: JointCommand, duration_s: float) -> None:
        self.world.set_joint_command(command.positions)
        if command.gripper_opening is not None:
            self.world.set_gripper_command(command.gripper_opening)
        self.world.step(round(duration_s / 0.002))
        self.tcp_positions.append(self.world.tcp_pose()[:3, 3])
        self.openings.append(float(self.world.robot_state(0).gripper_opening or 0.0))


def on_the_grid(episode: Any) -> tuple[Schema, EpisodeFrames]:
    """An episode as a dataset at 10 Hz has it, made by hand: what the exporters are to write."""
    agreed = load_contract("tool_delta_visual")
    every, count = 25, 40
    target, joints = episode.tool_targets, episode.joint_positions
    now, due = np.arange(count) * every, (np.arange(count) + 1) * every
    T = target.values[due]
    action = np.concatenate([T[:, :3, 3], matrix_to_quat_xyzw(T[:, :3, :3]), target.openings[due, None]], axis=1)
    columns = {
        ACTION: action.astype(np.float32),
        STATE: action.astype(np.float32),
        STAMP: target.stamps_ns[now][:, None],
        JOINT_POSITIONS: joints.values[now].astype(np.float32),
    }
    schema = Schema(
        10.0,
        episode.robot.name,
        tuple(
            Column(name, "int64" if name == STAMP else "float32", value.shape[1:]) for name, value in columns.items()
        ),
        (ImageColumn("observation.images.base", 24, 32, "base"),),
        agreed,
    )

    def images() -> Any:
        for frame, (_, image) in enumerate(episode.cameras["base"].read(range(count))):
            yield "observation.images.base", frame, image

    return schema, EpisodeFrames(episode.info.name, columns, (episode.info.task,) * count, images)


def played(actions: RecordedActions, robot: str) -> tuple[Any, SimulatedArm]:
    arm = SimulatedArm(robot)
    model = RobotModel.from_config(load_robot(robot))
    return rehearse(actions, model, SAFETY, CONTROLLER, arm), arm


def assert_same_path(run: Any, arm: SimulatedArm, episode: Any) -> None:
    """By the simulator's ground truth: both ways, recorded to gone and gone to recorded, and all along in time."""
    assert run.problem == ""
    recorded = episode.tool_targets.values[:, :3, 3]
    gone = np.array(arm.tcp_positions)
    # Nothing but plain distances between points; 4 ms apart, they lie within 0.5 mm of each other.
    apart = np.linalg.norm(recorded[:, None] - gone[None], axis=2)
    assert apart.min(axis=1).max() < PATH_TOLERANCE_M
    begin = int(np.argmax(np.linalg.norm(gone - recorded[0], axis=1) < 1e-3))
    assert apart[:, begin:].min(axis=0).max() < PATH_TOLERANCE_M
    assert np.ptp(recorded, axis=0).min() > 0.05  # The path is one.


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_recording_is_repeated_within_5_mm_in_simulation(robot, synthetic_episode):
    episode = synthetic_episode(robot)
    model = RobotModel.from_config(episode.robot)
    run, arm = played(actions_of_recording(episode, model.forward_kinematics), robot)
    assert_same_path(run, arm, episode)
    assert run.error.max_m < PATH_TOLERANCE_M
    # It closed and opened again, as recorded: once.
    closed = np.array(arm.openings) < 0.3
    assert np.count_nonzero(np.diff(closed.astype(int)) == 1) == 1
    assert not closed[-1]


def test_recording_is_repeated_at_half_the_pace(synthetic_episode):
    episode = synthetic_episode()
    model = RobotModel.from_config(episode.robot)
    recorded = actions_of_recording(episode, model.forward_kinematics)
    run = rehearse(recorded, model, SAFETY, CONTROLLER, IdealArm(model.home), 0.5)
    assert (run.problem, run.limits) == ("", {})
    assert run.error.path_m < 1e-4
    speeds = np.linalg.norm(np.diff(run.gone[:, :3, 3], axis=0), axis=1) / np.diff(run.stamps_ns) * 1e9
    targets = np.linalg.norm(np.diff(recorded.poses[:, :3, 3], axis=0), axis=1) / 0.004
    assert speeds.max() == pytest.approx(0.5 * targets.max(), rel=0.01)


def test_dataset_at_10_hz_is_repeated_within_5_mm_in_simulation(synthetic_episode):
    episode = synthetic_episode()
    run, arm = played(actions_of_frames(*on_the_grid(episode)), "panda")
    assert_same_path(run, arm, episode)


@pytest.mark.parametrize("name", ["lerobot", "hdf5", "rlds"])
def test_dataset_format_keeps_the_path_within_5_mm(name, synthetic_episode, tmp_path):
    from vla_ros.recording.formats.registry import load_format

    for package in {"lerobot": ("av", "pyarrow"), "hdf5": ("h5py",), "rlds": ("google_crc32c",)}[name]:
        pytest.importorskip(package)
    dataset_format = load_format(name)
    episode = synthetic_episode()
    schema, frames = on_the_grid(episode)
    writer = dataset_format.create(tmp_path / name, schema, {})
    writer.add(frames)
    writer.close()
    dataset = dataset_format.open_dataset(tmp_path / name)
    run, arm = played(actions_of_frames(dataset.schema, dataset.read(0)), "panda")
    assert_same_path(run, arm, episode)


def test_joint_recording_is_repeated_in_joint_space(synthetic_episode):
    from vla_ros.recording.recorded import TargetSeries

    whole = synthetic_episode()
    tool, q = whole.tool_targets, whole.joint_positions.values
    episode = synthetic_episode(
        joint_targets=TargetSeries(tool.stamps_ns, q, tool.openings),
        tool_targets=TargetSeries(np.zeros(0, np.int64), np.zeros((0, 4, 4)), np.zeros(0)),
    )
    run, arm = played(actions_of_recording(episode, lambda _q: np.eye(4)), "panda")
    assert_same_path(run, arm, whole)


def dry(actions: RecordedActions, **safety: Any) -> Any:
    model = RobotModel.from_config(load_robot("panda"))
    return rehearse(actions, model, replace(SAFETY, **safety), CONTROLLER, IdealArm(model.home))


@pytest.fixture
def actions(synthetic_episode) -> RecordedActions:
    return actions_of_recording(synthetic_episode(), lambda _q: np.eye(4))


def test_path_within_the_limits_passes_untouched(actions):
    run = dry(actions)
    assert (run.problem, run.limits) == ("", {})
    # The first target is taken up from rest, the filter's own soft start; nothing else bends the path.
    assert run.error.max_m < 1e-4
    assert run.duration_s == pytest.approx(4.0 + 1.0 + 0.8 + 0.5 + 0.4 + 0.5 + 0.3, abs=0.6)


def test_wall_across_the_path_is_named_and_its_cost_is_told(actions):
    lowest = actions.poses[:, 2, 3].min()
    wall_m = lowest + 0.02
    run = dry(actions, workspace_lower_m=(*SAFETY.workspace_lower_m[:2], wall_m))
    assert "workspace" in run.limits
    assert run.limits["workspace"].count > 10
    assert run.error.path_m == pytest.approx(0.02, abs=2e-3)
    assert run.gone[:, 2, 3].min() > wall_m - 1e-4


def test_speed_limit_that_would_act_is_named(actions):
    run = dry(actions, velocity_m_s=0.05)
    assert "tool speed" in run.limits["tool_rate"].reason
    assert "limit 0.050 m/s" in run.limits["tool_rate"].reason
    speeds = np.linalg.norm(np.diff(run.gone[:, :3, 3], axis=0), axis=1) / np.diff(run.stamps_ns) * 1e9
    assert 0.049 < speeds.max() < 0.0501


def test_arm_that_is_blocked_ends_the_replay_with_the_filters_reason(actions):
    model = RobotModel.from_config(load_robot("panda"))

    class Stuck(IdealArm):
        def follow(self, command: JointCommand, duration_s: float) -> None:
            pass

    run = rehearse(actions, model, SAFETY, CONTROLLER, Stuck(model.home))
    assert "fault" in run.problem
    assert "away from its target" in run.problem


class TestPathError:
    def test_distances_are_those_worked_by_hand(self):
        wanted = np.tile(np.eye(4), (3, 1, 1))
        wanted[:, 0, 3] = [0.0, 1.0, 2.0]
        gone = wanted.copy()
        gone[1, 1, 3] = 0.3
        gone[2, 0, 3] = 1.9
        gone[0, :3, :3] = rotvec_to_matrix(np.array([0.0, 0.0, 0.2]))
        error = path_error(wanted, gone, wanted[:, :3, 3])
        assert error.max_m == pytest.approx(0.3)
        assert error.mean_m == pytest.approx(0.4 / 3.0)
        assert error.max_rad == pytest.approx(0.2)
        assert error.end_m == pytest.approx(0.1)
        # The point (1, 0) from the line (0, 0)-(1, 0.3): 0.3 cos(atan(0.3)); (1, 0.3) from the path: 0.3.
        assert error.path_m == pytest.approx(0.3)

    def test_distance_is_from_the_line_and_not_from_its_points(self):
        path = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
        assert farthest_m(np.array([[1.0, 0.5, 0.0]]), path) == pytest.approx(0.5)
        assert farthest_m(np.array([[3.0, 0.0, 0.0]]), path) == pytest.approx(1.0)
        assert farthest_m(np.array([[1.0, 0.0, 0.0]]), path[:1]) == pytest.approx(1.0)
        assert path_length_m(np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [3.0, 4.0, 1.0]])) == pytest.approx(6.0)


def test_dataset_with_a_hole_in_its_actions_moves_nothing(synthetic_episode):
    schema, frames = on_the_grid(synthetic_episode())
    frames.columns[ACTION][7, 0] = np.nan
    with pytest.raises(DatasetError, match="frame 7, entry 0"):
        actions_of_frames(schema, frames)
