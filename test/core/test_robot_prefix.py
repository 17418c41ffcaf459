"""Arms behind a prefix: the same arm in every number, other names in all places, and kept in an episode."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vla_ros.config import config_names, find_config, load_yaml, plain
from vla_ros.contract import load_rig
from vla_ros.errors import ConfigError
from vla_ros.robots.capsules import capsules_of
from vla_ros.robots.config import load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel
from vla_ros.robots.self_collision import SelfCollision

ROBOTS = config_names("robots")


@pytest.mark.parametrize("name", ROBOTS)
def test_prefixed_arm_is_the_same_arm(name: str) -> None:
    plain_model, model = (RobotModel.from_config(load_robot(name, prefix)) for prefix in ("", "left_"))
    assert model.names == tuple(f"left_{joint}" for joint in plain_model.names)
    rng = np.random.default_rng(3)
    for q in rng.uniform(model.lower, model.upper, (20, len(model.names))):
        np.testing.assert_array_equal(model.forward_kinematics(q), plain_model.forward_kinematics(q))
        moving = {pose.child: pose.T_parent_child for pose in model.link_poses(q, 0.5)}
        expected = {f"left_{pose.child}": pose.T_parent_child for pose in plain_model.link_poses(q, 0.5)}
        assert moving.keys() == expected.keys()
        assert all((moving[link] == expected[link]).all() for link in moving)


@pytest.mark.parametrize("name", ROBOTS)
def test_every_link_and_joint_has_the_prefix_and_no_name_is_left_behind(name: str) -> None:
    config = load_robot(name, "left_")
    root = ElementTree.fromstring(load_description(config))
    names = [item.get("name", "") for kind in ("link", "joint") for item in root.findall(kind)]
    assert all(item.startswith("left_") for item in names)
    assert {capsule.link for capsule in config.self_collision.capsules} <= set(names)
    assert {link for pair in config.self_collision.ignore for link in pair} <= set(names)
    assert SelfCollision(RobotModel.from_config(config))
    assert capsules_of(load_description(config))


@pytest.mark.parametrize("name", config_names("rigs"))
def test_rigs_cameras_hang_on_the_prefixed_arm(name: str) -> None:
    rig = load_rig(name, "left_")
    model = RobotModel.from_config(load_robot(rig.robot, "left_"))
    for camera in rig.cameras.values():
        assert np.isfinite(model.link_pose(model.home, camera.mount.parent)).all()
        assert camera.mount.frame.startswith("left_")
    assert {key: camera.topic for key, camera in rig.cameras.items()} == {
        key: camera.topic for key, camera in load_rig(name).cameras.items()
    }


def test_fingers_of_franka_gripper_have_no_prefix_as_that_node_knows_none() -> None:
    grippers = [load_robot(name, "left_").driver for name in ("fr3", "ur5e")]
    assert [driver.gripper.joint for driver in grippers if driver and driver.gripper] == [
        "fr3_finger_joint1",
        "left_robotiq_85_left_knuckle_joint",
    ]


def test_yaml_may_say_the_prefix_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = find_config("robots", "ur5e").read_text()
    path.write_text(f"prefix: right_\n{text}")
    assert load_robot(str(path)).base_frame == "right_base_link"
    assert load_robot(str(path), "left_").base_frame == "left_base_link"


def test_plain_urdf_takes_no_prefix(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(load_description(load_robot("ur5e")))
    path = tmp_path / "mine.yaml"
    path.write_text(find_config("robots", "ur5e").read_text().replace("urdf/ur5e.urdf.xacro", "arm.urdf"))
    with pytest.raises(ConfigError, match="plain URDF and takes no arguments"):
        load_description(load_robot(str(path), "left_"))


def test_episodes_robot_has_the_prefix_it_was_recorded_with() -> None:
    pytest.importorskip("rclpy")
    from vla_ros.nodes.episode_words import EpisodeWords
    from vla_ros.recording.episode import EpisodeInfo
    from vla_ros.recording.reading import _robot

    rig = load_rig("ur5e_table", "left_")
    words = EpisodeWords("ur5e", "left_", "real", rig, (), "reach", "", "", lambda _text: None)
    info = EpisodeInfo.from_json(words.info(0, 1, (), "", "").to_json(), "here")
    assert _robot(info) == load_robot("ur5e", "left_")
    assert info.hardware == "real"
    without = EpisodeWords("ur5e", "", "sim", load_rig("ur5e_table"), (), "reach", "", "", lambda _text: None)
    assert without.info(0, 1, (), "", "").robot_config == plain(load_yaml(find_config("robots", "ur5e")))
