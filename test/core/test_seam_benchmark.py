"""What the seam benchmark measures with: figures of made-up runs that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_ros.actions.seams import Switch
from vla_ros.actions.timeline import ChunkTimeline
from vla_ros.benchmarks.motion.seam_peers import LinearBlend, Mix
from vla_ros.benchmarks.motion.seam_streams import T0_NS, Noise, Reference, Run, stream
from vla_ros.benchmarks.motion.seams import jerk_figures, lag_s
from vla_ros.geometry import se3
from vla_ros.types import FloatArray, ToolChunk

HOME = se3.make_pose(np.array([0.47, 0.0, 0.38]), np.diag([1.0, -1.0, -1.0]))
TIMES_S = 0.004 * np.arange(3000)


def made_up(positions: FloatArray, p_tcp: FloatArray, seams_s: list[float]) -> Run:
    return Run(TIMES_S, positions, p_tcp, seams_s, 0.0, 0.0)


@pytest.mark.parametrize("shift_s", [-0.02, 0.0, 0.0137, 0.2])
def test_lag_is_the_shift_of_the_path(shift_s: float) -> None:
    reference = Reference(HOME, np.random.default_rng(0))
    p = reference.poses(TIMES_S - shift_s)[:, :3, 3] + np.random.default_rng(1).normal(0.0, 1e-3, (3000, 3))
    assert lag_s(made_up(np.zeros((3000, 2)), p, []), reference) == pytest.approx(shift_s, abs=1e-3)


def test_jerk_of_a_cubic_is_its_own_and_its_peaks_are_counted_by_seam() -> None:
    q = np.column_stack([2.0 * TIMES_S**3, np.zeros(3000)])
    rms, peaks = jerk_figures(made_up(q, np.zeros((3000, 3)), [1.0, 3.0, 3.0, 5.0]))
    # One joint of two has 12 rad/s^3; the seam in the warm-up isn't counted, two in one tick are one.
    assert rms == pytest.approx(12.0 / np.sqrt(2.0), rel=1e-6)
    np.testing.assert_allclose(peaks, [12.0, 12.0], rtol=1e-5)


def test_stream_is_late_noisy_and_flips_the_gripper() -> None:
    rng = np.random.default_rng(3)
    reference = Reference(HOME, rng)
    arrivals = stream(reference, 60.0, Noise(0.01, 0.05), rng)
    late = np.array([a.time_s - 1e-9 * (a.chunk.stamp_ns - T0_NS) for a in arrivals])
    assert late.min() >= 0.1 - 1e-6
    assert late.max() <= 0.3 + 1e-6
    assert {opening for a in arrivals for opening in a.chunk.openings} == {0.0, 1.0}  # type: ignore[union-attr]
    meant = [reference.poses(1e-9 * (a.chunk.stamp_ns - T0_NS) + a.chunk.time_from_start_s) for a in arrivals]
    gaps = np.array([a.chunk.transforms[0, :3, 3] - T[0, :3, 3] for a, T in zip(arrivals, meant, strict=True)])
    assert gaps.std() == pytest.approx(0.01, rel=0.15)


def rest_at(x_m: float, stamp_ns: int) -> ToolChunk:
    poses = np.repeat(se3.make_pose(np.array([x_m, 0.0, 0.0]))[None], 8, axis=0)
    return ToolChunk(stamp_ns, "absolute", poses, None, 0.1 * np.arange(1, 9), "p")


@pytest.mark.parametrize(
    ("seam", "half_s", "moved"), [(LinearBlend(0.2), 0.1, 0.5), (Mix(), 0.0, 0.7), (Switch(), 0.0, 1.0)]
)
def test_peers_do_what_is_said_of_them(seam: LinearBlend | Mix | Switch, half_s: float, moved: float) -> None:
    timeline = ChunkTimeline(2.0, seam)
    timeline.offer(rest_at(0.0, T0_NS), T0_NS, np.eye(4), None)
    now_ns = T0_NS + 200_000_000
    timeline.offer(rest_at(1.0, now_ns), now_ns, np.eye(4), timeline.sample(now_ns))
    found = timeline.sample(now_ns + round(half_s * 1e9))
    assert found is not None
    assert found.T_base_tcp is not None
    assert found.T_base_tcp[0, 3] == pytest.approx(moved, abs=1e-9)
    # And the new chunk alone once the old one has ended.
    late = timeline.sample(T0_NS + 900_000_000)
    assert late is not None
    assert late.T_base_tcp is not None
    assert late.T_base_tcp[0, 3] == pytest.approx(1.0, abs=1e-9)
