"""A driver's own description: its kinematics count, what it lacks of ours is hung on it, another arm's is refused."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
import pytest
from live_descriptions import CALIBRATED, ur_driver

from vla_ros.errors import ConfigError
from vla_ros.robots.config import load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.live_description import adopt, merge
from vla_ros.robots.model import RobotModel

OURS = ["panda", "fr3", "ur5e", "ur10e"]


def test_drivers_kinematics_carry_our_tool() -> None:
    config = load_robot("ur5e")
    live = ur_driver("ur5e", CALIBRATED)
    found = adopt(config, live)
    model = RobotModel(config, found.urdf)
    # The oracle: pinocchio's flange of the driver's URDF, and our tool's fixed place on it, 0.15 m out of tool0.
    full = pin.buildModelFromXML(live)
    data, flange, base = full.createData(), full.getFrameId("tool0"), full.getFrameId("base_link")
    T_flange_tcp = pin.SE3(np.eye(3), np.array([0.0, 0.0, 0.15]))
    rng = np.random.default_rng(7)
    for q in rng.uniform(-1.5, 1.5, (50, 6)):
        pin.framesForwardKinematics(full, data, q)
        expected = data.oMf[base].inverse() * data.oMf[flange] * T_flange_tcp
        np.testing.assert_allclose(model.forward_kinematics(q), expected.homogeneous, atol=1e-9)
    assert {"world", "tool0", "wrist_3_link"} < found.published
    assert not {"gripper_base", "gripper_tcp", "wrist_camera_link"} & found.published


def test_difference_is_what_the_origins_were_changed_by() -> None:
    found = adopt(load_robot("ur5e"), ur_driver("ur5e", CALIBRATED))
    # 2 mm across and 1.5 mm up are at right angles in every posture: one axis is vertical, the other level.
    assert found.arm_m == pytest.approx(0.0025, abs=1e-9)
    assert found.tcp_m == pytest.approx(0.0025, abs=1e-9)
    assert found.arm_rad == found.tcp_rad == pytest.approx(0.0, abs=1e-6)
    assert "2.50 mm" in str(found)


@pytest.mark.parametrize("name", OURS)
def test_description_that_lacks_nothing_is_as_ours(name: str) -> None:
    config = load_robot(name)
    ours = load_description(config)
    found = adopt(config, ours)
    links = {item.get("name") for item in ElementTree.fromstring(ours).findall("link")}
    assert found.published == links
    assert found.arm_m == found.tcp_m == 0.0


@pytest.mark.parametrize("name", OURS)
def test_what_is_hung_on_a_bare_arm_is_all_of_ours(name: str) -> None:
    """Every link and every pose, of a description that ends at the last joint."""
    config = load_robot(name)
    ours = load_description(config)
    root = ElementTree.fromstring(ours)
    bare = {config.base_frame, *chain(root, config.joint_names[-1])}
    for item in [*root.findall("link")]:
        if item.get("name") not in bare:
            root.remove(item)
    for item in [*root.findall("joint")]:
        child = item.find("child")
        if child is not None and child.get("link") not in bare:
            root.remove(item)
    found = adopt(config, ElementTree.tostring(root, encoding="unicode"))
    assert found.published == bare
    first, second = RobotModel(config, ours), RobotModel(config, found.urdf)
    q = first.home + 0.3
    for link in (item.get("name") for item in ElementTree.fromstring(ours).findall("link")):
        np.testing.assert_allclose(first.link_pose(q, str(link)), second.link_pose(q, str(link)), atol=1e-12)
    assert second.static_link_poses


def chain(root: ElementTree.Element, joint: str) -> set[str]:
    """The links from the root to the one that a joint moves."""
    ends = {}
    for item in root.findall("joint"):
        parent, child = item.find("parent"), item.find("child")
        assert parent is not None
        assert child is not None
        ends[str(item.get("name"))] = (str(parent.get("link")), str(child.get("link")))
    parents = {child: parent for parent, child in ends.values()}
    links = [ends[joint][1]]
    while links[-1] in parents:
        links.append(parents[links[-1]])
    return set(links)


def test_tool_of_the_drivers_own_counts_and_is_told() -> None:
    config = load_robot("fr3")
    longer = load_description(config).replace('xyz="0 0 0.1034"', 'xyz="0 0 0.1534"')
    found = adopt(config, longer)
    assert found.arm_m == 0.0
    assert found.tcp_m == pytest.approx(0.05, abs=1e-9)
    assert RobotModel(config, found.urdf).forward_kinematics(np.zeros(7))[2, 3] == pytest.approx(
        RobotModel.from_config(config).forward_kinematics(np.zeros(7))[2, 3] - 0.05
    )


def test_prefixed_arm_is_found_behind_its_prefix() -> None:
    changes = {f"left_{joint}": xyz for joint, xyz in CALIBRATED.items()}
    found = adopt(load_robot("ur5e", "left_"), ur_driver("ur5e", changes, "left_"))
    assert found.arm_m == pytest.approx(0.0025, abs=1e-9)
    with pytest.raises(ConfigError, match=r"no joint 'shoulder_pan_joint'.*prefix.*left_shoulder_pan_joint"):
        adopt(load_robot("ur5e"), ur_driver("ur5e", changes, "left_"))


def test_another_arm_with_the_same_joints_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wrist_3_joint up to \d+ mm.*robot ur5e isn't the arm"):
        adopt(load_robot("ur5e"), ur_driver("ur10e", {}))


def test_another_arm_with_other_joints_is_refused() -> None:
    with pytest.raises(ConfigError, match="no joint 'fr3_joint1', which robot fr3 has"):
        adopt(load_robot("fr3"), load_description(load_robot("panda")), "/left/robot_description")


def test_joint_name_used_twice_is_refused() -> None:
    config = load_robot("ur5e")
    live = ur_driver("ur5e", {}).replace('name="base_joint"', 'name="gripper_base_joint"')
    with pytest.raises(ConfigError, match="'gripper_base_joint' is one in the driver's description and another"):
        merge(load_description(config), live, config)


@pytest.mark.parametrize("text", ["", "<robot", "<sdf/>", "fr3"])
def test_what_is_no_urdf_is_refused_by_its_topic(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/robot_description"):
        adopt(load_robot("fr3"), text, "/robot_description")
