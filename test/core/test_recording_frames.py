"""Frames are what a naive computation from the raw messages gives, and gaps stay gaps."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

import bags
from bags import EpisodeBag, Message, string, verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from vla_ros.config import config_names
from vla_ros.contract import load_contract
from vla_ros.errors import DatasetError
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.grid import plan_grid
from vla_ros.recording.reading import read_episode
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.recording.synchronise import FrameOptions, make_episodes, make_frames

S, START = bags.S, bags.START_NS
TOOL = load_contract("tool_delta_visual")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeBag, RecordedEpisode]:
    bag = EpisodeBag()
    return bag, read_episode(bag.write(tmp_path_factory.mktemp("plain") / "bag"))


def read(bag: EpisodeBag, folder: Path) -> RecordedEpisode:
    return read_episode(bag.write(folder / "bag"))


def ns(message: Any) -> int:
    return message.header.stamp.sec * S + message.header.stamp.nanosec


def pose(transform: Any) -> tuple[Any, Any]:
    p, q = transform.translation, transform.rotation
    return np.array([p.x, p.y, p.z]), Rotation.from_quat([q.x, q.y, q.z, q.w])


def between(times: list[int], poses: list[tuple[Any, Any]], at: int) -> tuple[Any, Any]:
    """Position and rotation at a time, by scipy, clipped to the ends."""
    at = min(max(at, times[0]), times[-1])
    offset = np.array(times, float) - times[0]
    p = [np.interp(at - times[0], offset, [each[0][axis] for each in poses]) for axis in range(3)]
    if len(times) == 1:
        return np.array(p), poses[0][1]
    return np.array(p), Slerp(offset, Rotation.concatenate([each[1] for each in poses]))(at - times[0])


class Naive:
    """The same frames out of the list of messages, one by one, with other means."""

    def __init__(self, bag: EpisodeBag) -> None:
        self.bag = bag
        self.said: dict[str, list[Message]] = {}
        for each in sorted(bag.messages(), key=lambda message: message.received_ns):
            self.said.setdefault(each.topic, []).append(each)

    def joints(self, topic: str, at: int) -> Any:
        times = np.array([ns(each.message) for each in self.said[topic]])
        rows = np.array([each.message.position for each in self.said[topic]])
        return np.array([np.interp(at - times[0], times - times[0], rows[:, joint]) for joint in range(rows.shape[1])])

    def target(self, at: int) -> tuple[Any, Any, float]:
        messages = [each.message for each in self.said["/target"]]
        times = [ns(message) for message in messages]
        poses = [pose(message.points[0].transforms[0]) for message in messages]
        newest = max(index for index, time in enumerate(times) if time <= at)
        p, R = between(times, poses, at)
        return p, R, messages[newest].points[0].transforms[1].translation.x

    def wish(self, at: int) -> tuple[Any, Any] | None:
        for each in reversed(self.said["/policies/scripted/action_chunk"]):
            message = each.message
            times = [ns(message) + p.time_from_start.sec * S + p.time_from_start.nanosec for p in message.points]
            if each.received_ns <= at <= times[-1]:
                return between(times, [pose(point.transforms[0]) for point in message.points], at)
        return None

    def frames(self, contract: Any) -> list[tuple[int, int, int | None]]:
        """(stamp, index of the base's image, of the wrist's)."""
        base, wrist = self.bag.image_stamps("base"), self.bag.image_stamps("wrist")
        spec = contract.observation
        needs = {image.camera for image in spec.images.values() if image.if_absent == "refuse"}

        def newest(at: int) -> int | None:
            fitting = [i for i, stamp in enumerate(wrist) if 0 <= at - stamp <= spec.max_skew_s * S]
            return fitting[-1] if fitting else None

        start = next(stamp for stamp in base if "wrist" not in needs or newest(stamp) is not None)
        found, k = [], 0
        while (
            2 * ((time := start + round(k * contract.action.period_s * S)) - base[-1]) <= contract.action.period_s * S
        ):
            index = int(np.argmin(np.abs(np.array(base) - time)))
            found.append((base[index], index, newest(base[index])))
            k += 1
        return found


@pytest.mark.parametrize("name", config_names("contracts"))
def test_frames_equal_a_naive_computation_from_the_messages(plain, name) -> None:
    bag, episode = plain
    contract, naive = load_contract(name), Naive(bag)
    schema, frames = make_frames(episode, contract)
    expected = naive.frames(contract)
    columns = frames.columns
    assert columns["stamp_ns"][:, 0].tolist() == [stamp for stamp, *_ in expected]
    assert set(frames.tasks) == {bag.task}
    period_ns = round(contract.action.period_s * S)
    last_ns = bag.state_stamps()[-1]
    for k, (stamp, _, _) in enumerate(expected):
        due = stamp + period_ns
        q = naive.joints("/joint_states", stamp)
        np.testing.assert_allclose(columns["joint_positions"][k], q, atol=1e-12)
        T = bag.model.forward_kinematics(q)
        np.testing.assert_allclose(columns["tcp_pose"][k, :3], T[:3, 3], atol=1e-12)
        np.testing.assert_allclose(Rotation.from_quat(columns["tcp_pose"][k, 3:]).as_matrix(), T[:3, :3], atol=1e-9)
        assert bool(columns["is_padding"][k]) == (due > last_ns)
        action = columns["action"][k].astype(float)
        if contract.action.space == "joint":
            # float32 holds 1e-7 of a rad.
            np.testing.assert_allclose(action[:7], naive.joints("/joint_command", min(due, last_ns)), atol=3e-7)
            assert action[7] == naive.target(due)[2]
            assert not columns["has_policy_action"][k]
            continue
        p, R, opening = naive.target(due)
        if contract.action.label == "measured_next":
            measured = bag.model.forward_kinematics(naive.joints("/joint_states", min(due, last_ns)))
            p, R = measured[:3, 3], Rotation.from_matrix(measured[:3, :3])
        np.testing.assert_allclose(action[:3], p, atol=1e-7)
        assert (Rotation.from_quat(action[3:7]) * R.inv()).magnitude() < 1e-6
        assert action[7] == opening
        wish = naive.wish(due)
        assert bool(columns["has_policy_action"][k]) == (wish is not None)
        if wish is not None:
            wanted = columns["policy_action"][k].astype(float)
            np.testing.assert_allclose(wanted[:3], wish[0], atol=1e-7)
            assert (Rotation.from_quat(wanted[3:7]) * wish[1].inv()).magnitude() < 1e-6
            assert wanted[7] == 0.25
        else:
            assert np.isnan(columns["policy_action"][k]).all()
    assert schema.fps == pytest.approx(1.0 / contract.action.period_s)
    assert sum(columns["is_padding"][:, 0]) <= 2


def test_quaternions_go_on_without_changing_sides(plain) -> None:
    _, frames = make_frames(plain[1], TOOL)
    for name in ("action", "tcp_pose"):
        q = frames.columns[name][:, 3:7]
        assert (np.sum(q[1:] * q[:-1], axis=1) > 0.9).all()


def test_state_vector_is_the_contracts_at_the_image(plain) -> None:
    bag, episode = plain
    _, frames = make_frames(episode, load_contract("libero"))
    naive = Naive(bag)
    for row, stamp in zip(frames.columns["observation.state"], frames.columns["stamp_ns"][:, 0], strict=True):
        T = bag.model.forward_kinematics(naive.joints("/joint_states", int(stamp)))
        np.testing.assert_allclose(row[:3], T[:3, 3], atol=1e-7)
        assert np.allclose(Rotation.from_rotvec(row[3:6]).as_matrix(), T[:3, :3], atol=1e-6)
        # Fingers of 0.04 m, the second mirrored; the gripper speaks every 40 ms and each state has its last word.
        assert row[6] == pytest.approx(0.04 * bag.opening(int(stamp)), abs=0.04 * 0.4 * 0.06)
        assert row[7] == -row[6]


@pytest.mark.parametrize("name", ["tool_delta_visual", "aloha_joints"])
def test_images_are_those_of_the_frames_each_column_in_order(plain, name) -> None:
    bag, episode = plain
    contract = load_contract(name)
    schema, frames = make_frames(episode, contract)
    expected = Naive(bag).frames(contract)
    seen: dict[str, list[int]] = {column.name: [] for column in schema.images}
    for column, frame, image in frames.read_images():
        seen[column].append(frame)
        camera = next(each.camera for each in schema.images if each.name == column)
        index = expected[frame][1 if camera == "base" else 2]
        shown = np.zeros((6, 8, 3), np.uint8) if index is None else bag.pixels(camera, index)
        np.testing.assert_array_equal(image, shown)
    assert all(order == list(range(len(frames))) for order in seen.values())
    kinds = {finding["kind"] for finding in frames.attributes["findings"]}
    assert kinds == ({"absent"} if name == "tool_delta_visual" else {"start", "repeated"})


def stalled(begin_s: float, end_s: float, *ends: str) -> EpisodeBag:
    def mend(messages: list[Message]) -> list[Message]:
        begin, end = START + begin_s * S, START + end_s * S
        return [m for m in messages if not (m.topic.endswith(ends) and begin < m.received_ns < end)]

    return EpisodeBag(duration_s=3.0, mend=mend)


def test_gap_splits_drops_or_refuses_and_is_told(tmp_path) -> None:
    episode = read(stalled(1.0, 1.8, "base/image"), tmp_path)
    _, pieces = make_episodes(episode, TOOL)
    assert [piece.name for piece in pieces] == ["episode_000012_part1", "episode_000012_part2"]
    (gap,) = [each for each in pieces[0].attributes["findings"] if each["kind"] == "gap"]
    # Images until 0.97 s and from 1.82 s on; grid times 0.02 + 0.1 k within 0.1 s of one: missing are 1.12 .. 1.62 s.
    assert gap["count"] == 6
    assert gap["stamp_ns"] == START + round(1.12 * S)
    assert "camera base has no image within 0.1 s" in gap["text"]
    stamps = [piece.columns["stamp_ns"][:, 0] for piece in pieces]
    assert (len(stamps[0]), len(stamps[1])) == (11, 13)
    assert stamps[0][-1] == START + 970_000_000
    assert stamps[1][0] == stamps[1][1] == START + 1_820_000_000
    assert "repeated" in {each["kind"] for each in pieces[1].attributes["findings"]}
    assert make_episodes(episode, TOOL, FrameOptions(gaps="drop"))[1] == ()
    with pytest.raises(DatasetError, match=r"1 gaps, the first: 6 frames, 0\.600 s"):
        make_episodes(episode, TOOL, FrameOptions(gaps="refuse"))
    with pytest.raises(DatasetError, match="2 pieces"):
        make_frames(episode, TOOL)


def test_missing_states_are_a_gap_too(tmp_path) -> None:
    episode = read(stalled(1.0, 1.9, "joint_states"), tmp_path)
    _, pieces = make_episodes(episode, TOOL)
    assert len(pieces) == 2
    (gap,) = [each for each in pieces[0].attributes["findings"] if each["kind"] == "gap"]
    assert "no joint state" in gap["text"]


def test_companion_that_stalls_is_a_gap_unless_it_may_be_absent(tmp_path) -> None:
    episode = read(stalled(1.0, 1.5, "wrist/image"), tmp_path)
    assert len(make_episodes(episode, load_contract("libero"))[1]) == 2
    schema, frames = make_frames(episode, TOOL)
    (absent,) = [each for each in frames.attributes["findings"] if each["kind"] == "absent"]
    black = [frame for name, frame, image in frames.read_images() if name.endswith("wrist") and not image.any()]
    assert len(black) == absent["count"] > 3
    assert schema.images[1].camera == "wrist"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(st.sets(st.integers(0, 38), max_size=30), st.sets(st.integers(0, 38), max_size=20), st.sampled_from([0.03, 0.1]))
def test_grid_is_regular_within_tolerance_and_accounts_for_every_frame(plain, base, wrist, tolerance_s) -> None:
    episode = plain[1]
    lost = {"base": base - {0, 38}, "wrist": wrist}
    cameras = {
        name: dataclasses.replace(camera, stamps_ns=np.delete(camera.stamps_ns, sorted(lost[name])))
        for name, camera in episode.cameras.items()
    }
    if not len(cameras["base"]):
        return
    contract = load_contract("libero")
    less = dataclasses.replace(episode, cameras=cameras)
    try:
        plan = plan_grid(less, contract, _arm(episode), round(tolerance_s * S))
    except DatasetError:
        skew = [int(b) - w for b in cameras["base"].stamps_ns for w in cameras["wrist"].stamps_ns]
        assert not any(0 <= each <= 0.1 * S for each in skew)
        return
    steps = [step for piece in plan.pieces for step in piece]
    for piece in plan.pieces:
        grid = np.array([step.grid_ns for step in piece])
        assert (np.diff(grid) == 50_000_000).all()
    for step in steps:
        stamps = cameras["base"].stamps_ns
        assert stamps[step.images["image"]] == step.stamp_ns
        assert abs(step.stamp_ns - step.grid_ns) == np.abs(stamps - step.grid_ns).min() <= tolerance_s * S
        age = step.stamp_ns - cameras["wrist"].stamps_ns
        assert age[step.images["wrist_image"]] == age[age >= 0].min() <= 0.1 * S
    missing = sum(finding.count for finding in plan.findings if finding.kind in ("gap", "end"))
    span = int(cameras["base"].stamps_ns[-1]) - steps[0].grid_ns
    assert len(steps) + missing == int(span / 50_000_000 + 0.5) + 1
    assert plan.gaps == len(plan.pieces) - 1


@functools.lru_cache(maxsize=1)
def _kept(key: int) -> list[Any]:
    return []


def _arm(episode: RecordedEpisode) -> RecordedArm:
    kept = _kept(id(episode))
    if not kept:
        kept.append(RecordedArm(episode))
    return kept[0]


def test_where_no_target_is_in_force_the_last_command_stands_and_is_flagged(tmp_path) -> None:
    """The filter holds from 1.0 to 2.0 s: no targets, commands that stay; the state moves on as it is measured."""

    def mend(messages: list[Message]) -> list[Message]:
        begin, end = START + S, START + 2 * S
        kept = []
        for each in messages:
            stamp = each.received_ns - 2_000_000
            is_held = begin < stamp < end
            if each.topic == "/joint_command" and is_held:
                held = bag.q_wanted(begin)
                each = dataclasses.replace(each, message=bags.joint_state(stamp, bag.robot.joint_names, held))
            if each.topic == "/safety/verdict" and begin <= stamp < end:
                each = dataclasses.replace(each, message=verdict(stamp, "holding", "scripted", watchdog="silence"))
            if not (each.topic == "/target" and is_held):
                kept.append(each)
        return kept

    bag = EpisodeBag(duration_s=3.0, mend=mend)
    _, frames = make_frames(read(bag, tmp_path), TOOL)
    due = frames.columns["stamp_ns"][:, 0] + S // 10
    held = (due > START + S) & (due < START + 2 * S)
    assert held.sum() == 10
    np.testing.assert_array_equal(frames.columns["is_held"][:, 0], held)
    T = bag.model.forward_kinematics(bag.q_wanted(START + S))
    np.testing.assert_allclose(frames.columns["action"][held, :3], np.broadcast_to(T[:3, 3], (10, 3)), atol=1e-7)
    # What the gripper was told last.
    assert set(frames.columns["action"][held, 7]) <= {0.0, 1.0}
    filtered = frames.columns["is_filtered"][:, 0]
    assert filtered[held].all()
    assert not filtered[due < START + S].any()


def test_person_who_takes_over_is_flagged_with_source_and_own_action(tmp_path) -> None:
    """Teleop from 1.0 to 2.0 s, then nobody."""

    def mend(messages: list[Message]) -> list[Message]:
        made = []
        for each in messages:
            stamp = each.received_ns - 2_000_000
            if each.topic == "/safety/verdict":
                source = "scripted" if stamp < START + S else "teleop" if stamp < START + 2 * S else ""
                each = dataclasses.replace(each, message=verdict(stamp, "running", source))
            made.append(each)
        wish = np.eye(4)
        wish[:3, 3] = (0.4, 0.1, 0.2)
        chunk = bags.tool_chunk(START + S, bag.robot.base_frame, ["tcp"], [[wish], [wish]], [S // 10, S])
        made.append(Message("/teleop/action_chunk", START + S + 20_000_000, chunk))
        made.append(Message("/task", START + 3 * S // 2, string("put it back")))
        switch = json.dumps({"event": "source", "source": "teleop", "stamp_ns": START + S - 40_000_000})
        return [*made, Message("/episode/event", START + S - 30_000_000, string(switch))]

    bag = EpisodeBag(duration_s=3.0, mend=mend)
    _, frames = make_frames(read(bag, tmp_path), TOOL)
    stamps = frames.columns["stamp_ns"][:, 0]
    due = stamps + S // 10
    person = (due >= START + S - 40_000_000) & (due < START + 2 * S)
    np.testing.assert_array_equal(frames.columns["is_intervention"][:, 0], person)
    before = due < START + S - 40_000_000
    expected = np.where(person, "teleop", np.where(before, "scripted", ""))
    assert frames.columns["source"][:, 0].tolist() == expected.tolist()
    told = person & (due >= START + S + 20_000_000)
    # The chunk leaves the gripper alone: what it was told last stands beside.
    np.testing.assert_allclose(frames.columns["policy_action"][told, :3], [[0.4, 0.1, 0.2]] * told.sum(), atol=1e-7)
    assert not frames.columns["has_policy_action"][~(told | before), 0].any()
    assert [task == "put it back" for task in frames.tasks] == (stamps >= START + 3 * S // 2).tolist()


def test_task_of_the_recording_counts_until_another_is_given_in_it(tmp_path) -> None:
    """The stack was started with one instruction, `record --task` says another, and a third one comes at 1.5 s."""

    def mend(messages: list[Message]) -> list[Message]:
        reach = "reach the red block"
        told = ((START + 3, reach), (START + S, reach), (START + 3 * S // 2, "put it back"))
        return [m for m in messages if m.topic != "/task"] + [Message("/task", at, string(text)) for at, text in told]

    episode = read(EpisodeBag(duration_s=2.5, task="pick up the red block", mend=mend), tmp_path)
    _, frames = make_frames(episode, TOOL)
    late = frames.columns["stamp_ns"][:, 0] >= START + 3 * S // 2
    assert frames.tasks == tuple("put it back" if each else "pick up the red block" for each in late)
    assert 0 < late.sum() < len(late)
    (told,) = [finding for finding in frames.attributes["findings"] if finding["kind"] == "task"]
    assert "'reach the red block' was in force" in told["text"]
    unsaid = dataclasses.replace(episode, info=dataclasses.replace(episode.info, task=""))
    assert set(make_frames(unsaid, TOOL)[1].tasks) == {"reach the red block", "put it back"}


@pytest.mark.parametrize(("frame", "is_tcp"), [("tcp", True), ("base", False)])
def test_relative_chunks_are_anchored_at_the_pose_measured_at_their_stamp(tmp_path, frame, is_tcp) -> None:
    delta = np.eye(4)
    delta[:3, :3], delta[:3, 3] = Rotation.from_euler("z", 10, degrees=True).as_matrix(), (0.01, 0.02, 0.03)
    stamp = START + S

    def mend(messages: list[Message]) -> list[Message]:
        name = bag.robot.tcp_frame if is_tcp else bag.robot.base_frame
        chunk = bags.tool_chunk(stamp, name, ["tcp_delta"], [[delta], [delta]], [S // 10, S // 2])
        kept = [each for each in messages if "action_chunk" not in each.topic]
        return [*kept, Message("/policies/scripted/action_chunk", stamp + 1000, chunk)]

    bag = EpisodeBag(mend=mend)
    _, frames = make_frames(read(bag, tmp_path), TOOL)
    has = frames.columns["has_policy_action"][:, 0]
    due = frames.columns["stamp_ns"][:, 0] + S // 10
    np.testing.assert_array_equal(has, (due >= stamp + 1000) & (due <= stamp + S // 2))
    anchor = bag.model.forward_kinematics(bag.q(stamp))
    p = anchor[:3, 3] + (anchor[:3, :3] @ delta[:3, 3] if is_tcp else delta[:3, 3])
    R = anchor[:3, :3] @ delta[:3, :3] if is_tcp else delta[:3, :3] @ anchor[:3, :3]
    for row in frames.columns["policy_action"][has].astype(float):
        np.testing.assert_allclose(row[:3], p, atol=1e-7)
        np.testing.assert_allclose(Rotation.from_quat(row[3:7]).as_matrix(), R, atol=1e-6)


def test_bag_of_which_nobody_knows_the_gripper_makes_no_frames_with_one(tmp_path) -> None:
    def mend(messages: list[Message]) -> list[Message]:
        return [each for each in messages if "gripper" not in each.topic and each.topic != "/target"]

    with pytest.raises(DatasetError, match="gripper"):
        make_frames(read(EpisodeBag(duration_s=0.6, mend=mend), tmp_path), load_contract("openvla_bridge"))


def test_frames_begin_when_the_gripper_has_spoken(tmp_path) -> None:
    def mend(messages: list[Message]) -> list[Message]:
        return [m for m in messages if m.topic != "/gripper/state" or m.received_ns > START + S // 2]

    _, frames = make_frames(read(EpisodeBag(duration_s=1.5, mend=mend), tmp_path), TOOL)
    stamps = frames.columns["stamp_ns"][:, 0]
    assert START + S // 2 < stamps[0] < START + 0.6 * S
    (start,) = [each for each in frames.attributes["findings"] if each["kind"] == "start"]
    assert "gripper's opening is unknown" in start["text"]


def test_chunks_from_before_a_source_was_selected_again_are_not_its_own_action(tmp_path) -> None:
    """Teleop from 1.0 to 1.2 s; the policy's next chunk comes at 1.23 s, and those before were dropped."""

    def mend(messages: list[Message]) -> list[Message]:
        events = [
            Message("/episode/event", START + at, string(json.dumps({"event": "source", "source": source})))
            for at, source in ((S, "teleop"), (S + S // 5, "scripted"))
        ]
        return [*events, *(m for m in messages if m.topic != "/safety/verdict")]

    _, frames = make_frames(read(EpisodeBag(mend=mend), tmp_path), TOOL)
    due = frames.columns["stamp_ns"][:, 0] + S // 10
    has = dict(
        zip(((due - START) / 1e7).round().astype(int).tolist(), frames.columns["has_policy_action"][:, 0], strict=True)
    )
    assert (has[92], has[102], has[112], has[122], has[132]) == (True, False, False, False, True)
