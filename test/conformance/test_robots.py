"""Every robot in config/robots: a new one is tested by being added."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
import pytest

from vla_ros.config import config_names
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel


@pytest.fixture(params=config_names("robots"))
def config(request: pytest.FixtureRequest) -> RobotConfig:
    return load_robot(request.param)


def test_there_are_robots() -> None:
    assert {"panda", "ur5e"} <= set(config_names("robots"))


@pytest.mark.parametrize("name", config_names("robots"))
def test_a_robot_is_called_what_its_file_is_called(name: str) -> None:
    assert load_robot(name).name == name


def test_home_is_well_inside_the_limits(config: RobotConfig) -> None:
    model = RobotModel.from_config(config)
    margin_rad = 0.1
    assert (model.home > model.lower + margin_rad).all()
    assert (model.home < model.upper - margin_rad).all()


def test_home_is_far_from_singular(config: RobotConfig) -> None:
    model = RobotModel.from_config(config)
    assert np.linalg.svd(model.jacobian(model.home), compute_uv=False)[5] > 0.1


def test_the_urdfs_limits_do_not_undercut_the_yamls(config: RobotConfig) -> None:
    """Else the YAML promises what the arm doesn't get."""
    model = RobotModel.from_config(config)
    np.testing.assert_array_equal(model.lower, [joint.position_rad[0] for joint in config.joints])
    np.testing.assert_array_equal(model.upper, [joint.position_rad[1] for joint in config.joints])
    np.testing.assert_array_equal(model.velocity, [joint.velocity_rad_s for joint in config.joints])


def test_every_limit_lets_the_arm_move(config: RobotConfig) -> None:
    model = RobotModel.from_config(config)
    for limits in (model.velocity, model.acceleration, model.jerk, np.array(config.effort_nm)):
        assert (limits > 0.0).all()
        assert np.isfinite(limits).all()


def test_the_gripper_stays_inside_its_joints_limits(config: RobotConfig) -> None:
    if config.gripper is None:
        pytest.skip("a bare flange")
    model = pin.buildModelFromXML(load_description(config))
    for name, closed, opened in zip(config.gripper.joints, config.gripper.closed, config.gripper.open, strict=True):
        index = model.joints[model.getJointId(name)].idx_q
        for position in (closed, opened):
            assert model.lowerPositionLimit[index] <= position <= model.upperPositionLimit[index]


def test_the_urdf_uses_no_shape_that_parsers_drop(config: RobotConfig) -> None:
    shapes = {shape.tag for shape in ElementTree.fromstring(load_description(config)).iterfind("link/*/geometry/*")}
    assert shapes <= {"box", "cylinder", "sphere", "mesh"}


def only(element: ElementTree.Element, tag: str) -> dict[str, str]:
    found = element.find(tag)
    assert found is not None
    return found.attrib


def test_every_moving_link_has_a_physical_inertia(config: RobotConfig) -> None:
    root = ElementTree.fromstring(load_description(config))
    moved = {only(joint, "child")["link"] for joint in root.findall("joint") if joint.attrib["type"] != "fixed"}
    for link in root.findall("link"):
        inertial = link.find("inertial")
        if inertial is None:
            assert link.attrib["name"] not in moved
            continue
        assert float(only(inertial, "mass")["value"]) > 0.0
        entry = {key: float(value) for key, value in only(inertial, "inertia").items()}
        principal = np.linalg.eigvalsh(
            [
                [entry["ixx"], entry["ixy"], entry["ixz"]],
                [entry["ixy"], entry["iyy"], entry["iyz"]],
                [entry["ixz"], entry["iyz"], entry["izz"]],
            ]
        )
        assert principal[0] > 0.0
        # No body has a moment of inertia above the sum of the other two; a flat one reaches it.
        assert principal[2] <= (principal[0] + principal[1]) * (1.0 + 1e-9)


def test_mujoco_loads_the_urdf_with_every_joint_and_frame(config: RobotConfig) -> None:
    mujoco = pytest.importorskip("mujoco")
    spec = mujoco.MjSpec.from_string(load_description(config))
    model = spec.compile()
    joints = {mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(model.njnt)}
    assert {*config.joint_names, *(config.gripper.joints if config.gripper else ())} <= joints
    for frame in (config.base_frame, config.tcp_frame):
        assert mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, frame) >= 0


def test_home_is_free_of_self_collision(config: RobotConfig) -> None:
    """By MuJoCo's contacts, which leave out a link and its parent."""
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjSpec.from_string(load_description(config)).compile()
    data = mujoco.MjData(model)
    for joint in config.joints:
        data.joint(joint.name).qpos = joint.home_rad
    if config.gripper is not None:
        for name, position in zip(config.gripper.joints, config.gripper.positions(1.0), strict=True):
            data.joint(name).qpos = position
    mujoco.mj_forward(model, data)
    pairs = [
        {model.body(model.geom_bodyid[geom]).name for geom in (contact.geom1, contact.geom2)}
        for contact in data.contact
    ]
    assert pairs == []
