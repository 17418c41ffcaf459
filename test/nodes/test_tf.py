"""TF: our buffer by hand, over DDS, and beside tf2's where that is installed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from scipy.spatial.transform import Rotation

from vla_ros.geometry.se3 import make_pose
from vla_ros.nodes import messages
from vla_ros.nodes.tf import TransformBroadcaster, TransformBuffer, TransformError, TransformListener

pytestmark = pytest.mark.ros

S = 1_000_000_000


def pose(x: float, y: float, z: float, about_z_deg: float = 0.0) -> np.ndarray:
    return make_pose(np.array([x, y, z]), Rotation.from_euler("z", about_z_deg, degrees=True).as_matrix())


def arm_with_camera() -> TransformBuffer:
    """base -> tcp moves to (0.2, 0, 0.4) and turns by a right angle in one second; a camera on the tcp."""
    buffer = TransformBuffer()
    buffer.set_transform("base", "tcp", pose(0, 0, 0), 10 * S, is_static=False)
    buffer.set_transform("base", "tcp", pose(0.2, 0, 0.4, 90), 11 * S, is_static=False)
    buffer.set_transform("tcp", "camera", pose(0.1, 0, 0), 0, is_static=True)
    return buffer


def knows(buffer: TransformBuffer, target: str, source: str, stamp_ns: int | None = None) -> bool:
    try:
        buffer.lookup(target, source, stamp_ns)
    except TransformError:
        return False
    return True


def test_static_transform_holds_at_any_time_and_both_ways() -> None:
    buffer = TransformBuffer()
    T = pose(1, 2, 3, 30)
    buffer.set_transform("base", "camera", T, 5 * S, is_static=True)
    for stamp_ns in (None, 0, 5 * S, 10**18):
        np.testing.assert_array_equal(buffer.lookup("base", "camera", stamp_ns), T)
        np.testing.assert_allclose(buffer.lookup("camera", "base", stamp_ns), np.linalg.inv(T), atol=1e-12)


def test_moving_transform_is_met_at_its_times_and_halfway_between() -> None:
    buffer = arm_with_camera()
    np.testing.assert_allclose(buffer.lookup("base", "tcp", 10 * S), pose(0, 0, 0))
    np.testing.assert_allclose(buffer.lookup("base", "tcp", 11 * S), pose(0.2, 0, 0.4, 90))
    # By hand: half the way, half the angle.
    np.testing.assert_allclose(buffer.lookup("base", "tcp", 10 * S + S // 2), pose(0.1, 0, 0.2, 45), atol=1e-12)
    np.testing.assert_allclose(buffer.lookup("base", "tcp", 10 * S + S // 4), pose(0.05, 0, 0.1, 22.5), atol=1e-12)


def test_static_after_moving_is_composed_at_the_time_asked_for() -> None:
    # By hand: the camera is 0.1 m along the tcp's x, which points along base's (1, 1) / sqrt(2) halfway.
    found = arm_with_camera().lookup("base", "camera", 10 * S + S // 2)
    np.testing.assert_allclose(found[:3, 3], [0.1 + 0.1 / np.sqrt(2), 0.1 / np.sqrt(2), 0.2], atol=1e-12)


def test_without_a_time_the_newest_is_meant() -> None:
    np.testing.assert_allclose(arm_with_camera().lookup("base", "camera"), pose(0.2, 0.1, 0.4, 90), atol=1e-12)


def test_frames_on_two_branches_meet_at_their_common_parent() -> None:
    buffer = arm_with_camera()
    buffer.set_transform("world", "base", pose(5, 5, 5), 0, is_static=True)
    buffer.set_transform("base", "table", pose(0, 0, -1, 90), 0, is_static=True)
    found = buffer.lookup("table", "camera", 11 * S)
    # By hand: the camera is at (0.2, 0.1, 0.4) in base; the table's x is base's y.
    np.testing.assert_allclose(found, pose(0.1, -0.2, 1.4), atol=1e-12)


def test_a_frame_in_itself_is_the_identity() -> None:
    np.testing.assert_array_equal(arm_with_camera().lookup("tcp", "tcp"), np.eye(4))


def test_late_transform_is_sorted_in_and_a_repeated_one_replaces() -> None:
    buffer = TransformBuffer()
    for second in (10, 12, 11):
        buffer.set_transform("base", "tcp", pose(second, 0, 0), second * S, is_static=False)
    assert buffer.lookup("base", "tcp", 11 * S)[0, 3] == 11
    assert buffer.lookup("base", "tcp", 11 * S + S // 2)[0, 3] == pytest.approx(11.5)
    buffer.set_transform("base", "tcp", pose(99, 0, 0), 11 * S, is_static=False)
    assert buffer.lookup("base", "tcp", 11 * S)[0, 3] == 99
    assert buffer.lookup("base", "tcp")[0, 3] == 12


def test_unknown_frame_is_refused_with_the_names_that_are_known() -> None:
    with pytest.raises(TransformError, match="from 'wrist' to 'base'; frames known: base, camera, tcp"):
        arm_with_camera().lookup("base", "wrist")
    with pytest.raises(TransformError, match="frames known: none"):
        TransformBuffer().lookup("base", "tcp")


def test_frames_of_two_trees_are_not_connected() -> None:
    buffer = arm_with_camera()
    buffer.set_transform("map", "odom", pose(0, 0, 0), 0, is_static=True)
    with pytest.raises(TransformError, match="from 'camera' to 'odom'"):
        buffer.lookup("odom", "camera")


def test_circle_is_refused() -> None:
    buffer = TransformBuffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        buffer.set_transform(parent, child, pose(0, 0, 1), 0, is_static=True)
    with pytest.raises(TransformError, match="circle"):
        buffer.lookup("a", "c")
    buffer = TransformBuffer()
    buffer.set_transform("a", "a", pose(0, 0, 1), 0, is_static=True)
    with pytest.raises(TransformError, match="circle"):
        buffer.lookup("a", "b")


@pytest.mark.parametrize("stamp_ns", [10 * S - 1, 11 * S + 1])
def test_time_outside_of_what_is_known_is_refused_with_the_range(stamp_ns: int) -> None:
    with pytest.raises(TransformError, match=r"'tcp' is known from 10\.000 s to 11\.000 s, not at"):
        arm_with_camera().lookup("base", "camera", stamp_ns)


def test_what_is_too_old_is_forgotten() -> None:
    buffer = TransformBuffer(duration_s=2.0)
    for second in range(10):
        buffer.set_transform("base", "tcp", pose(second, 0, 0), second * S, is_static=False)
    assert buffer.lookup("base", "tcp", 8 * S)[0, 3] == 8
    with pytest.raises(TransformError, match="not at 6"):
        buffer.lookup("base", "tcp", 6 * S)


def test_new_parent_takes_the_child_and_its_past_from_the_old_one() -> None:
    buffer = arm_with_camera()
    buffer.set_transform("base", "camera", pose(7, 0, 0), 12 * S, is_static=False)
    np.testing.assert_array_equal(buffer.lookup("base", "camera"), pose(7, 0, 0))
    with pytest.raises(TransformError, match="'camera' is known from 12"):
        buffer.lookup("base", "camera", 11 * S)
    # And the static mount on the tcp is gone for good.
    np.testing.assert_allclose(
        buffer.lookup("tcp", "camera", None), np.linalg.inv(pose(0.2, 0, 0.4, 90)) @ pose(7, 0, 0)
    )


def test_moving_frame_forgets_its_past_in_the_old_parent() -> None:
    buffer = arm_with_camera()
    buffer.set_transform("world", "tcp", pose(7, 0, 0), 12 * S, is_static=False)
    np.testing.assert_array_equal(buffer.lookup("world", "tcp", 12 * S), pose(7, 0, 0))
    with pytest.raises(TransformError, match="'tcp' is known from 12"):
        buffer.lookup("world", "tcp", 11 * S)


def test_what_is_broadcast_is_heard_by_listeners_before_and_after(make_peer, patience) -> None:
    arm, early, late = make_peer("arm"), make_peer("early"), make_peer("late")
    buffers = [TransformBuffer(), TransformBuffer(), TransformBuffer()]
    TransformListener(early.node, buffers[0])
    TransformListener(early.node, buffers[2], with_moving=False)
    broadcaster = TransformBroadcaster(arm.node)
    mount = pose(0.1, 0.2, 0.3, 15)
    broadcaster.send([("tcp", "camera", mount)], 3 * S, is_static=True)
    TransformListener(late.node, buffers[1])
    patience(lambda: arm.node.count_subscribers("/tf") == 2, "both listeners")

    def send_until_heard() -> bool:
        for second in (10, 12):
            broadcaster.send([("base", "tcp", pose(second, 0, 0))], second * S, is_static=False)
        return all(knows(buffer, "base", "camera", 11 * S) for buffer in buffers[:2]) and knows(
            buffers[2], "tcp", "camera"
        )

    patience(send_until_heard, "the transforms")
    for buffer in buffers[:2]:
        np.testing.assert_allclose(buffer.lookup("base", "camera", 11 * S), pose(11, 0, 0) @ mount, atol=1e-12)
    np.testing.assert_allclose(buffers[2].lookup("tcp", "camera"), mount, atol=1e-12)
    with pytest.raises(TransformError, match="'base'"):
        buffers[2].lookup("base", "camera")


def test_listener_leaves_out_what_is_no_rotation(make_peer, patience) -> None:
    from tf2_msgs.msg import TFMessage

    peer = make_peer("arm")
    buffer = TransformBuffer()
    TransformListener(peer.node, buffer)
    good, bad = (messages.to_transform_stamped(pose(1, 0, 0), "base", name, S) for name in ("good", "bad"))
    bad.transform.rotation.w = 0.0
    publisher = peer.matched(peer.speak(TFMessage, "/tf"))
    publisher.publish(TFMessage(transforms=[bad, good]))
    patience(lambda: knows(buffer, "base", "good"), "the good transform")
    with pytest.raises(TransformError, match="'bad'"):
        buffer.lookup("base", "bad")


def test_tf2_answers_the_same_lookups_alike() -> None:
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros isn't installed: it comes with a ROS distribution only")
    from rclpy.time import Time

    rng = np.random.default_rng(0)
    ours, theirs = TransformBuffer(), tf2_ros.Buffer()
    edges = [("base", "link1", False), ("link1", "link2", False), ("link2", "camera", True), ("base", "table", True)]
    for parent, child, is_static in edges:
        for second in (10,) if is_static else (10, 11, 12):
            T = make_pose(rng.normal(size=3), Rotation.random(random_state=rng).as_matrix())
            ours.set_transform(parent, child, T, second * S, is_static)
            stamped = messages.to_transform_stamped(T, parent, child, second * S)
            (theirs.set_transform_static if is_static else theirs.set_transform)(stamped, "test")
    for stamp_ns in (10 * S, 10 * S + 250_000_000, 11 * S, 11 * S + 999_999_999, 12 * S):
        for target in ("base", "table", "link1"):
            found = theirs.lookup_transform(target, "camera", Time(nanoseconds=stamp_ns))
            expected = messages.from_transform(found.transform)
            np.testing.assert_allclose(ours.lookup(target, "camera", stamp_ns), expected, atol=1e-9)
    for target, stamp_ns in (("nowhere", 11 * S), ("base", 13 * S), ("base", 9 * S)):
        with pytest.raises(tf2_ros.TransformException):
            theirs.lookup_transform(target, "camera", Time(nanoseconds=stamp_ns))
        with pytest.raises(TransformError):
            ours.lookup(target, "camera", stamp_ns)
