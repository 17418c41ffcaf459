"""Messages to the core's types and back: what is sent is what is read, and what is malformed is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Transform, Twist
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import (
    JointTrajectory,
    JointTrajectoryPoint,
    MultiDOFJointTrajectory,
    MultiDOFJointTrajectoryPoint,
)

from vla_ros.errors import ChunkError, SensorError
from vla_ros.nodes import chunk_messages, image_messages, messages
from vla_ros.types import (
    CameraModel,
    Intervention,
    JointChunk,
    JointTarget,
    MotionState,
    ToolChunk,
    ToolTarget,
    Verdict,
)

pytestmark = pytest.mark.ros

TCP, BASE = "panda_hand_tcp", "panda_link0"
JOINTS = ("j1", "j2", "j3")
STAMP_NS = 1_700_000_000_123_456_789
TIMES_S = np.array([0.1, 0.25, 3.5])
OPENINGS = np.array([0.0, 0.5, 1.0])


def over_the_wire(message: Any) -> Any:
    """The message as a receiver gets it."""
    return deserialize_message(serialize_message(message), type(message))


def poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = rng.normal(size=(count, 3))
    return T


# Tool chunks


@pytest.mark.parametrize("frame", ["tcp", "base", "absolute"])
@pytest.mark.parametrize("openings", [OPENINGS, None], ids=["gripper", "no_gripper"])
@pytest.mark.parametrize("anchor", [poses(1, 7)[0], None], ids=["anchor", "no_anchor"])
def test_tool_chunk_is_read_as_it_was_sent(frame, openings, anchor) -> None:
    sent = ToolChunk(STAMP_NS, frame, poses(3), openings, TIMES_S, "p", anchor)
    message = over_the_wire(chunk_messages.to_tool_chunk_message(sent, TCP, BASE))
    read = chunk_messages.from_tool_chunk_message(message, "p", TCP, BASE)
    assert (read.stamp_ns, read.frame, read.source) == (STAMP_NS, frame, "p")
    np.testing.assert_allclose(read.transforms, sent.transforms, atol=1e-12)
    # A duration counts whole nanoseconds.
    np.testing.assert_allclose(read.time_from_start_s, TIMES_S, atol=1e-9)
    for got, wanted in ((read.openings, openings), (read.T_base_anchor, anchor)):
        assert (got is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_tool_chunk_on_the_wire_is_as_the_design_lays_it_down() -> None:
    T = np.eye(4)
    T[:3, 3] = (0.01, 0.0, -0.02)
    chunk = ToolChunk(STAMP_NS, "base", T[None], np.array([0.25]), np.array([0.1]), "p")
    message = chunk_messages.to_tool_chunk_message(chunk, TCP, BASE)
    assert message.joint_names == ["tcp_delta", "gripper"]
    assert message.header.frame_id == BASE
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 123_456_789)
    delta, gripper = message.points[0].transforms
    assert (delta.translation.x, delta.translation.y, delta.translation.z) == (0.01, 0.0, -0.02)
    assert delta.rotation.w == 1.0
    assert gripper.translation.x == 0.25
    assert (message.points[0].time_from_start.sec, message.points[0].time_from_start.nanosec) == (0, 100_000_000)


def test_tool_chunk_of_another_sender_may_order_its_names_and_scale_its_quaternions() -> None:
    anchor = Transform()
    anchor.translation.z, anchor.rotation.w = 0.3, 1.0
    gripper, delta = Transform(), Transform()
    gripper.translation.x = 1.0
    delta.rotation.z, delta.rotation.w = 3.0, 3.0
    point = MultiDOFJointTrajectoryPoint(transforms=[delta, anchor, gripper], time_from_start=Duration(sec=1))
    message = MultiDOFJointTrajectory(joint_names=["tcp_delta", "anchor", "gripper"], points=[point])
    message.header.frame_id = TCP
    read = chunk_messages.from_tool_chunk_message(message, "p", TCP, BASE)
    assert read.frame == "tcp"
    assert read.openings == pytest.approx([1.0])
    np.testing.assert_allclose(read.T_base_anchor, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.3], [0, 0, 0, 1]])
    np.testing.assert_allclose(read.transforms[0, :3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)


def tool_message() -> MultiDOFJointTrajectory:
    chunk = ToolChunk(STAMP_NS, "base", poses(3), OPENINGS, TIMES_S, "p", poses(1)[0])
    return chunk_messages.to_tool_chunk_message(chunk, TCP, BASE)


def zero_quaternion(transform: Transform) -> None:
    transform.rotation.x = transform.rotation.y = transform.rotation.z = transform.rotation.w = 0.0


def set_names(*names: str) -> Callable[[Any], None]:
    return lambda m: setattr(m, "joint_names", list(names))


def set_time(point: int, time_s: float) -> Callable[[Any], None]:
    return lambda m: setattr(m.points[point], "time_from_start", messages.to_duration(time_s))


MALFORMED_TOOL_CHUNKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "nan position": (lambda m: setattr(m.points[1].transforms[0].translation, "y", math.nan), "isn't finite"),
    "infinite position": (lambda m: setattr(m.points[2].transforms[0].translation, "x", math.inf), "isn't finite"),
    "nan rotation": (lambda m: setattr(m.points[1].transforms[0].rotation, "x", math.nan), "quaternion"),
    "infinite rotation": (lambda m: setattr(m.points[1].transforms[0].rotation, "w", -math.inf), "quaternion"),
    "zero quaternion": (lambda m: zero_quaternion(m.points[0].transforms[0]), "quaternion .* zero"),
    "nan anchor": (lambda m: setattr(m.points[0].transforms[2].translation, "z", math.nan), "isn't finite"),
    "zero anchor quaternion": (lambda m: zero_quaternion(m.points[0].transforms[2]), "quaternion .* zero"),
    "no names": (set_names(), r"joint_names \[\]"),
    "unknown first name": (set_names("hand", "gripper", "anchor"), "joint_names .*hand"),
    "unknown further name": (set_names("tcp_delta", "thumb", "anchor"), "joint_names .*thumb"),
    "name given twice": (set_names("tcp_delta", "gripper", "gripper"), "name one thing twice"),
    "frame of nobody": (lambda m: setattr(m.header, "frame_id", "world"), "frame_id 'world'"),
    "no frame": (lambda m: setattr(m.header, "frame_id", ""), "frame_id ''"),
    "absolute in the tcp's frame": (
        lambda m: (set_names("tcp", "gripper", "anchor")(m), setattr(m.header, "frame_id", TCP)),
        "absolute poses in frame",
    ),
    "no points": (lambda m: setattr(m, "points", []), "has no points"),
    "a point before the stamp": (set_time(0, -0.5), r"time_from_start \[-0.5"),
    "equal times": (set_time(1, 0.1), "time_from_start .* increase"),
    "decreasing times": (set_time(2, 0.2), "time_from_start .* increase"),
    "opening above 1": (lambda m: setattr(m.points[1].transforms[1].translation, "x", 1.01), "opening .* isn't in"),
    "opening below 0": (lambda m: setattr(m.points[1].transforms[1].translation, "x", -0.01), "opening .* isn't in"),
    "nan opening": (lambda m: setattr(m.points[1].transforms[1].translation, "x", math.nan), "opening .* isn't in"),
    "too few transforms": (lambda m: m.points[2].transforms.pop(), "point 2 has 2 transforms"),
    "too many transforms": (lambda m: m.points[0].transforms.append(Transform()), "point 0 has 4 transforms"),
}


@pytest.mark.parametrize("case", MALFORMED_TOOL_CHUNKS)
def test_malformed_tool_chunk_is_refused_by_name(case: str) -> None:
    spoil, text = MALFORMED_TOOL_CHUNKS[case]
    message = tool_message()
    chunk_messages.from_tool_chunk_message(message, "sender", TCP, BASE)
    spoil(message)
    with pytest.raises(ChunkError, match=f"chunk of sender.*{text}"):
        chunk_messages.from_tool_chunk_message(over_the_wire(message), "sender", TCP, BASE)


# Joint chunks


@pytest.mark.parametrize("openings", [OPENINGS, None], ids=["gripper", "no_gripper"])
def test_joint_chunk_is_read_as_it_was_sent(openings) -> None:
    positions = np.random.default_rng(0).normal(size=(3, 3))
    sent = JointChunk(STAMP_NS, positions, openings, TIMES_S, "p")
    message = over_the_wire(chunk_messages.to_joint_chunk_message(sent, JOINTS))
    read = chunk_messages.from_joint_chunk_message(message, "p", JOINTS)
    assert (read.stamp_ns, read.source) == (STAMP_NS, "p")
    np.testing.assert_array_equal(read.positions, positions)
    np.testing.assert_allclose(read.time_from_start_s, TIMES_S, atol=1e-9)
    assert (read.openings is None) == (openings is None)
    if openings is not None:
        np.testing.assert_array_equal(read.openings, openings)


def joint_message() -> JointTrajectory:
    points = [
        JointTrajectoryPoint(positions=[0.3, 0.5, 0.1, 0.2], time_from_start=Duration(sec=second)) for second in (1, 2)
    ]
    return JointTrajectory(joint_names=["j3", "gripper", "j1", "j2"], points=points)


def test_joint_chunk_is_matched_by_name_whatever_its_order() -> None:
    read = chunk_messages.from_joint_chunk_message(over_the_wire(joint_message()), "p", JOINTS)
    np.testing.assert_array_equal(read.positions, [[0.1, 0.2, 0.3]] * 2)
    np.testing.assert_array_equal(read.openings, [0.5, 0.5])


def set_position(point: int, index: int, value: float) -> Callable[[Any], None]:
    return lambda m: m.points[point].positions.__setitem__(index, value)


MALFORMED_JOINT_CHUNKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "nan": (set_position(1, 3, math.nan), "isn't finite"),
    "infinity": (set_position(0, 0, math.inf), "isn't finite"),
    "missing joint": (set_names("j3", "gripper", "j1", "gripper"), r"joint_names \['j3', 'gripper', 'j1', 'gripper'\]"),
    "unknown joint": (set_names("j3", "j4", "j1", "j2"), "joint_names .*j4"),
    "joint given twice": (set_names("j3", "j3", "j1", "j2"), "joint_names .*'j3', 'j3'"),
    "nearly the name": (set_names("j3", "gripper", "J1", "j2"), "joint_names .*J1"),
    "no names": (set_names(), r"joint_names \[\]"),
    "too few positions": (lambda m: m.points[1].positions.pop(), "point 1 has 3 positions for 4 joints"),
    "too many positions": (lambda m: m.points[0].positions.append(0.0), "point 0 has 5 positions for 4 joints"),
    "no points": (lambda m: setattr(m, "points", []), "has no points"),
    "a point before the stamp": (set_time(0, -1e-9), "time_from_start"),
    "equal times": (set_time(1, 1.0), "time_from_start .* increase"),
    "opening above 1": (set_position(1, 1, 1.5), "opening .* isn't in"),
    "opening below 0": (set_position(0, 1, -0.1), "opening .* isn't in"),
}


@pytest.mark.parametrize("case", MALFORMED_JOINT_CHUNKS)
def test_malformed_joint_chunk_is_refused_by_name(case: str) -> None:
    spoil, text = MALFORMED_JOINT_CHUNKS[case]
    message = joint_message()
    spoil(message)
    with pytest.raises(ChunkError, match=f"chunk of sender.*{text}"):
        chunk_messages.from_joint_chunk_message(over_the_wire(message), "sender", JOINTS)


# Targets


@pytest.mark.parametrize("opening", [0.75, None])
def test_tool_target_is_read_as_it_was_sent(opening: float | None) -> None:
    sent = ToolTarget(STAMP_NS, poses(1)[0], np.array([0.1, -0.2, 0.3, 1.0, -2.0, 3.0]), opening)
    message = over_the_wire(chunk_messages.to_target_message(sent, BASE))
    read = chunk_messages.from_target_message(message, BASE)
    assert (read.stamp_ns, read.gripper_opening) == (STAMP_NS, opening)
    np.testing.assert_allclose(read.T_base_tcp, sent.T_base_tcp, atol=1e-12)
    np.testing.assert_array_equal(read.twist_tcp_in_base, sent.twist_tcp_in_base)


@pytest.mark.parametrize("opening", [0.75, None])
def test_joint_target_is_read_as_it_was_sent(opening: float | None) -> None:
    sent = JointTarget(STAMP_NS, np.array([0.1, 0.2, 0.3]), np.array([-1.0, 0.0, 1.0]), opening)
    message = over_the_wire(chunk_messages.to_joint_target_message(sent, JOINTS))
    for names in (JOINTS, JOINTS[::-1]):
        read = chunk_messages.from_joint_target_message(message, names)
        assert (read.stamp_ns, read.gripper_opening) == (STAMP_NS, opening)
        order = [JOINTS.index(name) for name in names]
        np.testing.assert_array_equal(read.positions, sent.positions[order])
        np.testing.assert_array_equal(read.velocities, sent.velocities[order])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_target_with_a_twist_that_is_no_number_is_refused(value: float) -> None:
    message = chunk_messages.to_target_message(ToolTarget(STAMP_NS, poses(1)[0], np.zeros(6)), BASE)
    message.points[0].velocities = [Twist()]
    message.points[0].velocities[0].angular.y = value
    with pytest.raises(ChunkError, match=r"target.*finite"):
        chunk_messages.from_target_message(message, BASE)
    joint = chunk_messages.to_joint_target_message(JointTarget(STAMP_NS, np.zeros(3), np.zeros(3)), JOINTS)
    joint.points[0].velocities[1] = value
    with pytest.raises(ChunkError, match=r"joint_target.*finite"):
        chunk_messages.from_joint_target_message(joint, JOINTS)


def test_target_has_to_be_one_absolute_pose_in_base() -> None:
    delta = chunk_messages.to_tool_chunk_message(ToolChunk(0, "base", poses(1), None, np.array([0.0]), "p"), TCP, BASE)
    several = chunk_messages.to_tool_chunk_message(ToolChunk(0, "absolute", poses(3), None, TIMES_S, "p"), TCP, BASE)
    for message in (delta, several):
        with pytest.raises(ChunkError, match="one absolute pose"):
            chunk_messages.from_target_message(message, BASE)


# Images


def picture(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_message(rows: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """(h, w, channels) uint8 as a driver would send it, with some bytes behind each row."""
    height, width, channels = rows.shape
    padded = np.full((height, width * channels + padding), 99, dtype=np.uint8)
    padded[:, : width * channels] = rows.reshape(height, -1)
    message = Image(height=height, width=width, encoding=encoding, step=padded.shape[1])
    message.data = padded.tobytes()
    message.header.frame_id = "camera_frame"
    return message


def test_image_is_read_as_it_was_sent() -> None:
    sent = picture()
    message = over_the_wire(image_messages.to_image(sent, STAMP_NS, "camera"))
    assert (message.encoding, message.width, message.height, message.step) == ("rgb8", 7, 5, 21)
    assert messages.to_ns(message.header.stamp) == STAMP_NS
    assert message.header.frame_id == "camera"
    np.testing.assert_array_equal(image_messages.from_image(message), sent)


def test_view_into_a_larger_image_is_sent_as_it_looks() -> None:
    sent = picture(10, 14)[2:7, 3:10, ::-1]
    np.testing.assert_array_equal(image_messages.from_image(image_messages.to_image(sent, 0, "")), sent)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC3", "8UC1"])
def test_every_encoding_becomes_rgb(encoding: str, padding: int) -> None:
    rgb = picture()
    if encoding in ("mono8", "8UC1"):
        rgb = np.repeat(rgb[:, :, :1], 3, axis=2)
    channels = {
        "rgb8": [rgb],
        "bgr8": [rgb[:, :, ::-1]],
        "rgba8": [rgb, np.full((5, 7, 1), 17)],
        "bgra8": [rgb[:, :, ::-1], np.full((5, 7, 1), 17)],
        "mono8": [rgb[:, :, :1]],
        "8UC1": [rgb[:, :, :1]],
        # OpenCV's own order.
        "8UC3": [rgb[:, :, ::-1]],
    }[encoding]
    message = image_message(np.concatenate(channels, axis=2).astype(np.uint8), encoding, padding)
    read = image_messages.from_image(over_the_wire(message))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, rgb)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: setattr(m, "height", 6),
        lambda m: setattr(m, "width", 8),
        lambda m: setattr(m, "step", 20),
        lambda m: setattr(m, "data", m.data[:-1]),
        lambda m: setattr(m, "encoding", "rgba8"),
    ],
)
def test_image_whose_size_does_not_fit_its_bytes_is_refused(spoil: Callable[[Image], None]) -> None:
    message = image_message(picture(), "rgb8")
    spoil(message)
    with pytest.raises(SensorError, match=r"camera_frame holds .* bytes for"):
        image_messages.from_image(message)


def test_unknown_encoding_is_refused_by_name() -> None:
    message = image_message(picture(), "encoding_of_nobody")
    with pytest.raises(Exception, match="encoding_of_nobody"):
        image_messages.from_image(message)


LENS = (0.1, -0.2, 0.001, 0.002, 0.05, 0.3, -0.4, 0.01)


@pytest.mark.parametrize(
    ("distortion", "model"),
    [((), "plumb_bob"), (LENS[:4], "plumb_bob"), (LENS[:5], "plumb_bob"), (LENS, "rational_polynomial")],
)
def test_camera_info_is_read_as_it_was_sent(distortion: tuple[float, ...], model: str) -> None:
    K = np.array([[300.0, 0.0, 159.5], [0.0, 310.0, 119.5], [0.0, 0.0, 1.0]])
    sent = CameraModel(320, 240, K, distortion)
    message = over_the_wire(image_messages.to_camera_info(sent, STAMP_NS, "camera"))
    read = image_messages.from_camera_info(message)
    assert (read.width, read.height) == (320, 240)
    np.testing.assert_array_equal(read.K, K)
    assert read.distortion[: len(distortion)] == distortion
    assert not any(read.distortion[len(distortion) :])
    # sensor_msgs/distortion_models.hpp: plumb_bob has 5 coefficients, rational_polynomial 8.
    assert (message.distortion_model, len(message.d)) == (model, 8 if model == "rational_polynomial" else 5)
    # What others read: projection without a lens, and no rectification.
    np.testing.assert_array_equal(np.reshape(message.p, (3, 4)), np.column_stack([K, np.zeros(3)]))
    np.testing.assert_array_equal(np.reshape(message.r, (3, 3)), np.eye(3))
    assert messages.to_ns(message.header.stamp) == STAMP_NS


def test_camera_info_of_a_driver_without_distortion_has_none() -> None:
    message = CameraInfo(width=4, height=3, k=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], d=[])
    assert image_messages.from_camera_info(message).distortion == ()


@pytest.mark.parametrize("model", ["equidistant", "fisheye", "Plumb_Bob"])
@pytest.mark.parametrize("coefficients", [[0.0] * 4, [0.1, 0.0, 0.0, 0.0]])
def test_lens_of_another_kind_is_refused_by_name(model: str, coefficients: list[float]) -> None:
    """A fisheye bends with all coefficients 0, too."""
    k = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message = CameraInfo(width=4, height=3, k=k, d=coefficients, distortion_model=model)
    with pytest.raises(SensorError, match=f"distortion model '{model}'"):
        image_messages.from_camera_info(message)


# Joint states


def read_joints(message: JointState, opening: float | None = None):
    return messages.JointStateReader(JOINTS, "arm/joint_states").read(message, opening)


def test_joint_state_is_matched_by_exact_name_in_any_order() -> None:
    sent = messages.to_joint_state(
        STAMP_NS, ["j2", "finger", "j3", "j1"], np.array([0.2, 9.0, 0.3, 0.1]), np.array([2.0, 9.0, 3.0, 1.0])
    )
    state = read_joints(over_the_wire(sent), 0.4)
    np.testing.assert_array_equal(state.positions, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(state.velocities, [1.0, 2.0, 3.0])
    assert (state.stamp_ns, state.gripper_opening) == (STAMP_NS, 0.4)


def test_reader_notices_that_the_order_changed() -> None:
    reader = messages.JointStateReader(JOINTS, "arm/joint_states")
    for names in (["j1", "j2", "j3"], ["j3", "j1", "j2"], ["j2", "j3", "j1"]):
        positions = [float(name[1]) for name in names]
        state = reader.read(JointState(name=names, position=positions), None)
        np.testing.assert_array_equal(state.positions, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("velocities", [[], [1.0]])
def test_joint_state_without_velocities_counts_as_at_rest(velocities: list[float]) -> None:
    state = read_joints(JointState(name=list(JOINTS), position=[0.1, 0.2, 0.3], velocity=velocities))
    np.testing.assert_array_equal(state.velocities, np.zeros(3))


@pytest.mark.parametrize(
    ("names", "positions", "text"),
    [
        (["j1", "j2"], [0.0] * 2, r"needs each of \['j3'\]"),
        (["j1", "j2", "left_j3"], [0.0] * 3, r"needs each of \['j3'\]"),
        (["j1", "j2", "j3", "j2"], [0.0] * 4, r"needs each of \['j2'\] exactly once"),
        (["j1", "j2", "j3"], [0.0] * 2, "2 positions for 3 names"),
        ([], [], "needs each of"),
        (["j1", "j2", "j3"], [0.0, math.nan, 0.0], "j2 .*isn't finite"),
        (["j1", "j2", "j3"], [0.0, 0.0, -math.inf], "j3 .*isn't finite"),
    ],
)
def test_joint_state_that_does_not_tell_the_arm_is_refused_by_name(names, positions, text) -> None:
    with pytest.raises(SensorError, match=f"arm/joint_states.*{text}"):
        read_joints(JointState(name=names, position=positions))


# Times, poses, verdicts


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, STAMP_NS, -1, -1_500_000_000])
def test_time_is_read_as_it_was_sent(stamp_ns: int) -> None:
    time = messages.to_time(stamp_ns)
    assert 0 <= time.nanosec < 1_000_000_000
    assert messages.to_ns(over_the_wire(time)) == stamp_ns


@pytest.mark.parametrize("duration_s", [0.0, 1e-9, 0.1, -0.1, -1.0, -1.25, 2.0**31 - 1.0, -(2.0**31)])
def test_duration_is_read_as_it_was_sent_negative_and_huge_ones_too(duration_s: float) -> None:
    duration = messages.to_duration(duration_s)
    assert 0 <= duration.nanosec < 1_000_000_000
    assert messages.duration_s(over_the_wire(duration)) == pytest.approx(duration_s, rel=1e-12, abs=1e-15)


def test_transform_is_read_as_it_was_sent_and_its_quaternion_has_the_scalar_last() -> None:
    for T in poses(20):
        message = messages.to_transform(T)
        np.testing.assert_allclose(messages.from_transform(over_the_wire(message)), T, atol=1e-12)
        q = message.rotation
        np.testing.assert_allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), T[:3, :3], atol=1e-12)


def test_verdict_names_state_source_and_every_limit_with_its_level() -> None:
    verdict = Verdict(MotionState.RUNNING, (Intervention("workspace", "0.1 m outside"), Intervention("speed", "fast")))
    (status,) = over_the_wire(messages.to_verdict_message(verdict, STAMP_NS, "safety_node", "p")).status
    assert (status.name, status.message, status.level) == ("safety_node", "running", b"\x01")
    assert {item.key: item.value for item in status.values} == {
        "source": "p",
        "workspace": "0.1 m outside",
        "speed": "fast",
    }
    levels = {
        state: messages.to_verdict_message(Verdict(state), 0, "", "").status[0].level
        for state in (MotionState.RUNNING, MotionState.STOPPED, MotionState.FAULT)
    }
    assert levels == {MotionState.RUNNING: b"\x00", MotionState.STOPPED: b"\x01", MotionState.FAULT: b"\x02"}
