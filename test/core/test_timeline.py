"""The chunk timeline: absolute times, late points, seams without steps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import OffsetLimits, SplinePath, unwrapped_rotvecs
from vla_ros.actions.seams import Switch
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.errors import ChunkError
from vla_ros.geometry import se3
from vla_ros.types import FloatArray, JointChunk, ToolChunk

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
    turned = [path.sample(t)[0, 2] for t in np.linspace(0.0, 1.5, 200)]
    assert np.all(np.diff(turned) > -1e-9)


def test_spline_is_twice_differentiable_and_rests_at_its_end() -> None:
    path = SplinePath(np.array([0.0, 0.1, 0.25, 0.6]), np.array([[0.0], [0.2], [0.1], [0.5]]))
    for knot in (0.1, 0.25):
        left, right = path.sample(knot - 1e-9), path.sample(knot + 1e-9)
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(path.sample(0.6 - 1e-9)[1], 0.0, atol=1e-6)


def test_spline_is_scipy_s() -> None:
    rng = np.random.default_rng(5)
    for count in (2, 3, 5, 40):
        times, values = np.cumsum(rng.uniform(0.01, 0.3, count)), rng.normal(0.0, 1.0, (count, 4))
        path = SplinePath(times, values)
        oracle = CubicSpline(times, values, bc_type=((2, np.zeros(4)), (1, np.zeros(4))))
        for t in rng.uniform(times[0], times[-1], 20):
            for order in range(3):
                np.testing.assert_allclose(path.sample(t)[order], oracle(t, order), rtol=1e-7, atol=1e-7)


def test_chunk_of_one_point_is_its_pose() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    goal = se3.compose_base(ANCHOR, se3.make_pose(np.array([0.02, 0.0, 0.01])))
    start = Sample(ANCHOR, None, np.zeros(6), np.zeros(6), None, START_NS, False)
    timeline.offer(
        ToolChunk(START_NS, "absolute", goal[None], None, np.array([0.1]), "p"), START_NS, ANCHOR, start, TOOL_LIMITS
    )
    np.testing.assert_allclose(timeline.sample(START_NS).T_base_tcp, ANCHOR, atol=1e-12)  # type: ignore[union-attr]
    rested = timeline.sample(START_NS + 5 * NS)
    assert rested is not None
    assert rested.is_exhausted
    np.testing.assert_array_equal(rested.T_base_tcp, goal)


def test_arm_s_latency_moves_every_point_forward() -> None:
    plain, led = ChunkTimeline(1.0), ChunkTimeline(1.0, actuation_latency_s=0.06)
    for timeline in (plain, led):
        timeline.offer(straight_chunk(START_NS), START_NS, ANCHOR, None)
    for ms in range(0, 900, 50):
        now_ns = START_NS + ms * 1_000_000
        early, late = led.sample(now_ns), plain.sample(now_ns + 60_000_000)
        np.testing.assert_array_equal(early.T_base_tcp, late.T_base_tcp)  # type: ignore[union-attr]
        assert early.gripper_opening == late.gripper_opening  # type: ignore[union-attr]
    with pytest.raises(ChunkError, match="all 8 points"):
        ChunkTimeline(1.0, actuation_latency_s=0.06).offer(
            straight_chunk(START_NS), START_NS + 750_000_000, ANCHOR, None
        )


def test_refused_chunk_changes_nothing() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(straight_chunk(START_NS), START_NS, ANCHOR, None)
    before = timeline.sample(START_NS + NS // 4)
    bad = ToolChunk(START_NS + 1, "base", np.full((1, 4, 4), np.nan), np.array([0.0]), np.array([0.5]), "q")
    with pytest.raises(ChunkError, match="finite rigid motions"):
        timeline.offer(bad, START_NS + 1, ANCHOR, None)
    after = timeline.sample(START_NS + NS // 4)
    np.testing.assert_array_equal(after.T_base_tcp, before.T_base_tcp)  # type: ignore[union-attr]
    assert after.gripper_opening == before.gripper_opening  # type: ignore[union-attr]
    assert timeline.source == "p"


def curved_chunk(stamp_ns: int, first_s: float, count: int = 16, period_s: float = 0.1) -> ToolChunk:
    """Points of one fixed smooth path, so that any two of these chunks mean the same."""
    due_s = period_s * np.arange(1, count + 1)
    t = first_s + due_s
    p = np.column_stack([0.4 + 0.05 * np.sin(t), 0.05 * np.cos(1.3 * t), 0.3 + 0.02 * t])
    R = Rotation.from_rotvec(np.outer(0.4 * t, [0.3, -0.2, 0.9])).as_matrix()
    return ToolChunk(stamp_ns, "absolute", se3.make_pose(p, R), None, due_s, "p")


def jerks(poses: FloatArray, dt_s: float) -> FloatArray:
    return np.linalg.norm(np.diff(poses[:, :3, 3], 3, axis=0), axis=1) / dt_s**3


def test_chunk_that_goes_on_from_the_committed_prefix_passes_without_a_bend() -> None:
    """What a policy that inpaints does: its chunk repeats what will be executed until it arrives."""
    timeline = ChunkTimeline(max_age_s=1.0)
    timeline.offer(curved_chunk(START_NS, 0.0), START_NS, ANCHOR, None)
    seen_ns, delay_s, period_s = START_NS + 3 * NS // 10, 0.25, 0.05
    prefix = timeline.committed(seen_ns, delay_s, period_s)
    assert isinstance(prefix, ToolChunk)
    assert prefix.frame == "absolute"
    np.testing.assert_allclose(prefix.time_from_start_s, period_s * np.arange(6))
    for time_s, T in zip(prefix.time_from_start_s, prefix.transforms, strict=True):
        np.testing.assert_array_equal(T, timeline.sample(seen_ns + round(time_s * NS)).T_base_tcp)  # type: ignore[union-attr]
    # The answer: the prefix, and what comes after it as the policy wants it, here straight on.
    step = prefix.transforms[-1, :3, 3] - prefix.transforms[-2, :3, 3]
    tail = np.repeat(prefix.transforms[-1:], 6, axis=0)
    tail[:, :3, 3] += np.outer(np.arange(1, 7), step)
    answer = ToolChunk(
        seen_ns,
        "absolute",
        np.concatenate([prefix.transforms, tail]),
        None,
        period_s * np.arange(12),
        "p",
    )
    arrived_ns = seen_ns + round(delay_s * NS) - 5_000_000
    current = timeline.sample(arrived_ns)
    old = [timeline.sample(arrived_ns + tick * 4_000_000) for tick in range(-30, 1)]
    timeline.offer(answer, arrived_ns, ANCHOR, current, TOOL_LIMITS)
    new = [timeline.sample(arrived_ns + tick * 4_000_000) for tick in range(1, 30)]
    poses = np.array([sample.T_base_tcp for sample in (*old, *new)])  # type: ignore[union-attr]
    # A knot of the spline is worth some m/s^3; the same answer with its poses 1 cm off, a hundred.
    assert jerks(poses, 0.004).max() < 8.0


def test_committed_prefix_of_joints_and_of_nothing() -> None:
    timeline = ChunkTimeline(max_age_s=1.0)
    assert timeline.committed(START_NS, 0.2, 0.05) is None
    chunk = JointChunk(START_NS, np.outer(TIMES_S, [1.0, -0.5]), np.full(8, 0.7), TIMES_S, "p")
    timeline.offer(chunk, START_NS, np.zeros(2), None)
    prefix = timeline.committed(START_NS + NS // 10, 0.2, 0.1)
    assert isinstance(prefix, JointChunk)
    np.testing.assert_allclose(prefix.positions, [[0.1, -0.05], [0.2, -0.1], [0.3, -0.15]], atol=1e-3)
    np.testing.assert_array_equal(prefix.openings, [0.7, 0.7, 0.7])


def test_chunks_that_confirm_each_other_do_not_bend_the_motion() -> None:
    alone = ChunkTimeline(max_age_s=2.0)
    alone.offer(curved_chunk(START_NS, 0.0, count=32), START_NS, ANCHOR, None)
    fed = ChunkTimeline(max_age_s=2.0)
    fed.offer(curved_chunk(START_NS, 0.0), START_NS, ANCHOR, None)
    for ms in range(0, 1500, 4):
        now_ns = START_NS + ms * 1_000_000
        if ms and ms % 200 == 0:
            # Points on the grid of the first, so that the spline through them is the same but for its ends.
            fed.offer(curved_chunk(now_ns, ms * 1e-3), now_ns, ANCHOR, fed.sample(now_ns), TOOL_LIMITS)
        # The first point's missing bend is felt for a few points.
        gap = se3.pose_error(alone.sample(now_ns).T_base_tcp, fed.sample(now_ns).T_base_tcp)  # type: ignore[union-attr]
        assert np.linalg.norm(gap[:3]) < 3e-4
        assert np.linalg.norm(gap[3:]) < 3e-3


@pytest.mark.parametrize("seam", [None, Switch()])
def test_only_a_blend_leads_over(seam: Switch | None) -> None:
    timeline = ChunkTimeline(max_age_s=1.0, seam=seam)
    start = Sample(ANCHOR, None, np.zeros(6), np.zeros(6), None, START_NS, False)
    goal = se3.compose_base(ANCHOR, se3.make_pose(np.array([0.02, 0.0, 0.0])))
    timeline.offer(
        ToolChunk(START_NS, "absolute", goal[None], None, np.array([0.1]), "p"), START_NS, ANCHOR, start, TOOL_LIMITS
    )
    moved = timeline.sample(START_NS).T_base_tcp[0, 3] - ANCHOR[0, 3]  # type: ignore[union-attr, index]
    assert moved == pytest.approx(0.0 if seam is None else 0.02, abs=1e-12)


def test_committed_prefix_is_where_the_arm_will_be_and_not_what_is_commanded_ahead() -> None:
    plain, led = ChunkTimeline(1.0), ChunkTimeline(1.0, actuation_latency_s=0.06)
    for timeline in (plain, led):
        timeline.offer(curved_chunk(START_NS, 0.0), START_NS, ANCHOR, None)
    here, ahead = (timeline.committed(START_NS + NS // 5, 0.2, 0.1) for timeline in (plain, led))
    assert isinstance(here, ToolChunk)
    assert isinstance(ahead, ToolChunk)
    np.testing.assert_allclose(ahead.transforms, here.transforms, atol=1e-12)
