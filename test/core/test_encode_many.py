"""Chunks of actions of all frames at once are those made one by one, and lead back to the recorded targets."""

from __future__ import annotations

import numpy as np
import pytest
from example_datasets import CONTRACT, make_poses, with_action

from vla_ros.actions.decode import anchored_poses, decode_tool_chunk
from vla_ros.actions.encode import encode_joint_positions, encode_tool_poses
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.training.selection import chunk_rows
from vla_ros.types import ActionChunk

HORIZON, FRAMES = 6, 40
FORMS = [
    (relative, composition, rotation)
    for relative in ("observation", "previous_step", "nothing")
    for composition in ("tcp", "base", "base_euler")
    for rotation in ("rotvec", "rpy", "quat_xyzw", "rot6d", "rot6d_rows")
    if composition != "base_euler" or (rotation == "rpy" and relative != "nothing")
]


def turning_poses() -> np.ndarray:
    """A tool that turns by more than a whole turn within a chunk, so that every form has to go on past half a turn."""
    angles = np.cumsum(np.full(FRAMES, 1.2))[:, None] * np.array([0.1, 0.2, 0.97])
    wander = make_poses(3, FRAMES)
    return se3.make_pose(wander[:, :3, 3], rotations.rotvec_to_matrix(angles))


@pytest.mark.parametrize(("relative", "composition", "rotation"), FORMS)
@pytest.mark.parametrize("poses", [make_poses(1, FRAMES), turning_poses()], ids=["calm", "turning"])
def test_windows_are_the_chunks_one_by_one(relative, composition, rotation, poses):
    spec = ActionSpec(
        "tool", relative, 0.1, composition=composition, rotation=rotation, position_scale_m=0.05, gripper="closing"
    )
    openings = np.linspace(0.0, 1.0, FRAMES)
    anchors = make_poses(2, FRAMES) if relative != "previous_step" else poses @ se3.make_pose(np.full(3, 0.01))
    rows = np.minimum(chunk_rows(FRAMES, HORIZON, 0), FRAMES - 1)
    found = encode_tool_poses(poses[rows], openings[rows], spec, anchors)
    for frame in range(FRAMES):
        one = encode_tool_poses(poses[rows[frame]], openings[rows[frame]], spec, anchors[frame])
        np.testing.assert_allclose(found[frame], one, rtol=0.0, atol=1e-9)
        decoded = decode_tool_chunk(ActionChunk(found[frame]), spec, 0, anchors[frame], "test")
        np.testing.assert_allclose(anchored_poses(decoded, anchors[frame]), poses[rows[frame]], atol=1e-9)


@pytest.mark.parametrize("relative", ["observation", "previous_step", "nothing"])
def test_joint_windows_are_the_chunks_one_by_one(relative):
    spec = ActionSpec("joint", relative, 0.1, gripper="signed_opening", joint_scale_rad=0.2)
    rng = np.random.default_rng(0)
    targets, anchors, openings = rng.normal(size=(20, 7)), rng.normal(size=(20, 7)), rng.random(20)
    rows = np.minimum(chunk_rows(20, 4, 0), 19)
    found = encode_joint_positions(targets[rows], openings[rows], spec, anchors)
    for frame in range(20):
        one = encode_joint_positions(targets[rows[frame]], openings[rows[frame]], spec, anchors[frame])
        np.testing.assert_allclose(found[frame], one, rtol=0.0, atol=1e-12)


def test_half_a_turn_in_a_step_is_refused_with_its_place():
    spec = with_action(CONTRACT, relative_to="previous_step").action
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[4, :3, :3] = np.diag([-1.0, -1.0, 1.0])
    rows = np.minimum(chunk_rows(6, 2, 0), 5)
    with pytest.raises(ChunkError, match=r"chunk 3, step 1 turns by 3\.14"):
        encode_tool_poses(poses[rows], np.ones((6, 2)), spec, poses[[0, 1, 2, 3, 3, 4]])


def test_a_missing_gripper_is_refused():
    with pytest.raises(ChunkError, match="gripper is opening"):
        encode_tool_poses(np.eye(4)[None, None], None, CONTRACT.action, np.eye(4)[None])
