"""The strategies at a seam: what the motion is when a chunk takes over from another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.seams import Averaged, Blend, Ensemble, Seam, Switch, make_seam, mean_point
from vla_ros.actions.timeline import ChunkTimeline, Sample
from vla_ros.actions.track import Point
from vla_ros.config import load, package_share
from vla_ros.errors import UnknownNameError
from vla_ros.geometry import se3
from vla_ros.robots.config import ToolLimits
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import FloatArray, JointChunk, RobotState, ToolChunk, ToolTarget

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
DOWN = Rotation.from_euler("x", 180, degrees=True).as_matrix()
HOME = se3.make_pose(np.array([0.4, 0.1, 0.3]), DOWN)
LIMITS = OffsetLimits(np.repeat([0.4, 1.2], 3), np.repeat([1.6, 4.8], 3), np.repeat([200.0, 400.0], 3))
OPEN = OffsetLimits(np.full(6, 50.0), np.full(6, 500.0), np.full(6, 1e5))
DUE_S = 0.1 * np.arange(1, 17)


def chunk_of(poses: FloatArray, stamp_ns: int) -> ToolChunk:
    return ToolChunk(stamp_ns, "absolute", poses, None, 0.1 * np.arange(1, len(poses) + 1), "p")


def wandering(rng: np.random.Generator, size: float, turn_rad: float, stamp_ns: int) -> ToolChunk:
    """A smooth path somewhere near home, with its own velocity, turned by up to `turn_rad`."""
    drift = np.outer(DUE_S, rng.normal(0.0, size, 3)) + rng.normal(0.0, size, 3)
    turns = np.outer(0.2 + DUE_S, rng.normal(0.0, turn_rad / np.sqrt(3.0), 3))
    poses = se3.make_pose(HOME[:3, 3] + drift, Rotation.from_rotvec(turns).as_matrix() @ DOWN)
    return chunk_of(poses, stamp_ns)


@given(st.integers(0, 2**16), st.sampled_from([LIMITS, OPEN]))
@settings(max_examples=60, deadline=None)
def test_blend_has_no_step_in_position_velocity_or_acceleration(seed: int, limits: OffsetLimits) -> None:
    """Before the seam by the old motion, after it by the new: rotations by a radian, velocities and all."""
    rng = np.random.default_rng(seed)
    timeline = ChunkTimeline(max_age_s=2.0)
    timeline.offer(wandering(rng, 0.05, 0.5, START_NS), START_NS, HOME, None)
    seam_ns = START_NS + int(rng.integers(NS // 10, NS))
    before = timeline.sample(seam_ns)
    assert before is not None
    timeline.offer(wandering(rng, 0.05, 0.5, seam_ns), seam_ns, HOME, before, limits)
    after = timeline.sample(seam_ns)
    assert after is not None
    np.testing.assert_allclose(after.T_base_tcp, before.T_base_tcp, atol=1e-9)
    np.testing.assert_allclose(after.velocity, before.velocity, atol=1e-8)
    np.testing.assert_allclose(after.acceleration, before.acceleration, atol=1e-6)


@pytest.mark.parametrize("limits", [LIMITS, OPEN])
def test_reported_rates_are_the_derivatives_of_the_pose(limits: OffsetLimits) -> None:
    rng = np.random.default_rng(8)
    timeline = ChunkTimeline(max_age_s=2.0)
    start = Sample(HOME, None, np.zeros(6), np.zeros(6), None, START_NS, False)
    timeline.offer(wandering(rng, 0.05, 1.5, START_NS), START_NS, HOME, start, limits)
    h_ns = 200_000
    for ms in range(3, 1500, 7):
        now_ns = START_NS + ms * 1_000_000
        samples = [timeline.sample(now_ns + shift * h_ns) for shift in (-1, 0, 1)]
        T = [sample.T_base_tcp for sample in samples]  # type: ignore[union-attr]
        first, second = (se3.pose_error(a, b) / (1e-9 * h_ns) for a, b in ((T[0], T[1]), (T[1], T[2])))
        # Central differences over 0.4 ms of a motion of some 100 m/s^3.
        np.testing.assert_allclose(samples[1].velocity, 0.5 * (first + second), atol=2e-5)  # type: ignore[union-attr]
        np.testing.assert_allclose(samples[1].acceleration, (second - first) / (1e-9 * h_ns), atol=0.05)  # type: ignore[union-attr]


def test_large_gap_is_closed_from_one_side_to_rest_exactly_at_the_last_point() -> None:
    timeline = ChunkTimeline(max_age_s=2.0)
    start = Sample(HOME, None, np.zeros(6), np.zeros(6), None, START_NS, False)
    turn = Rotation.from_rotvec([0.0, 0.0, 2.5]).as_matrix()
    goal = se3.make_pose(HOME[:3, 3] + [0.0, 0.5, 0.0], turn @ DOWN)
    timeline.offer(chunk_of(goal[None], START_NS), START_NS, HOME, start, LIMITS)
    samples = [timeline.sample(START_NS + tick * 4_000_000) for tick in range(2000)]
    y = np.array([sample.T_base_tcp[1, 3] for sample in samples])  # type: ignore[union-attr, index]
    assert y.min() > HOME[1, 3] - 1e-9
    assert y.max() < goal[1, 3] + 3e-4
    angles = [float(Rotation.from_matrix(sample.T_base_tcp[:3, :3] @ DOWN.T).as_rotvec()[2]) for sample in samples]  # type: ignore[union-attr, index]
    # It passes by a thousandth: where the swift way hands over to the gentle one, it still brakes.
    assert max(angles) < 2.5 + 5e-3
    rested = samples[-1]
    assert rested is not None
    assert rested.is_exhausted
    np.testing.assert_array_equal(rested.T_base_tcp, goal)
    np.testing.assert_array_equal(rested.velocity, np.zeros(6))


def test_joint_blend_is_the_same_curve_for_every_joint() -> None:
    timeline = ChunkTimeline(max_age_s=2.0)
    limits = OffsetLimits(np.full(3, 2.0), np.full(3, 10.0), np.full(3, 3000.0))
    start = Sample(None, np.zeros(3), np.zeros(3), np.zeros(3), None, START_NS, False)
    goal = np.array([0.01, -0.02, 0.0])
    timeline.offer(JointChunk(START_NS, goal[None], None, np.array([0.1]), "p"), START_NS, np.zeros(3), start, limits)
    half = timeline.sample(START_NS + 115_000_000)
    np.testing.assert_allclose(half.positions, 0.5 * goal, atol=1e-5)  # type: ignore[union-attr]
    np.testing.assert_allclose(timeline.sample(START_NS + 2 * NS).positions, goal, atol=1e-12)  # type: ignore[union-attr]


def feed(seam: Seam, poses: list[FloatArray]) -> ChunkTimeline:
    """Chunks of rest at these poses, one every 0.1 s."""
    timeline = ChunkTimeline(max_age_s=2.0, seam=seam)
    current = Sample(poses[0], None, np.zeros(6), np.zeros(6), None, START_NS, False)
    for number, T in enumerate(poses):
        now_ns = START_NS + number * NS // 10
        timeline.offer(chunk_of(np.repeat(T[None], 16, axis=0), now_ns), now_ns, HOME, current, LIMITS)
        found = timeline.sample(now_ns)
        assert found is not None
        current = found
    return timeline


def test_ensemble_weighs_by_act_s_rule_with_the_oldest_first() -> None:
    places = [0.0, 0.01, 0.03]
    poses = [se3.compose_base(HOME, se3.make_pose(np.array([x, 0.0, 0.0]))) for x in places]
    timeline = feed(Ensemble(), poses)
    w = np.exp(-0.01 * np.arange(3))
    moved = timeline.sample(START_NS + NS // 2).T_base_tcp[0, 3] - HOME[0, 3]  # type: ignore[union-attr, index]
    assert moved == pytest.approx((w[1] * 0.01 + w[2] * 0.03) / w.sum(), abs=1e-12)
    # The newest alone, once the others have nothing more to say.
    late = timeline.sample(START_NS + round(1.75 * NS))
    assert late.T_base_tcp[0, 3] - HOME[0, 3] == pytest.approx(0.03, abs=1e-12)  # type: ignore[union-attr, index]


def test_ensemble_keeps_no_more_chunks_than_it_may() -> None:
    timeline = feed(Ensemble(most=4), [HOME] * 9)
    motion = timeline._motion
    assert isinstance(motion, Averaged)
    assert len(motion.tracks) == 4


def test_mean_of_rotations_lies_on_the_manifold_between_them() -> None:
    rng = np.random.default_rng(0)
    turns = rng.normal(0.0, 0.3, (5, 3))
    weights = rng.uniform(0.5, 1.0, 5)
    R = Rotation.from_rotvec(turns).as_matrix() @ DOWN
    points = [Point(se3.make_pose(turn, r), None, np.zeros(6), np.zeros(6)) for turn, r in zip(turns, R, strict=True)]
    T = mean_point(points, weights).T_base_tcp
    assert T is not None
    # What makes a Karcher mean: the ways to all of them cancel.
    ways = Rotation.from_matrix(R @ T[:3, :3].T).as_rotvec()
    np.testing.assert_allclose(weights @ ways, 0.0, atol=1e-9)
    np.testing.assert_allclose(T[:3, 3], weights @ turns / weights.sum(), atol=1e-12)


def test_switch_is_the_new_chunk_at_once() -> None:
    aside = se3.compose_base(HOME, se3.make_pose(np.array([0.02, 0.0, 0.0])))
    timeline = feed(Switch(), [HOME, aside])
    np.testing.assert_allclose(timeline.sample(START_NS + NS // 10).T_base_tcp, aside, atol=1e-12)  # type: ignore[union-attr]


def test_strategies_are_found_by_name() -> None:
    assert [make_seam(name, 0.1, 0.2).name for name in ("blend", "switch", "ensemble")] == [
        "blend",
        "switch",
        "ensemble",
    ]
    with pytest.raises(UnknownNameError, match="did you mean 'switch'"):
        make_seam("swich", 0.1, 0.2)


def test_blended_noise_has_a_fraction_of_the_jerk_of_switching() -> None:
    """At the timeline: rest at a place that is 3 mm off in every chunk. A step's jerk grows without end."""
    rng = np.random.default_rng(6)
    poses = [se3.compose_base(HOME, se3.make_pose(rng.normal(0.0, 0.003, 3))) for _ in range(12)]
    found = {}
    for name, seam in (("switch", Switch()), ("blend", Blend(0.12, 0.25))):
        timeline = ChunkTimeline(max_age_s=2.0, seam=seam)
        current = Sample(HOME, None, np.zeros(6), np.zeros(6), None, START_NS, False)
        path = []
        for number, T in enumerate(poses):
            now_ns = START_NS + number * NS // 5
            timeline.offer(chunk_of(np.repeat(T[None], 16, axis=0), now_ns), now_ns, HOME, current, LIMITS)
            path += [timeline.sample(now_ns + tick * 4_000_000).T_base_tcp[:3, 3] for tick in range(50)]  # type: ignore[union-attr, index]
            last = timeline.sample(now_ns + NS // 5)
            assert last is not None
            current = last
        found[name] = float(np.abs(np.diff(path, 3, axis=0)).max()) / 0.004**3
    assert found["blend"] < 60.0
    assert found["switch"] > 500.0 * found["blend"]


def test_camera_s_latency_moves_the_anchor_back_to_the_exposure() -> None:
    """An arm that moves at 0.1 m/s, images stamped 0.1 s late: the chunk starts from 1 cm further back."""
    ended = []
    for latency_s in (0.0, 0.1):
        config = load(SafetyConfig, package_share() / "config" / "safety.yaml")
        config = replace(config, observation_latency_s=latency_s)
        joints = OffsetLimits(np.full(3, 2.0), np.full(3, 10.0), np.full(3, 1e3))
        tool = ToolLimits(2.0, 13.0, 6500.0, 2.5, 25.0, 12500.0)
        safety = SafetyFilter(config, tool, lambda q: se3.make_pose(q, DOWN), joints)
        safety.select_source("p", START_NS - NS)
        states = JointStateBuffer(capacity=4096)
        now_ns = START_NS
        for tick in range(100):
            now_ns = START_NS + tick * 4_000_000
            q = np.array([0.4 + 0.0004 * tick, 0.1, 0.3])
            states.append(RobotState(now_ns, q, np.array([0.1, 0.0, 0.0])))
        delta = se3.make_pose(np.tile([0.0, 0.02, 0.0], (8, 1)))
        safety.offer(ToolChunk(now_ns, "base", delta, None, 0.2 * np.arange(1, 9), "p"), now_ns, states)
        for _ in range(800):
            now_ns += 4_000_000
            target, _ = safety.step(now_ns, 0.004, states.newest())
            assert isinstance(target, ToolTarget)
            states.append(RobotState(now_ns, target.T_base_tcp[:3, 3], np.zeros(3)))
        ended.append(target.T_base_tcp[:3, 3])
    np.testing.assert_allclose(ended[0] - ended[1], [0.01, 0.0, 0.0], atol=1e-6)
