"""Which steps of the next chunk are decided already, and that they stay where they were commanded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.actions.decode import anchored_poses, decode_tool_chunk
from vla_ros.actions.seams import Switch
from vla_ros.actions.timeline import ChunkTimeline
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError
from vla_ros.geometry import se3
from vla_ros.policies.representations.committed import (
    CommittedPrefix,
    committed_prefix,
    prefix_weights,
    step_times_ns,
)
from vla_ros.types import ActionChunk, FloatArray, JointChunk, ToolChunk

NS = 1_000_000_000
STAMP_NS = 1_700_000_000 * NS
HORIZON = 8
BASE = ActionSpec("tool", "observation", 0.1, composition="base", rotation="quat_xyzw")
TCP = replace(BASE, composition="tcp")
ABSOLUTE = replace(BASE, relative_to="nothing")
MEAN, SCALE = np.linspace(-0.3, 0.3, 8), np.linspace(0.5, 2.0, 8)


def normalise(actions: FloatArray) -> FloatArray:
    return (actions - MEAN) / SCALE


def encoder(spec: ActionSpec, T_base_tcp: FloatArray) -> Any:
    """Poses about the anchor as position, quaternion and opening, by matrices and scipy."""

    def encode(chunk: ToolChunk) -> FloatArray:
        assert chunk.frame == "absolute"
        T = np.asarray(chunk.transforms)
        if spec.relative_to == "observation":
            T = np.linalg.inv(T_base_tcp) @ T if spec.composition == "tcp" else T.copy()
            if spec.composition == "base":
                T[:, :3, 3] -= T_base_tcp[:3, 3]
                T[:, :3, :3] = T[:, :3, :3] @ T_base_tcp[:3, :3].T
        assert chunk.openings is not None
        quats = Rotation.from_matrix(T[:, :3, :3]).as_quat()
        return np.concatenate([T[:, :3, 3], quats, chunk.openings[:, None]], axis=1)

    return encode


def wandering(count: int = 12, period_s: float = 0.1, stamp_ns: int = STAMP_NS, seed: int = 0) -> ToolChunk:
    rng = np.random.default_rng(seed)
    times_s = period_s * np.arange(count)
    p = [0.4, 0.0, 0.3] + 0.1 * np.sin(np.outer(times_s, rng.uniform(1.0, 3.0, 3)) + rng.uniform(0.0, 6.0, 3))
    R = Rotation.from_rotvec(
        np.outer(times_s, rng.normal(0.0, 1.0, 3)) + np.array([math.pi - 0.3, 0.0, 0.0])
    ).as_matrix()
    openings = np.where(times_s < 0.45, 1.0, 0.25)
    return ToolChunk(stamp_ns, "absolute", se3.make_pose(p, R), openings, times_s, "p")


def anchor(seed: int) -> FloatArray:
    rng = np.random.default_rng(100 + seed)
    return se3.make_pose(rng.normal([0.4, 0.0, 0.3], 0.05), Rotation.random(random_state=seed).as_matrix())


def found_prefix(
    chunk: ToolChunk | None, spec: ActionSpec, stamp_ns: int, delay_s: float, seed: int = 0
) -> CommittedPrefix | None:
    return committed_prefix(chunk, stamp_ns, delay_s, spec, HORIZON, encoder(spec, anchor(seed)), normalise)


def decoded(prefix: CommittedPrefix, spec: ActionSpec, stamp_ns: int, seed: int) -> tuple[FloatArray, ToolChunk]:
    actions = prefix.actions[: prefix.known] * SCALE + MEAN
    chunk = decode_tool_chunk(ActionChunk(actions), spec, stamp_ns, anchor(seed), "p")
    return anchored_poses(chunk, anchor(seed)), chunk


@pytest.mark.parametrize("spec", [BASE, TCP, ABSOLUTE])
@pytest.mark.parametrize("offset", [0, 1])
def test_prefix_means_the_committed_poses_whatever_the_anchor(spec: ActionSpec, offset: Any) -> None:
    """The answer's wire chunk, from the prefix alone, is the chunk under way: same times, poses and openings."""
    spec = replace(spec, first_action_offset_steps=offset)
    under_way = wandering()
    stamp_ns = STAMP_NS + 3 * NS // 10
    for seed in range(3):
        prefix = found_prefix(under_way, spec, stamp_ns, 0.25, seed)
        assert prefix is not None
        poses, chunk = decoded(prefix, spec, stamp_ns, seed)
        rows = slice(3 + offset, min(12, 3 + offset + HORIZON))
        np.testing.assert_allclose(poses, under_way.transforms[rows], rtol=0, atol=1e-9)
        np.testing.assert_allclose(chunk.openings, under_way.openings[rows])
        times_s = under_way.time_from_start_s[rows] - 0.3
        np.testing.assert_allclose(chunk.time_from_start_s, times_s, rtol=0, atol=1e-9)


def test_prefix_between_the_points_is_what_the_timeline_executes() -> None:
    """Observations don't come on the grid of the chunk before; nor need the periods agree."""
    under_way = wandering(period_s=0.07)
    timeline = ChunkTimeline(max_age_s=2.0, seam=Switch())
    timeline.offer(under_way, STAMP_NS, anchor(0), None)
    stamp_ns = STAMP_NS + 123_456_789
    prefix = found_prefix(under_way, BASE, stamp_ns, 0.35)
    assert prefix is not None
    poses, _ = decoded(prefix, BASE, stamp_ns, 0)
    assert len(poses) == 6  # the last point is due 0.77 s after its stamp, 0.646 s after this one
    for T, due_ns in zip(poses, step_times_ns(stamp_ns, BASE, HORIZON).tolist(), strict=False):
        sample = timeline.sample(due_ns)
        assert sample is not None
        np.testing.assert_allclose(T, sample.T_base_tcp, rtol=0, atol=1e-9)


def test_prefix_takes_what_the_timeline_says_is_committed() -> None:
    timeline = ChunkTimeline(max_age_s=2.0, seam=Switch())
    timeline.offer(wandering(), STAMP_NS, anchor(0), None)
    stamp_ns = STAMP_NS + 250_000_000
    committed = timeline.committed(stamp_ns, 0.23, 0.1)
    assert isinstance(committed, ToolChunk)
    prefix = found_prefix(replace(committed, openings=np.ones(4)), BASE, stamp_ns, 0.23)
    assert prefix is not None
    assert (prefix.count, prefix.known) == (2, 3)
    poses, _ = decoded(prefix, BASE, stamp_ns, 0)
    np.testing.assert_allclose(poses, committed.transforms[1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("offset", "delay_s", "count"),
    [(1, 0.0, 0), (1, 0.1, 0), (1, 0.101, 1), (1, 0.2, 1), (1, 0.25, 2), (0, 0.0, 0), (0, 0.05, 1), (0, 0.2, 2)],
)
def test_committed_steps_are_those_due_before_the_answer_acts(offset: Any, delay_s: float, count: int) -> None:
    """Period 0.1 s: the first is due at once, or after a period. What is due when the answer comes can follow it."""
    prefix = found_prefix(wandering(), replace(BASE, first_action_offset_steps=offset), STAMP_NS, delay_s)
    assert prefix is not None
    assert prefix.count == count
    assert prefix.known == HORIZON


def test_steps_past_the_end_are_the_rest_that_the_arm_comes_to_and_no_more_than_are_committed() -> None:
    under_way = wandering(3)  # until 0.2 s
    prefix = found_prefix(under_way, BASE, STAMP_NS, 0.55)
    assert prefix is not None
    assert (prefix.count, prefix.known) == (5, 5)
    poses, _ = decoded(prefix, BASE, STAMP_NS, 0)
    np.testing.assert_allclose(poses[2:], np.repeat(under_way.transforms[-1:], 3, axis=0), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(prefix.actions[5:], 0.0)


def test_openings_are_held_from_point_to_point() -> None:
    under_way = wandering()  # closes at the point of 0.5 s
    stamp_ns = STAMP_NS + 160_000_000
    prefix = found_prefix(under_way, BASE, stamp_ns, 0.1)
    assert prefix is not None
    openings = prefix.actions[: prefix.known, -1] * SCALE[-1] + MEAN[-1]
    np.testing.assert_allclose(openings[:4], [1.0, 1.0, 1.0, 0.25])  # due at 0.26, 0.36, 0.46, 0.56 s


def test_without_a_gripper_under_way_the_measured_opening_stands() -> None:
    chunk = replace(wandering(), openings=None)
    encode = encoder(BASE, anchor(0))
    assert committed_prefix(chunk, STAMP_NS, 0.2, BASE, HORIZON, encode, normalise) is None
    prefix = committed_prefix(chunk, STAMP_NS, 0.2, BASE, HORIZON, encode, normalise, gripper_opening=0.6)
    assert prefix is not None
    np.testing.assert_allclose(prefix.actions[:, -1] * SCALE[-1] + MEAN[-1], 0.6)


def test_nothing_is_committed_where_nothing_is_known() -> None:
    chunk = wandering()
    assert found_prefix(None, BASE, STAMP_NS, 0.2) is None
    assert found_prefix(chunk, replace(BASE, timing="on_arrival"), STAMP_NS, 0.2) is None
    # It begins later than the answer would, or was over before the observation and no delay commits to its end.
    assert found_prefix(chunk, BASE, STAMP_NS - NS // 2, 0.2) is None
    assert found_prefix(chunk, BASE, STAMP_NS + 2 * NS, 0.0) is None


def test_chunk_about_an_anchor_that_it_brings_is_taken_and_another_refused() -> None:
    absolute, T = wandering(), anchor(5)
    relative = replace(absolute, frame="tcp", transforms=se3.relative_tcp(T, absolute.transforms), T_base_anchor=T)
    expected, found = (found_prefix(chunk, BASE, STAMP_NS, 0.2) for chunk in (absolute, relative))
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found.actions, expected.actions, rtol=0, atol=1e-9)
    with pytest.raises(ChunkError, match="send the anchor"):
        found_prefix(replace(relative, T_base_anchor=None), BASE, STAMP_NS, 0.2)


def test_malformed_chunks_are_refused() -> None:
    chunk = wandering()
    broken = chunk.transforms.copy()
    broken[3, 0, 0] = np.nan
    for wrong in (
        replace(chunk, transforms=broken),
        replace(chunk, time_from_start_s=chunk.time_from_start_s[::-1].copy()),
        replace(chunk, openings=np.ones(3)),
    ):
        with pytest.raises(ChunkError, match="chunk of p"):
            found_prefix(wrong, BASE, STAMP_NS, 0.2)
    with pytest.raises(ChunkError, match="chunk of p"):
        committed_prefix(
            JointChunk(STAMP_NS, np.zeros(3), None, np.arange(3) * 0.1, "p"), STAMP_NS, 0.2,
            replace(BASE, space="joint"), HORIZON, lambda one: one.positions, lambda x: x, 1.0,
        )  # fmt: skip


def test_joint_chunks_have_a_prefix_too() -> None:
    positions = np.cumsum(np.random.default_rng(0).normal(0.0, 0.05, (12, 7)), axis=0)
    under_way = JointChunk(STAMP_NS, positions, None, 0.1 * np.arange(12), "p")
    measured = np.full(7, 0.2)
    spec = ActionSpec("joint", "observation", 0.1, gripper="none")
    prefix = committed_prefix(
        under_way, STAMP_NS + NS // 5, 0.25, spec, HORIZON, lambda chunk: chunk.positions - measured, lambda x: 2.0 * x
    )
    assert prefix is not None
    assert (prefix.count, prefix.known) == (2, HORIZON)
    np.testing.assert_allclose(prefix.actions / 2.0 + measured, positions[3:11], rtol=0, atol=1e-9)


def weight(i: int, horizon: int, d: int, s: int) -> float:
    """RTC, equation 5, as printed."""
    if i < d:
        return 1.0
    if i >= horizon - s:
        return 0.0
    c = (horizon - s - i) / (horizon - s - d + 1)
    return c * (math.exp(c) - 1.0) / (math.e - 1.0)


@pytest.mark.parametrize(("horizon", "d", "s"), [(8, 2, 3), (50, 8, 25), (8, 0, 4), (8, 4, 4), (8, 3, 5), (8, 0, 0)])
def test_weights_are_those_of_the_paper(horizon: int, d: int, s: int) -> None:
    expected = [weight(i, horizon, d, s) for i in range(horizon)]
    np.testing.assert_allclose(prefix_weights(horizon, d, horizon - s), expected, rtol=0, atol=1e-12)


def test_weights_worked_by_hand() -> None:
    """H = 6, d = 2, s = 2: c is 2/3 and 1/3 on the two steps between."""
    w = [1.0, 1.0, 2 / 3 * (math.exp(2 / 3) - 1) / (math.e - 1), 1 / 3 * (math.exp(1 / 3) - 1) / (math.e - 1), 0.0, 0.0]
    np.testing.assert_allclose(prefix_weights(6, 2, 4), w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(w[2:4], [0.3677, 0.0767], atol=1e-4)


def test_weights_of_a_batch_are_those_of_each() -> None:
    counts, ends = np.array([0, 2, 3, 5]), np.array([4, 4, 3, 8])
    expected = [prefix_weights(8, int(d), int(end)) for d, end in zip(counts, ends, strict=True)]
    np.testing.assert_allclose(prefix_weights(8, counts, ends), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(prefix_weights(8, counts, 5), [prefix_weights(8, int(d), 5) for d in counts])
    torch = pytest.importorskip("torch")
    found = prefix_weights(8, torch.tensor(counts), torch.tensor(ends))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_soft_mask_ends_where_the_next_chunk_takes_over_or_the_one_under_way_ends() -> None:
    actions = np.zeros((8, 3))
    np.testing.assert_allclose(CommittedPrefix(actions, 2, 8).weights(3), prefix_weights(8, 2, 5))
    np.testing.assert_allclose(CommittedPrefix(actions, 2, 4).weights(3), prefix_weights(8, 2, 4))
    # What will have been executed is held, however long the execution horizon.
    np.testing.assert_allclose(CommittedPrefix(actions, 3, 4).weights(7), [1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("relative_to", ["observation", "previous_step", "nothing"])
@pytest.mark.parametrize("composition", ["tcp", "base"])
@pytest.mark.parametrize("rotation", ["rotvec", "rpy", "quat_xyzw", "rot6d", "rot6d_rows"])
def test_prefix_means_the_committed_poses_in_every_form(rotation: Any, composition: Any, relative_to: Any) -> None:
    """Written by `actions/encode.py`, normalised, and read back by the decoder."""
    encode = pytest.importorskip("vla_ros.actions.encode")
    spec = ActionSpec("tool", relative_to, 0.1, composition=composition, rotation=rotation)
    under_way, stamp_ns, T = wandering(), STAMP_NS + 3 * NS // 10, anchor(1)
    prefix = committed_prefix(
        under_way, stamp_ns, 0.25, spec, HORIZON,
        lambda chunk: encode.encode_tool_chunk(chunk, spec, T).actions, lambda actions: 3.0 * actions - 0.5,
    )  # fmt: skip
    assert prefix is not None
    actions = (prefix.actions[: prefix.known] + 0.5) / 3.0
    chunk = decode_tool_chunk(ActionChunk(actions), spec, stamp_ns, T, "p")
    np.testing.assert_allclose(anchored_poses(chunk, T), under_way.transforms[4:12], rtol=0, atol=1e-9)
