"""The columns of truth are where things were, and where a pinhole shows them; who has none gets none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rosbags")

import bags
from bags import EpisodeBag, Message
from scipy.spatial.transform import Rotation

from vla_ros.contract import load_contract
from vla_ros.recording import dataset as d
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.reading import read_episode
from vla_ros.recording.recorded import Series
from vla_ros.recording.synchronise import make_frames

CONTRACT = load_contract("tool_delta_visual")


def pose(p, rotvec=(0.0, 0.0, 0.0)):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), p
    return T


def told(stamps, *poses):
    return Series(np.array(stamps, dtype=np.int64), np.stack(poses))


@pytest.fixture
def episode(synthetic_episode):
    """The block moves by 0.1 m/s along x; the base camera looks straight down on it from 0.5 m."""
    stamps = synthetic_episode().joint_positions.stamps_ns[[0, -1]]
    camera = pose([0.5, 0.0, 0.5], [np.pi, 0.0, 0.0])
    truth = {
        "block_red": told([int(stamps[0]), int(stamps[0]) + 100_000_000], pose([0.5, 0.0, 0.0]), pose([0.51, 0, 0])),
        "camera/base": told(stamps[:1].tolist(), camera),
    }
    return synthetic_episode(truth=truth)


def test_object_is_where_it_was_at_the_stamp_and_where_a_pinhole_shows_it(episode):
    _, frames = make_frames(episode, CONTRACT)
    elapsed_s = (frames.columns[d.STAMP][:, 0] - frames.columns[d.STAMP][0, 0]) * 1e-9
    x = 0.5 + 0.1 * np.minimum(elapsed_s, 0.1)
    np.testing.assert_allclose(frames.columns[d.OBJECT_POSE][:, 0], x, atol=1e-6)
    np.testing.assert_allclose(frames.columns[d.OBJECT_POSE][:, 3:], [[0, 0, 0, 1]] * len(x), atol=1e-6)
    # Its image: 25 px focal length, 0.5 m away, x to the right; the middle of the image is 16 of 32 px and 12 of 24.
    u = 0.5 + 25.0 * (x - 0.5) / 0.5 / 32
    np.testing.assert_allclose(frames.columns[f"{d.OBJECT_XY}base"], np.stack([u, np.full(len(x), 0.5)], 1), atol=1e-6)
    assert np.isnan(frames.columns[d.DESTINATION_POSE]).all()
    assert np.isnan(frames.columns[f"{d.DESTINATION_XY}base"]).all()


def test_camera_whose_truth_is_unknown_is_where_the_rig_has_it(episode):
    # The wrist camera's mount is the unit pose in its link, here, and the block goes along straight before it.
    link, model = episode.info.rig.cameras["wrist"].mount.parent, RecordedArm(episode).model
    joints = episode.joint_positions
    poses = [model.link_pose(q, link) @ pose([0.0, 0.0, 0.3]) for q in joints.values]
    held = dataclasses.replace(episode, truth={"block_red": told(joints.stamps_ns, *poses)})
    _, frames = make_frames(held, CONTRACT)
    places = frames.columns[f"{d.OBJECT_XY}wrist"]
    assert np.isfinite(places[1:]).all()
    np.testing.assert_allclose(places[1:], np.full((len(places) - 1, 2), 0.5), atol=1e-3)


def test_what_is_outside_of_the_image_or_behind_the_camera_is_nowhere_in_it(episode):
    for place in ([0.5, 0.45, 0.0], [0.5, 0.0, 0.7]):
        stamp_ns = int(episode.joint_positions.stamps_ns[0])
        away = dataclasses.replace(episode, truth={**episode.truth, "block_red": told([stamp_ns], pose(place))})
        _, frames = make_frames(away, CONTRACT)
        assert np.isfinite(frames.columns[d.OBJECT_POSE]).all()
        assert np.isnan(frames.columns[f"{d.OBJECT_XY}base"]).all()


def test_recording_without_truth_has_no_such_columns(synthetic_episode):
    schema, _ = make_frames(synthetic_episode(), CONTRACT)
    assert schema.column(d.OBJECT_POSE) is None
    assert not [column for column in schema.columns if column.name.startswith((d.OBJECT_XY, d.DESTINATION_XY))]


def test_truth_in_a_bag_is_read(tmp_path):
    T = pose([0.5, 0.1, 0.02], [0.0, 0.0, 0.3])
    base, told_there = EpisodeBag().robot.base_frame, []
    kinds = "geometry_msgs/msg/TransformStamped", "tf2_msgs/msg/TFMessage"
    stamps = [bags.START_NS, bags.START_NS + 40_000_000]
    for stamp_ns in stamps:
        edge = bags.make(
            kinds[0], header=bags.header(stamp_ns, base), child_frame_id="block_red", transform=bags.transform(T)
        )
        told_there.append(Message("/sim/ground_truth", stamp_ns, bags.make(kinds[1], transforms=[edge])))
    bag = EpisodeBag(mend=lambda messages: [*messages, *told_there])
    found = read_episode(bag.write(tmp_path / "bag")).truth
    assert list(found) == ["block_red"]
    assert found["block_red"].stamps_ns.tolist() == stamps
    np.testing.assert_allclose(found["block_red"].values, [T, T], atol=1e-12)
