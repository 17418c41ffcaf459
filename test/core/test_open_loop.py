"""A policy's answers beside what was done: errors worked by hand, and an offset that is found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vla_ros.contract import ActionSpec
from vla_ros.errors import RecordingError
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.recording.open_loop import Answer, Executed, compare, executed

SECOND_NS = 1_000_000_000
TOOL = ActionSpec("tool", "observation", 0.1)


def line(count: int = 101) -> Executed:
    """A tool that goes along x at 0.1 m/s and turns about z at 0.2 rad/s for 10 s, and closes after 5 s."""
    times_s = np.linspace(0.0, 10.0, count)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, 0, 3] = 0.1 * times_s
    T[:, :3, :3] = rotvec_to_matrix(np.outer(times_s, [0.0, 0.0, 0.2]))
    return Executed((times_s * SECOND_NS).astype(np.int64), T, np.where(times_s < 5.0, 1.0, 0.0))


def pose(x_m: float, turn_rad: float) -> Any:
    T = np.eye(4)
    T[0, 3], T[:3, :3] = x_m, rotvec_to_matrix(np.array([0.0, 0.0, turn_rad]))
    return T


def answer(at_s: float, values: list[Any], openings: list[float] | None = None) -> Answer:
    due_s = 0.1 * np.arange(1, len(values) + 1)
    stay = pose(0.1 * at_s, 0.2 * at_s)
    said = None if openings is None else np.array(openings)
    return Answer(round(at_s * SECOND_NS), due_s, np.array(values), said, stay)


def test_errors_are_those_worked_by_hand() -> None:
    found = compare([answer(2.03, [pose(0.25, 0.5), pose(0.21, 0.4)], [1.0, 0.3])], line(), ())
    assert found.names == ("x_m", "y_m", "z_m", "turn_x_rad", "turn_y_rad", "turn_z_rad", "gripper")
    # Recorded at 2.13 s: 0.213 m, 0.426 rad; at 2.23 s: 0.223 m, 0.446 rad; open.
    np.testing.assert_allclose(found.errors[0, :, 0], [0.037, -0.013], atol=1e-12)
    np.testing.assert_allclose(found.errors[0, :, 5], [0.074, -0.046], atol=1e-9)
    np.testing.assert_allclose(found.errors[0, :, 6], [0.0, -0.7], atol=1e-12)
    np.testing.assert_allclose(found.stay_errors[0, :, 0], [-0.01, -0.02], atol=1e-12)
    np.testing.assert_allclose(found.stay_errors[0, :, 5], [-0.02, -0.04], atol=1e-9)


def test_summary_means_over_observations_at_each_action() -> None:
    answers = [answer(1.0, [pose(0.12, 0.22), pose(0.12, 0.24)]), answer(2.0, [pose(0.18, 0.42)])]
    told = compare(answers, line(), ()).summary()
    # x errors: 0.01 and -0.03 at the first action, 0 at the second, which only one answer has.
    assert told["mean_abs_error"]["x_m"] == pytest.approx([0.02, 0.0], abs=1e-12)
    assert told["max_abs_error"]["x_m"] == pytest.approx([0.03, 0.0], abs=1e-12)
    assert told["mean_abs_error_of_staying"]["x_m"] == pytest.approx([0.01, 0.02], abs=1e-12)
    assert told["overall"]["x_m"] == pytest.approx(0.04 / 3.0)
    assert told["compared"] == [2, 1]
    assert told["horizon_s"] == pytest.approx([0.1, 0.2])
    assert "gripper" not in told["overall"]


def test_what_lies_past_the_recording_or_in_a_gap_is_not_compared() -> None:
    whole = line()
    is_kept = (whole.stamps_ns < 3 * SECOND_NS) | (whole.stamps_ns > 4 * SECOND_NS)
    done = Executed(whole.stamps_ns[is_kept], whole.values[is_kept], whole.openings[is_kept])
    answers = [answer(9.95, [pose(0.0, 0.0), pose(0.0, 0.0)]), answer(2.85, [pose(0.0, 0.0), pose(0.0, 0.0)])]
    found = compare(answers, done, ())
    assert np.isnan(found.errors[0]).all()
    assert np.isnan(found.errors[1]).all()
    told = found.summary()
    assert told["compared"] == [0, 0]
    assert told["overall"]["x_m"] is None


def test_joints_are_compared_one_by_one() -> None:
    stamps_ns = np.arange(11) * SECOND_NS // 10
    done = Executed(stamps_ns, np.outer(np.arange(11.0), [0.1, 0.2]), np.full(11, np.nan))
    said = Answer(0, np.array([0.1, 0.2]), np.array([[0.1, 0.25], [0.1, 0.4]]), None, np.zeros(2))
    found = compare([said], done, ("shoulder", "elbow"))
    assert found.names == ("shoulder_rad", "elbow_rad")
    np.testing.assert_allclose(found.errors[0], [[0.0, 0.05], [-0.1, 0.0]], atol=1e-12)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(RecordingError, match="nothing to compare"):
        compare([], line(), ())


def test_label_and_space_say_what_counts_as_done(synthetic_episode) -> None:
    from vla_ros.robots.model import RobotModel

    episode = synthetic_episode()
    model = RobotModel.from_config(episode.robot)
    target = executed(episode, TOOL, model.forward_kinematics)
    np.testing.assert_array_equal(target.values, episode.tool_targets.values)
    label = ActionSpec("tool", "observation", 0.1, label="measured_next")
    measured = executed(episode, label, model.forward_kinematics)
    np.testing.assert_allclose(measured.values, episode.tool_targets.values, atol=1e-6)
    np.testing.assert_array_equal(measured.openings, episode.joint_openings)
    joints = executed(episode, ActionSpec("joint", "nothing", 0.1), model.forward_kinematics)
    np.testing.assert_array_equal(joints.values, episode.joint_commands.values)
    assert joints.openings[[0, 380, 700]].tolist() == [1.0, 0.0, 1.0]


class Recorded:
    """A policy that answers what was done, a little beside it in y."""

    def __init__(self, episode: Any, contract: Any, beside_m: float) -> None:
        self.episode, self.contract, self.beside_m, self.tasks = episode, contract, beside_m, []

    def reset(self, task: str, seed: int) -> None:
        self.tasks.append(task)

    def infer(self, observation: Any, context: Any) -> Any:
        from vla_ros.actions.encode import encode_tool_poses
        from vla_ros.types import ActionChunk

        target = self.episode.tool_targets
        # At the very end, a policy can only say to stay.
        due_ns = observation.stamp_ns + np.arange(1, 9) * 100_000_000
        if due_ns[-1] > target.stamps_ns[-1]:
            return ActionChunk(np.zeros((0, 7)), is_idle=True)
        index = np.searchsorted(target.stamps_ns, due_ns)
        poses = target.values[index].copy()
        poses[:, 1, 3] += self.beside_m
        anchor = observation.T_base_tcp
        return ActionChunk(encode_tool_poses(poses, target.openings[index], self.contract.action, anchor))


def test_policy_is_shown_the_episode_and_its_offset_is_found(synthetic_episode, tmp_path) -> None:
    pytest.importorskip("rosbags")
    import cv2

    from vla_ros.contract import load_contract
    from vla_ros.evaluation.open_loop import plot_open_loop, run_open_loop
    from vla_ros.policies.registry import PolicyConfig
    from vla_ros.robots.model import RobotModel

    episode, agreed = synthetic_episode(), load_contract("tool_delta_visual")
    policy = Recorded(episode, agreed, 0.012)
    config = PolicyConfig("recorded", "none", agreed.name, 5.0)
    result = run_open_loop(episode, policy, config, agreed, RobotModel.from_config(episode.robot))
    told = result.comparison.summary()
    assert policy.tasks == [episode.info.task]
    # 4 s at 5 Hz, from images at 21 Hz; the last ones were answered by staying.
    assert 14 <= told["observations"] <= 18
    assert result.idle >= 3
    # Images fall between targets that are 4 ms apart.
    assert told["mean_abs_error"]["y_m"] == pytest.approx([0.012] * 8, abs=2e-4)
    assert max(told["mean_abs_error"]["x_m"]) < 5e-4
    assert max(told["mean_abs_error"]["turn_z_rad"]) < 2e-3
    assert told["overall_of_staying"]["y_m"] > 0.02
    plot_open_loop(result, "a test", tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert min(picture.shape[:2]) > 600
    assert picture.std() > 10.0
