"""The chunk timeline: absolute times, late points, seams without steps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import DecayingOffset, OffsetLimits, SplinePath, angular_velocity, unwrapped_rotvecs
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.types import JointChunk, ToolChunk

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
ANCHOR = se3.make_pose(np.array([0.4, 0.1, 0.3]), Rotation.from_euler("x", 180, degrees=True).as_matrix())
TOOL_LIMITS = OffsetLimits(np.full(6, 0.5), np.full(6, 4.0), np.full(6, 100.0))
JOINT_LIMITS = OffsetLimits(np.full(2, 2.0), np.full(2, 10.0), np.full(2, 1000.0))
TIMES_S = 0.1 * np.arange(1, 9)


def straight_chunk(stamp_ns: int, speed_m_s: float = 0.1, source: str = "p") -> ToolChunk:
    deltas = se3.make_pose(np.outer(TIMES_S, [speed_m_s, 0.0, 0.0]))
    return ToolChunk(stamp_ns, "base", deltas, np.linspace(1.0, 0.0, 8), TIMES_S, source)


def test_points_are_passed_at_their_times_whatever_the_delay() -> None:
    for delay_ns in (0, NS // 10, 3 * NS // 10):
        timeline = ChunkTimeline(max_age_s=1.0)
        chunk = straight_chunk(START_NS)
        timeline.offer(chunk, START_NS + delay_ns, ANCHOR, None)
        for k, time_s in enumerate(TIMES_S):
            sample = timeline.sample(START_NS + round(time_s * NS))
            assert sample is not None
            np.testing.assert_allclose(sample.T_base_tcp, se3.compose_base(ANCHOR, chunk.transforms[k]), atol=1e-9)


def test_motion_rests_at_the_last_point() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(straight_chunk(START_NS), START_NS, ANCHOR, None)
    sample = timeline.sample(START_NS + 2 * NS)
    assert sample is not None
    assert sample.is_exhausted
    np.testing.assert_allclose(sample.T_base_tcp[:3, 3], ANCHOR[:3, 3] + [0.08, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(sample.velocity, np.zeros(6))


def test_gripper_steps_at_its_points_and_is_never_averaged() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(straight_chunk(START_NS), START_NS, ANCHOR, None)
    openings = {timeline.sample(START_NS + ms * 1_000_000).gripper_opening for ms in range(0, 900, 7)}  # type: ignore[union-attr]
    assert openings <= {None, *np.linspace(1.0, 0.0, 8).tolist()}
    assert timeline.sample(START_NS + 50_000_000).gripper_opening is None  # type: ignore[union-attr]
    assert timeline.sample(START_NS + 2 * NS).gripper_opening == 0.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("delay_s", "text"),
    [(0.9, "all 8 points .* are late"), (1.5, r"is 1\.500 s old \(limit 1\.0 s\)"), (-2.0, "2.000 s in the future")],
)
def test_chunk_of_another_time_is_refused(delay_s: float, text: str) -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    with pytest.raises(ChunkError, match=text):
        timeline.offer(straight_chunk(START_NS), START_NS + round(delay_s * NS), ANCHOR, None)
    assert timeline.sample(START_NS) is None


def test_duplicate_and_reordered_chunks_are_refused() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(straight_chunk(START_NS), START_NS, ANCHOR, None)
    for stamp_ns in (START_NS, START_NS - 1):
        with pytest.raises(ChunkError, match="older than the one in force or the same"):
            timeline.offer(straight_chunk(stamp_ns), START_NS + 1, ANCHOR, None)


def test_seam_has_no_step_in_position_velocity_or_acceleration() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(straight_chunk(START_NS), START_NS, ANCHOR, None)
    seam_ns = START_NS + 250_000_000
    before = timeline.sample(seam_ns)
    turned = se3.make_pose(
        np.array([0.01, 0.0, 0.0]) + np.outer(TIMES_S, [0.0, 0.2, 0.05]),
        Rotation.from_rotvec([0.0, 0.0, 0.3]).as_matrix(),
    )
    timeline.offer(
        ToolChunk(seam_ns, "base", turned, None, TIMES_S, "p"), seam_ns, before.T_base_tcp, before, TOOL_LIMITS
    )  # type: ignore[union-attr, arg-type]
    after = timeline.sample(seam_ns)
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after.T_base_tcp, before.T_base_tcp, atol=1e-9)
    np.testing.assert_allclose(after.velocity, before.velocity, atol=1e-9)
    np.testing.assert_allclose(after.acceleration, before.acceleration, atol=1e-6)
    # And after the blend the new chunk's points are met.
    late = timeline.sample(seam_ns + 3 * NS)
    np.testing.assert_allclose(late.T_base_tcp[:3, 3], before.T_base_tcp[:3, 3] + turned[-1, :3, 3], atol=1e-9)  # type: ignore[union-attr]


def test_joint_seam_has_no_step() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(
        JointChunk(START_NS, np.array([[0.5, 0.0]]), None, np.array([1.0]), "p"), START_NS, np.zeros(2), None
    )
    now_ns = START_NS + NS // 2
    before = timeline.sample(now_ns)
    chunk = JointChunk(now_ns, np.array([[0.0, 0.4]]), None, np.array([1.0]), "p")
    timeline.offer(chunk, now_ns, before.positions, before, JOINT_LIMITS)  # type: ignore[union-attr, arg-type]
    after = timeline.sample(now_ns)
    np.testing.assert_allclose(after.positions, before.positions, atol=1e-12)  # type: ignore[union-attr]
    np.testing.assert_allclose(after.velocity, before.velocity, atol=1e-9)  # type: ignore[union-attr]


def test_reported_velocity_is_the_derivative_of_the_pose() -> None:
    rng = np.random.default_rng(3)
    deltas = se3.make_pose(
        np.cumsum(rng.normal(0, 0.02, (8, 3)), axis=0),
        Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.2, (8, 3)), axis=0)).as_matrix(),
    )
    timeline = ChunkTimeline(max_age_s=1.0)
    start = Sample(ANCHOR, None, np.array([0.1, 0, 0, 0, 0.5, 0]), np.zeros(6), None, START_NS, False)
    timeline.offer(ToolChunk(START_NS, "tcp", deltas, None, TIMES_S, "p"), START_NS, ANCHOR, start, TOOL_LIMITS)
    half_ns = 50_000
    for ms in range(5, 790, 10):
        now_ns = START_NS + ms * 1_000_000
        before, here, after = (timeline.sample(now_ns + shift) for shift in (-half_ns, 0, half_ns))
        numeric = se3.pose_error(before.T_base_tcp, after.T_base_tcp) / (2e-9 * half_ns)  # type: ignore[union-attr]
        # Central differences over 0.1 ms: error about jerk * h^2 / 6.
        np.testing.assert_allclose(here.velocity, numeric, atol=2e-5)  # type: ignore[union-attr]


def test_rotation_passes_a_half_turn_without_turning_back() -> None:
    angles = np.linspace(0.0, 1.5 * np.pi, 16)
    R = Rotation.from_rotvec(np.outer(angles, [0.0, 0.0, 1.0])).as_matrix()
    rotvecs = unwrapped_rotvecs(R[0], R)
    np.testing.assert_allclose(rotvecs[:, 2], angles, atol=1e-9)
    path = SplinePath(np.linspace(0.0, 1.5, 16), rotvecs)
    turned = [path.sample(t)[0][2] for t in np.linspace(0.0, 1.5, 200)]
    assert np.all(np.diff(turned) > -1e-9)


def test_spline_is_twice_differentiable_and_rests_at_its_end() -> None:
    path = SplinePath(np.array([0.0, 0.1, 0.25, 0.6]), np.array([[0.0], [0.2], [0.1], [0.5]]))
    for knot in (0.1, 0.25):
        left, right = path.sample(knot - 1e-9), path.sample(knot + 1e-9)
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(path.sample(0.6 - 1e-9)[1], 0.0, atol=1e-6)


ONE = OffsetLimits(np.array([0.25]), np.array([1.0]), np.array([25.0]))


def test_offset_starts_as_given_and_is_gone_in_time() -> None:
    given = np.array([0.1]), np.array([-0.2]), np.array([0.8])
    offset = DecayingOffset(5.0, *given, ONE)
    for got, wanted in zip(offset.sample(5.0), given, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    for got in offset.sample(5.0 + offset.duration_s - 1e-9):
        np.testing.assert_allclose(got, 0.0, atol=1e-6)
    for got in offset.sample(9.0):
        np.testing.assert_array_equal(got, 0.0)


@pytest.mark.parametrize(
    ("value", "velocity", "acceleration"), [(0.2, 0.0, 0.0), (0.0, 0.2, 0.0), (0.2, -0.2, 0.5), (-0.1, 0.2, -0.9)]
)
def test_offset_keeps_its_limits(value: float, velocity: float, acceleration: float) -> None:
    offset = DecayingOffset(0.0, np.array([value]), np.array([velocity]), np.array([acceleration]), ONE)
    t = np.linspace(0.0, 3.0, 3001)
    path = np.array([offset.sample(time)[0][0] for time in t])
    for order, limit in ((1, 0.25), (2, 1.0), (3, 25.0)):
        # Differences are means of derivatives; rounding of 1e-16 grows to 1e-6 in the third.
        assert np.max(np.abs(np.diff(path, order))) / t[1] ** order <= limit * (1.0 + 1e-6)


def test_offset_taken_up_again_and_again_arrives_as_soon() -> None:
    first = DecayingOffset(0.0, np.array([0.1]), np.array([-0.1]), np.array([0.0]), ONE)
    offset, t = first, 0.0
    while t < first.duration_s:
        t += 0.125
        offset = DecayingOffset(t, *offset.sample(t), ONE)
    assert np.max(np.abs(offset.sample(t)[0])) < 1e-9


def test_angular_velocity_is_the_derivative_of_the_rotation() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        rotvec, rate, h = rng.normal(0, 1.5, 3), rng.normal(0, 1.0, 3), 1e-6
        turn = rotations.rotvec_to_matrix(rotvec + h * rate) @ rotations.rotvec_to_matrix(rotvec - h * rate).T
        np.testing.assert_allclose(
            angular_velocity(rotvec, rate), rotations.matrix_to_rotvec(turn) / (2 * h), atol=1e-6
        )
