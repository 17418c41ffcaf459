"""Recorded actions as courses and chunks: the same path, from rest to rest, never for longer than it is renewed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vla_ros.actions.encode import encode_joint_positions, encode_tool_poses
from vla_ros.actions.track import Track
from vla_ros.contract import ActionSpec, Contract, ImageSpec, ObservationSpec, StateItem
from vla_ros.errors import ChunkError, DatasetError, RecordingError
from vla_ros.geometry.rotations import angle_between, matrix_to_quat_xyzw, rotvec_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.recording.courses import Course, ReplayError, approach_course, path_course
from vla_ros.recording.dataset import ACTION, Column, EpisodeFrames, Schema
from vla_ros.recording.recorded_actions import RecordedActions, actions_of_frames, actions_of_recording
from vla_ros.recording.replaying import CHUNK_PERIOD_S, HoldWatch, Player
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import JointChunk, MotionState, RobotState, ToolChunk

PERIOD_S = 0.1
T_HOME = make_pose(np.array([0.45, 0.0, 0.3]), np.diag([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module")
def model() -> RobotModel:
    return RobotModel.from_config(load_robot("panda"))


def circle(times_s: np.ndarray) -> np.ndarray:
    """A tool that goes round at 0.2 m/s, never at rest, turning about z."""
    T = np.tile(T_HOME, (len(times_s), 1, 1))
    T[:, 0, 3] += 0.1 * np.sin(2.0 * times_s)
    T[:, 1, 3] += 0.1 * np.cos(2.0 * times_s)
    T[:, :3, :3] = rotvec_to_matrix(np.outer(np.sin(times_s), [0.0, 0.0, 0.5])) @ T_HOME[:3, :3]
    return T


def circling(duration_s: float = 5.0, **changes: object) -> RecordedActions:
    times_s = np.arange(0.0, duration_s + 1e-9, 0.02)
    values = {
        "name": "circle", "robot": "panda", "times_s": times_s, "poses": circle(times_s), "positions": None,
        "openings": np.where(times_s < 2.0, 1.0, 0.2),
    }  # fmt: skip
    return RecordedActions(**{**values, **changes})


def contract(**action: object) -> Contract:
    spec = ActionSpec(**{"space": "tool", "relative_to": "nothing", "period_s": PERIOD_S, **action})
    state = (StateItem("tcp_pose", origin_m=(0.1, 0.0, 0.0)), StateItem("joint_positions"))
    return Contract("made_up", ObservationSpec({"base": ImageSpec("base")}, state, "base"), spec)


def frames(actions: np.ndarray, agreed: Contract | None, **columns: np.ndarray) -> tuple[Schema, EpisodeFrames]:
    values = {ACTION: actions, **columns}
    schema = Schema(
        1.0 / PERIOD_S,
        "panda",
        tuple(Column(name, "float64", value.shape[1:]) for name, value in values.items()),
        (),
        agreed,
    )
    return schema, EpisodeFrames("made_up_0", values, ("",) * len(actions), lambda: iter(()))


def absolute(poses: np.ndarray, openings: np.ndarray) -> np.ndarray:
    return np.concatenate([poses[:, :3, 3], matrix_to_quat_xyzw(poses[:, :3, :3]), openings[:, None]], axis=1)


class TestCourse:
    def test_course_begins_and_ends_at_rest_although_the_recording_does_not(self):
        course = path_course(T_HOME, circling(), 1.0)
        for time_s in (1e-3, course.duration_s - 1e-3):
            speed = np.linalg.norm(course.at(time_s + 1e-3)[:3, 3] - course.at(time_s - 1e-3)[:3, 3]) / 2e-3
            assert speed < 2e-3  # Of 0.2 m/s.

    @pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
    def test_pace_is_the_recorded_one_times_the_speed_once_it_is_taken_up(self, speed):
        course = path_course(T_HOME, circling(), speed)
        for recorded_s in (1.6, 2.5, 3.0):
            # The pace rises evenly for a second, which costs half of one.
            T = course.at(course.lead_s + recorded_s / speed + 0.5)
            np.testing.assert_allclose(T[:3, 3], circle(np.array([recorded_s]))[0, :3, 3], atol=1e-6)
        assert course.duration_s == pytest.approx(course.lead_s + 5.0 / speed + 1.0)

    def test_every_recorded_pose_is_passed_in_its_order(self):
        course = path_course(T_HOME, circling(2.0), 1.0)
        times_s = np.arange(course.lead_s, course.duration_s + 0.01, 0.002)
        gone = np.array([course.at(time_s) for time_s in times_s])
        last = -1
        for T in circle(np.arange(0.0, 2.001, 0.02)):
            away_m = np.linalg.norm(gone[:, :3, 3] - T[:3, 3], axis=1)
            nearest = int(np.argmin(away_m))
            assert away_m[nearest] < 5e-4  # Half of the way between two moments that are looked at.
            assert angle_between(gone[nearest, :3, :3], T[:3, :3]) < 5e-3
            assert nearest >= last
            last = nearest

    def test_way_to_the_first_pose_is_slow_and_straight(self):
        start = T_HOME.copy()
        start[:3, 3] += [0.0, -0.3, 0.2]
        course = path_course(start, circling(), 1.0)
        np.testing.assert_allclose(course.at(0.0), start, atol=1e-9)
        first = circle(np.zeros(1))[0]
        # The curve takes up the motion that follows a little before its point.
        np.testing.assert_allclose(course.at(course.lead_s - 0.01)[:3, 3], first[:3, 3], atol=1e-4)
        ps = np.array([course.at(time_s)[:3, 3] for time_s in np.arange(0.0, course.lead_s, 0.01)])
        assert np.linalg.norm(np.diff(ps, axis=0), axis=1).max() / 0.01 < 0.152
        way = first[:3, 3] - start[:3, 3]
        assert np.abs(np.cross(ps - start[:3, 3], way / np.linalg.norm(way))).max() < 1e-4

    def test_openings_are_steps(self):
        course = path_course(T_HOME, circling(), 1.0)
        change_s = course.lead_s + 2.0 + 0.5
        assert {course.opening(time_s) for time_s in np.arange(0.0, course.duration_s, 0.01)} == {1.0, 0.2}
        assert (course.opening(change_s - 0.02), course.opening(change_s + 0.001)) == (1.0, 0.2)

    def test_gripper_that_was_left_alone_is_left_alone(self):
        course = path_course(T_HOME, circling(openings=np.full(251, np.nan)), 1.0)
        assert course.chunk(0, 0).openings is None

    def test_silence_in_the_recording_is_crossed_slowly_whatever_the_clock_said(self):
        recorded = circling()
        is_before, is_after = recorded.times_s < 1.0, recorded.times_s > 2.57  # Round to the other side, 0.2 m away.
        kept = is_before | is_after
        times_s = np.concatenate([recorded.times_s[is_before], recorded.times_s[is_after] - 1.0])
        gap = circling(times_s=times_s, poses=recorded.poses[kept], openings=recorded.openings[kept])
        assert np.diff(times_s).max() == pytest.approx(0.6)
        course = path_course(T_HOME, gap, 1.0)
        ps = np.array([course.at(time_s)[:3, 3] for time_s in np.arange(course.lead_s, course.duration_s, 0.005)])
        speeds = np.linalg.norm(np.diff(ps, axis=0), axis=1) / 0.005
        assert speeds.max() < 0.22  # The circle's own is 0.2; across in the time that the clock says is past 0.33.
        assert np.linalg.norm(ps[:, :2] - T_HOME[:2, 3], axis=1).max() < 0.1005

    @pytest.mark.parametrize("speed", [0.0, -1.0, 4.1, np.nan])
    def test_speed_that_is_none_is_refused(self, speed):
        with pytest.raises(ReplayError, match=r"speed .* isn't in"):
            path_course(T_HOME, circling(), speed)


class TestChunks:
    def test_chunk_is_over_about_a_second_after_it_was_made(self):
        course = path_course(T_HOME, circling(), 1.0)
        for now_s in (0.0, 1.0, 3.0):
            chunk = course.chunk(0, round(now_s * 1e9))
            ends_s = chunk.stamp_ns * 1e-9 + chunk.time_from_start_s[-1]
            assert 1.0 <= ends_s - now_s < 1.03

    def test_chunks_that_follow_each_other_say_the_same_of_the_time_they_share(self):
        course, start_ns = path_course(T_HOME, circling(), 1.0), 10**18
        for now_s in np.arange(0.0, 5.0, CHUNK_PERIOD_S):
            now_ns = start_ns + round(now_s * 1e9)
            a, b = (course.chunk(start_ns, now_ns + round(later * 1e9)) for later in (0.0, CHUNK_PERIOD_S))
            assert b.stamp_ns > a.stamp_ns
            tracks = [Track(chunk, np.eye(4), chunk.stamp_ns) for chunk in (a, b)]
            for share_s in (0.2, 0.3, 0.6):
                points = [track.sample(now_ns + round(share_s * 1e9)) for track in tracks]
                # A curve that ends at rest bends only where it ends; half a second before, nothing is left of that.
                np.testing.assert_allclose(points[0].T_base_tcp, points[1].T_base_tcp, atol=2e-5)
                np.testing.assert_allclose(points[0].velocity[:3], points[1].velocity[:3], atol=2e-3)

    def test_chunk_is_absolute_and_its_points_are_the_course(self):
        course = path_course(T_HOME, circling(), 1.0)
        chunk = course.chunk(10**18, 10**18 + 2_345_678_901)
        assert isinstance(chunk, ToolChunk)
        assert (chunk.frame, chunk.source) == ("absolute", "replay")
        for T, due_s in zip(chunk.transforms, chunk.time_from_start_s, strict=True):
            at_s = (chunk.stamp_ns - 10**18) * 1e-9 + due_s
            np.testing.assert_allclose(T, course.at(at_s), atol=1e-6)

    def test_joints_go_in_joint_chunks(self):
        times_s = np.arange(0.0, 1.0, 0.02)
        positions = np.outer(np.sin(times_s), np.ones(7))
        course = Course(times_s, None, positions, np.full(50, np.nan))
        chunk = course.chunk(0, 500_000_000)
        assert isinstance(chunk, JointChunk)
        assert chunk.positions.shape[1] == 7
        np.testing.assert_allclose(chunk.positions[-1], positions[-1])


class TestPlayer:
    def test_arm_is_brought_to_the_posture_first_and_then_led_along_the_path(self, model):
        actions = circling(start_positions=model.home + 0.1)
        player, q, kinds = Player(actions, model.forward_kinematics), model.home.copy(), []
        for tick in range(900):
            chunk = player.update(tick * 20_000_000, RobotState(tick * 20_000_000, q, 0.0 * q, 1.0))
            if chunk is not None:
                kinds.append((type(chunk), player.phase))
                if isinstance(chunk, JointChunk):
                    q = chunk.positions[-1]  # An arm that is very fast.
            if player.phase == "done":
                break
        assert list(dict.fromkeys(kinds)) == [(JointChunk, "approach"), (ToolChunk, "path")]
        assert player.phase == "done"
        np.testing.assert_allclose(q, model.home + 0.1)

    def test_arm_that_does_not_come_to_the_start_is_named(self, model):
        player = Player(circling(start_positions=model.home + 0.1), model.forward_kinematics)

        def wait() -> None:
            for tick in range(600):
                player.update(tick * 20_000_000, RobotState(tick * 20_000_000, model.home, 0.0 * model.home, 1.0))

        with pytest.raises(ReplayError, match=r"a joint is 0\.100 rad off \(limit 0\.02 rad\)"):
            wait()

    def test_actions_of_another_arm_are_refused_and_their_tool_path_can_be_had(self, model):
        actions = circling(start_positions=np.zeros(6))
        with pytest.raises(ReplayError, match="has 6 joints, the arm 7"):
            approach_course(model.home, actions)
        assert approach_course(model.home, actions.without_posture()) is None
        joints = circling(poses=None, positions=np.zeros((251, 6)))
        with pytest.raises(RecordingError, match="another arm can't"):
            joints.without_posture()

    def test_hold_is_a_problem_only_where_the_arm_ought_to_move(self, model):
        player, watch = Player(circling(), model.forward_kinematics), HoldWatch()
        state = RobotState(0, model.home, 0.0 * model.home, 1.0)
        assert watch.problem(player, MotionState.HOLDING, "why", 0) == ""
        player.update(0, state)
        told = [watch.problem(player, MotionState.HOLDING, "why", t * 100_000_000) for t in range(1, 9)]
        assert [bool(text) for text in told] == [False] * 5 + [True] * 3
        assert "holding in the path: why" in told[-1]
        assert watch.problem(player, MotionState.RUNNING, "", 900_000_000) == ""
        assert "stopped" in watch.problem(player, MotionState.STOPPED, "the button", 910_000_000)


class TestActionsOfFrames:
    TIMES_S = np.arange(0.0, 3.0, PERIOD_S)

    def test_absolute_actions_are_taken_as_they_are_a_period_after_their_frame(self):
        poses, openings = circle(self.TIMES_S), np.linspace(0.0, 1.0, 30)
        actions = actions_of_frames(*frames(absolute(poses, openings), contract()))
        np.testing.assert_allclose(actions.poses, poses, atol=1e-12)
        np.testing.assert_array_equal(actions.openings, openings)
        np.testing.assert_allclose(actions.times_s, self.TIMES_S, atol=1e-9)
        assert (actions.robot, actions.name) == ("panda", "made_up_0")

    def test_true_stamps_say_when_where_there_are_any(self):
        stamps_ns = 10**18 + np.cumsum(np.tile([100, 150, 50], 10)).astype(np.int64) * 1_000_000
        pair = frames(absolute(circle(self.TIMES_S), np.ones(30)), contract(), stamp_ns=stamps_ns)
        actions = actions_of_frames(*pair)
        np.testing.assert_allclose(np.diff(actions.times_s[:4]), [0.15, 0.05, 0.1])

    def test_padding_is_left_out(self):
        is_padding = self.TIMES_S > 2.45
        pair = frames(absolute(circle(self.TIMES_S), np.ones(30)), contract(), is_padding=is_padding)
        assert len(actions_of_frames(*pair).times_s) == 25

    def test_posture_at_the_first_action_is_known_where_it_was_written(self):
        joints = np.arange(210.0).reshape(30, 7)
        pair = frames(absolute(circle(self.TIMES_S), np.ones(30)), contract(), joint_positions=joints)
        np.testing.assert_array_equal(actions_of_frames(*pair).start_positions, joints[0])

    def test_joint_actions_are_postures(self):
        values = np.concatenate([np.outer(self.TIMES_S, np.arange(7.0)), np.full((30, 1), 0.5)], axis=1)
        actions = actions_of_frames(*frames(values, contract(space="joint")))
        assert actions.poses is None
        np.testing.assert_array_equal(actions.positions, values[:, :7])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a: a.__setitem__((3, 1), np.nan), "frame 3, entry 1 is nan"),
            (
                lambda a: a.__setitem__((5, slice(3, 7)), [0.0, 0.0, 0.0, 0.5]),
                "frame 5 turns by a quaternion of length 0.5",
            ),
        ],
    )
    def test_what_is_no_action_is_refused_by_frame(self, change, message):
        values = absolute(circle(self.TIMES_S), np.ones(30))
        change(values)
        with pytest.raises(DatasetError, match=message):
            actions_of_frames(*frames(values, contract()))

    def test_dataset_that_does_not_say_what_its_actions_mean_needs_a_contract(self):
        with pytest.raises(DatasetError, match="doesn't say what its actions mean"):
            actions_of_frames(*frames(absolute(circle(self.TIMES_S), np.ones(30)), None))

    @pytest.mark.parametrize("composition", ["tcp", "base"])
    @pytest.mark.parametrize("rotation", ["rotvec", "rot6d"])
    def test_foreign_actions_relative_to_each_observation_are_put_on_its_state(self, composition, rotation):
        agreed = contract(relative_to="observation", composition=composition, rotation=rotation, position_scale_m=0.5)
        now, after = circle(self.TIMES_S), circle(self.TIMES_S + PERIOD_S)
        actions = np.concatenate(
            [
                encode_tool_poses(T[None], np.ones(1), agreed.action, anchor)
                for T, anchor in zip(after, now, strict=True)
            ]
        )
        state = np.concatenate([absolute(now, np.ones(30))[:, :7], np.zeros((30, 7))], axis=1)
        state[:, 0] -= 0.1  # The contract's origin.
        pair = frames(actions, None, **{"observation.state": state})
        found = actions_of_frames(*pair, agreed, 7)
        np.testing.assert_allclose(found.poses, after, atol=1e-9)

    def test_foreign_steps_are_summed_up_from_the_first_state(self):
        agreed = contract(relative_to="previous_step", rotation="rotvec")
        poses = circle(np.arange(0.0, 3.05, PERIOD_S))
        actions = encode_tool_poses(poses[1:], np.ones(30), agreed.action, poses[0])
        pair = frames(actions, None, tcp_pose=absolute(poses[:-1], np.ones(30))[:, :7])
        np.testing.assert_allclose(actions_of_frames(*pair, agreed, 7).poses, poses[1:], atol=1e-9)

    def test_foreign_joint_moves_are_put_on_the_measured_joints(self):
        agreed = contract(space="joint", relative_to="observation", joint_scale_rad=0.2)
        joints = np.outer(np.sin(np.arange(0.0, 3.05, PERIOD_S)), np.ones(7))
        actions = np.concatenate(
            [encode_joint_positions(b[None], np.ones(1), agreed.action, a) for a, b in pairwise(joints)]
        )
        found = actions_of_frames(*frames(actions, None, joint_positions=joints[:-1]), agreed, 7)
        np.testing.assert_allclose(found.positions, joints[1:], atol=1e-12)

    def test_foreign_relative_actions_without_a_state_are_refused(self):
        agreed = contract(relative_to="observation", rotation="rotvec")
        with pytest.raises(DatasetError, match="neither a column 'tcp_pose' nor the contract's state"):
            actions_of_frames(*frames(np.zeros((5, 7)), None), agreed, 7)

    def test_foreign_actions_of_another_width_are_refused(self):
        with pytest.raises(ChunkError, match=r"has shape \(5, 6\)"):
            actions_of_frames(*frames(np.zeros((5, 6)), None), contract(rotation="rotvec"), 7)


class TestActionsOfRecording:
    def test_targets_are_the_actions(self, synthetic_episode):
        episode = synthetic_episode()
        actions = actions_of_recording(episode, lambda _q: np.eye(4))
        np.testing.assert_array_equal(actions.poses, episode.tool_targets.values)
        np.testing.assert_allclose(actions.times_s, np.arange(1001) * 0.004, atol=1e-9)
        np.testing.assert_array_equal(actions.start_positions, episode.joint_positions.values[0])
        assert (actions.name, actions.robot) == ("episode_000007", "panda")

    def test_where_tool_and_joints_were_led_the_tool_path_is_repeated_in_order_of_time(self, synthetic_episode):
        from vla_ros.recording.recorded import TargetSeries

        whole = synthetic_episode()
        model = RobotModel.from_config(whole.robot)
        tool, q = whole.tool_targets, whole.joint_positions.values
        led = slice(400, 600)
        kept = np.r_[0:400, 600:1001]
        episode = synthetic_episode(
            tool_targets=TargetSeries(tool.stamps_ns[kept], tool.values[kept], tool.openings[kept]),
            joint_targets=TargetSeries(tool.stamps_ns[led], q[led], tool.openings[led]),
        )
        actions = actions_of_recording(episode, model.forward_kinematics)
        np.testing.assert_allclose(actions.poses, tool.values, atol=1e-6)
        np.testing.assert_array_equal(actions.openings, tool.openings)

    def test_episode_without_targets_is_refused(self, synthetic_episode):
        from vla_ros.recording.recorded import TargetSeries

        nothing = TargetSeries(np.zeros(0, np.int64), np.zeros((0, 4, 4)), np.zeros(0))
        with pytest.raises(RecordingError, match="no message on target or joint_target"):
            actions_of_recording(synthetic_episode(tool_targets=nothing), lambda _q: np.eye(4))
