"""RobotModel on a small arm of three joints whose kinematics can be worked out by hand, and on ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

from vla_ros.config import find_config
from vla_ros.errors import ConfigError
from vla_ros.robots.config import CommandConfig, GripperConfig, JointConfig, RobotConfig, ToolLimits, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

# A mount turned and tilted, a spinning dish that isn't part of the arm, three joints about z, y and y, and one finger.
URDF = """
<robot name="small">
  <link name="world"/> <link name="mount"/> <link name="a"/> <link name="b"/> <link name="c"/> <link name="tip"/>
  <link name="finger"/> <link name="dish"/>
  <joint name="mounting" type="fixed">
    <parent link="world"/><child link="mount"/><origin xyz="0.1 -0.2 0.3" rpy="0.4 -0.5 0.6"/>
  </joint>
  <joint name="a_dish_joint" type="continuous">
    <parent link="world"/><child link="dish"/><origin xyz="0 0 1"/><axis xyz="0 0 1"/>
  </joint>
  <joint name="turn" type="revolute">
    <parent link="mount"/><child link="a"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" velocity="1" effort="10"/>
  </joint>
  <joint name="bend" type="revolute">
    <parent link="a"/><child link="b"/><origin xyz="0 0 0.5"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="0" velocity="2" effort="10"/>
  </joint>
  <joint name="fold" type="revolute">
    <parent link="b"/><child link="c"/><origin xyz="0.4 0 0"/><axis xyz="0 1 0"/>
    <limit lower="-3" upper="3" velocity="0" effort="10"/>
  </joint>
  <joint name="tipping" type="fixed"><parent link="c"/><child link="tip"/><origin xyz="0.3 0 0"/></joint>
  <joint name="slide" type="prismatic">
    <parent link="c"/><child link="finger"/><origin xyz="0.3 0 0"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.05" velocity="1" effort="10"/>
  </joint>
</robot>
"""


def joint(name: str, lower: float = -2.5, upper: float = 2.5, velocity: float = 1.5, home: float = 0.0) -> JointConfig:
    return JointConfig(name, home, (lower, upper), velocity, 7.0, 70.0)


@pytest.fixture
def small(tmp_path: Path) -> RobotConfig:
    path = tmp_path / "small.urdf"
    path.write_text(URDF, encoding="utf-8")
    return RobotConfig(
        name="small",
        description=str(path),
        base_frame="mount",
        tcp_frame="tip",
        joints=(joint("turn"), joint("bend"), joint("fold")),
        gripper=GripperConfig(("slide",), (0.0,), (0.04,), 0.08, 1.0, 10.0),
        tool=ToolLimits(1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        command=CommandConfig("position", "commands"),
        effort_nm=(10.0, 10.0, 10.0),
    )


def by_hand(turn: float, bend: float, fold: float) -> FloatArray:
    """Tip of the small arm in its mount: two links in a plane that turns about z."""
    reach = 0.4 * np.cos(bend) + 0.3 * np.cos(bend + fold)
    height = 0.5 - 0.4 * np.sin(bend) - 0.3 * np.sin(bend + fold)
    return np.array([reach * np.cos(turn), reach * np.sin(turn), height])


def by_finite_differences(pose: Callable[[FloatArray], FloatArray], q: FloatArray) -> FloatArray:
    """Jacobian by central differences; the angular part from R(+) R(-)^T, which is I + 2 h [w] to second order."""
    h = 1e-6
    columns = []
    for step in h * np.eye(len(q)):
        T_plus, T_minus = pose(q + step), pose(q - step)
        W = (T_plus[:3, :3] @ T_minus[:3, :3].T - T_minus[:3, :3] @ T_plus[:3, :3].T) / (4.0 * h)
        columns.append([*(T_plus[:3, 3] - T_minus[:3, 3]) / (2.0 * h), W[2, 1], W[0, 2], W[1, 0]])
    return np.array(columns).T


# Cancellation: 1e-16 / h = 1e-10 for entries near 1, and truncation is smaller.
DIFFERENCE_TOLERANCE = 1e-8


def test_forward_kinematics_are_relative_to_a_base_that_is_not_the_root(small: RobotConfig) -> None:
    model = RobotModel.from_config(small)
    for q in np.random.default_rng(4).uniform(-1.0, 1.0, (50, 3)):
        np.testing.assert_allclose(model.forward_kinematics(q)[:3, 3], by_hand(*q), atol=1e-12)


def test_forward_kinematics_in_the_root_differ_by_the_mount(small: RobotConfig) -> None:
    q = np.array([0.3, -0.4, 0.5])
    in_root = RobotModel.from_config(replace(small, base_frame="world")).forward_kinematics(q)
    cx, sx, cy, sy, cz, sz = (f(v) for v in (0.4, -0.5, 0.6) for f in (np.cos, np.sin))
    Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    np.testing.assert_allclose(in_root[:3, 3], [0.1, -0.2, 0.3] + Rz @ Ry @ Rx @ by_hand(*q), atol=1e-12)


@pytest.mark.parametrize("base_frame", ["mount", "world", "dish"])
def test_jacobian_of_the_small_arm_is_the_derivative_in_base_axes(small: RobotConfig, base_frame: str) -> None:
    model = RobotModel.from_config(replace(small, base_frame=base_frame))
    for q in np.random.default_rng(5).uniform(-1.0, 1.0, (50, 3)):
        expected = by_finite_differences(model.forward_kinematics, q)
        np.testing.assert_allclose(model.jacobian(q), expected, atol=DIFFERENCE_TOLERANCE)


@pytest.mark.parametrize(("name", "base_frame"), [("panda", None), ("ur5e", None), ("ur5e", "base")])
def test_jacobian_of_our_arms_is_the_derivative_in_base_axes(name: str, base_frame: str | None) -> None:
    config = load_robot(name)
    model = RobotModel.from_config(replace(config, base_frame=base_frame or config.base_frame))
    for q in np.random.default_rng(6).uniform(model.lower, model.upper, (100, len(model.names))):
        T_base_tcp, J = model.tcp_pose_and_jacobian(q)
        expected = by_finite_differences(model.forward_kinematics, q)
        np.testing.assert_allclose(J, expected, atol=DIFFERENCE_TOLERANCE)
        np.testing.assert_allclose(model.jacobian(q), J, atol=0.0)
        # Two ways through the same chain: they may differ in the last digit.
        np.testing.assert_allclose(T_base_tcp, model.forward_kinematics(q), atol=1e-14)


def test_results_are_not_overwritten_by_the_next_call(small: RobotConfig) -> None:
    model = RobotModel.from_config(small)
    first = model.tcp_pose_and_jacobian(np.zeros(3))
    kept = [array.copy() for array in first]
    model.tcp_pose_and_jacobian(np.array([0.3, -0.4, 0.5]))
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_joints_in_another_order_give_the_same_arm(small: RobotConfig) -> None:
    order = [2, 0, 1]
    plain = RobotModel.from_config(small)
    mixed = RobotModel.from_config(replace(small, joints=tuple(small.joints[i] for i in order)))
    assert mixed.names == ("fold", "turn", "bend")
    for q in np.random.default_rng(7).uniform(-1.0, 1.0, (20, 3)):
        np.testing.assert_allclose(mixed.forward_kinematics(q[order]), plain.forward_kinematics(q), atol=1e-14)
        np.testing.assert_allclose(mixed.jacobian(q[order]), plain.jacobian(q)[:, order], atol=1e-14)
        for a, b in zip(mixed.link_poses(q[order]), plain.link_poses(q), strict=True):
            np.testing.assert_allclose(a.T_parent_child, b.T_parent_child, atol=1e-14)
    for key in ("lower", "upper", "velocity"):
        np.testing.assert_array_equal(getattr(mixed, key), getattr(plain, key)[order])


def test_the_tighter_of_yaml_and_urdf_wins(small: RobotConfig) -> None:
    joints = (joint("turn", -2.5, 1.5, velocity=0.5), joint("bend", -0.5, 2.5, velocity=2.5), joint("fold"))
    model = RobotModel.from_config(replace(small, joints=joints))
    np.testing.assert_array_equal(model.lower, [-2.0, -0.5, -2.5])
    np.testing.assert_array_equal(model.upper, [1.5, 0.0, 2.5])
    np.testing.assert_array_equal(model.velocity, [0.5, 2.0, 0.0])
    np.testing.assert_array_equal(model.acceleration, [7.0] * 3)
    np.testing.assert_array_equal(model.jerk, [70.0] * 3)


def test_a_limit_of_zero_stays_a_limit(small: RobotConfig) -> None:
    still = replace(joint("turn", 0.0, 1.0), velocity_rad_s=0.0, acceleration_rad_s2=0.0, jerk_rad_s3=0.0)
    model = RobotModel.from_config(replace(small, joints=(still, *small.joints[1:])))
    assert (model.lower[0], model.velocity[0], model.acceleration[0], model.jerk[0]) == (0.0, 0.0, 0.0, 0.0)
    # In the URDF: bend's upper position and fold's velocity.
    assert (model.upper[1], model.velocity[2]) == (0.0, 0.0)


def test_a_home_outside_the_urdfs_limits_is_refused(small: RobotConfig) -> None:
    joints = (small.joints[0], joint("bend", home=0.5), small.joints[2])
    with pytest.raises(ConfigError, match=r"bend: home_rad 0\.5 is outside the \[-1, 0\]"):
        RobotModel.from_config(replace(small, joints=joints))


def test_limits_that_do_not_meet_are_refused(small: RobotConfig) -> None:
    joints = (joint("turn", 2.1, 2.4, home=2.2), *small.joints[1:])
    with pytest.raises(ConfigError, match=r"turn: home_rad 2\.2 is outside the \[2\.1, 2\]"):
        RobotModel.from_config(replace(small, joints=joints))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"joints": (joint("turns"), joint("bend"), joint("fold"))},
            r"joints: no movable joint 'turns'.*mean 'turn'\?",
        ),
        ({"joints": (joint("turn"), joint("bend"), joint("tipping"))}, "no movable joint 'tipping'"),
        ({"joints": (joint("a_dish_joint"), joint("bend"), joint("fold"))}, "'tip' isn't moved by a_dish_joint"),
        (
            {"joints": (joint("turn"), joint("bend"), joint("slide"))},
            "slide both in the arm's joints and in the gripper",
        ),
        ({"tcp_frame": "tips"}, r"tcp_frame: no link 'tips'.*did you mean 'tip'\?"),
        ({"tcp_frame": "bend"}, "tcp_frame: no link 'bend'"),
        ({"base_frame": "mounting"}, r"base_frame: no link 'mounting'.*did you mean 'mount'\?"),
        ({"base_frame": "b"}, "base_frame: 'b' is moved by joint 'bend'"),
        ({"tcp_frame": "a"}, "tcp_frame: 'a' isn't moved by bend, fold"),
        (
            {"gripper": GripperConfig(("slides",), (0.0,), (0.04,), 0.08, 1.0, 10.0)},
            r"gripper\.joints: no movable joint 'slides'.*did you mean 'slide'\?",
        ),
    ],
)
def test_a_name_that_does_not_fit_the_urdf_is_refused(small: RobotConfig, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        RobotModel.from_config(replace(small, **changes))
    assert "\n" not in str(caught.value)


def test_a_joint_that_is_twice_in_the_urdf_is_refused(small: RobotConfig) -> None:
    doubled = URDF.replace('joint name="fold"', 'joint name="bend"')
    with pytest.raises(ConfigError, match="joint named more than once: bend"):
        RobotModel(small, doubled)


def test_a_joint_that_is_twice_in_the_yaml_is_refused(small: RobotConfig) -> None:
    with pytest.raises(ValueError, match="joints must be named once each"):
        replace(small, joints=(joint("turn"), joint("turn"), joint("fold")))


def test_a_urdf_that_pinocchio_refuses_is_named(small: RobotConfig) -> None:
    orphan = URDF.replace('<parent link="mount"/>', '<parent link="nowhere"/>')
    with pytest.raises(ConfigError, match="pinocchio can't read it") as caught:
        RobotModel(small, orphan)
    assert small.description in str(caught.value)


def test_a_live_description_replaces_the_files(small: RobotConfig) -> None:
    calibrated = RobotModel(small, URDF.replace('xyz="0.4 0 0"', 'xyz="0.41 0 0"'))
    nominal = RobotModel.from_config(small)
    moved = calibrated.forward_kinematics(np.zeros(3)) - nominal.forward_kinematics(np.zeros(3))
    np.testing.assert_allclose(moved[:3, 3], [0.01, 0.0, 0.0], atol=1e-12)


def test_fingers_are_locked_at_the_opening_given(small: RobotConfig) -> None:
    on_finger = replace(small, tcp_frame="finger")
    for opening in (0.0, 0.5, 1.0):
        T_base_tcp = RobotModel.from_config(on_finger, opening).forward_kinematics(np.zeros(3))
        assert T_base_tcp[1, 3] == pytest.approx(0.04 * opening, abs=1e-12)


def test_link_poses_split_into_moving_and_static_and_are_a_tree(small: RobotConfig) -> None:
    model = RobotModel.from_config(small)
    moving = {
        (pose.parent, pose.child): pose.T_parent_child for pose in model.link_poses(np.array([0.1, 0.2, 0.3]), 0.5)
    }
    static = {(pose.parent, pose.child): pose.T_parent_child for pose in model.static_link_poses}
    assert set(moving) == {("world", "dish"), ("mount", "a"), ("a", "b"), ("b", "c"), ("c", "finger")}
    assert set(static) == {("world", "mount"), ("c", "tip")}
    np.testing.assert_allclose(static["world", "mount"][:3, 3], [0.1, -0.2, 0.3], atol=1e-12)
    np.testing.assert_allclose(moving["c", "finger"][:3, 3], [0.3, 0.02, 0.0], atol=1e-12)
    np.testing.assert_allclose(moving["b", "c"][:3, 3], [0.4, 0.0, 0.0], atol=1e-12)
    assert moving["b", "c"][0, 2] == pytest.approx(np.sin(0.3))
    assert moving["mount", "a"][1, 0] == pytest.approx(np.sin(0.1))


def test_opening_and_finger_positions_are_inverse_to_each_other() -> None:
    gripper = GripperConfig(("l", "r"), (0.01, 0.8), (0.05, 0.0), 0.08, 1.0, 10.0)
    assert gripper.positions(0.25) == pytest.approx((0.02, 0.6))
    assert gripper.opening(0.02) == pytest.approx(0.25)


def test_an_unknown_key_in_a_robots_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = find_config("robots", "ur5e").read_text(encoding="utf-8")
    path.write_text(text.replace("home_rad", "home_rads", 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_robot(str(path))
    assert str(caught.value).startswith(f"{path}: joints[0]: unknown key 'home_rads'; did you mean 'home_rad'?")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_limit_below_zero_or_not_a_number_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"joint turn: {key} is {value}"):
        replace(joint("turn"), **{key: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tool: jerk_m_s3 is -1\.0"):
        ToolLimits(1.0, 1.0, -1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("name", ["panda", "ur5e", "fr3", "ur10e", "panda, joints reversed"])
def test_error_leads_to_the_target_and_jacobian_is_its_derivative(name: str) -> None:
    """By the exponential of SE(3) from scipy's matrix exponential, and by finite differences of the error itself."""
    robot = load_robot(name.split(",")[0])
    if "reversed" in name:
        robot = replace(robot, joints=robot.joints[::-1], effort_nm=robot.effort_nm[::-1])
    model = RobotModel.from_config(robot)
    rng = np.random.default_rng(0)
    for _ in range(20):
        q = rng.uniform(model.lower, model.upper)
        T_target = model.forward_kinematics(q + rng.normal(0.0, 0.2, len(q)))
        error, J = model.pose_error_and_jacobian(q, T_target)
        hat = np.zeros((4, 4))
        hat[:3, :3], hat[:3, 3] = np.cross(np.eye(3), error[3:]), error[:3]
        np.testing.assert_allclose(model.forward_kinematics(q) @ expm(hat), T_target, atol=1e-9)
        # At the target itself, what is left changes by minus the joints' motion.
        T_here, h = model.forward_kinematics(q), 1e-6
        for joint, step in enumerate(h * np.eye(len(q))):
            slope = (
                model.pose_error_and_jacobian(q + step, T_here)[0] - model.pose_error_and_jacobian(q - step, T_here)[0]
            )
            np.testing.assert_allclose(-slope / (2.0 * h), J[:, joint], atol=1e-6)
        np.testing.assert_array_equal(model.tcp_jacobian(q), J)
