"""Arms that aren't ours: a YAML of one's own, continuous, sliding and mimicking joints, arms of example-robot-data."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pinocchio as pin
import pytest
import yaml

from vla_ros.errors import ConfigError
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel
from vla_ros.robots.self_collision import SelfCollision
from vla_ros.types import FloatArray

EXACT = 1e-9


def write_yaml(folder: Path, description: str, base: str, tcp: str, joints: dict[str, tuple[float, float]]) -> Path:
    """A robot's YAML with little in it, as somebody with a new arm would write it.

    Args:
        folder: where it goes, as `own.yaml`.
        description: as in `RobotConfig`.
        base: base frame.
        tcp: tcp frame.
        joints: limits of the position by name.
    """
    entries = []
    for name, (lower, upper) in joints.items():
        limits = {"velocity_rad_s": 2.0, "acceleration_rad_s2": 7.0, "jerk_rad_s3": 70.0}
        entries.append({"name": name, "home_rad": (lower + upper) / 2, "position_rad": [lower, upper], **limits})
    tool = {f"{kind}_{unit}": 1.0 for kind, unit in (("velocity", "m_s"), ("acceleration", "m_s2"), ("jerk", "m_s3"))}
    tool |= {f"angular_{key.replace('_m_', '_rad_')}": 1.0 for key in tool}
    data = {
        "name": "own",
        "description": description,
        "base_frame": base,
        "tcp_frame": tcp,
        "joints": entries,
        "gripper": None,
        "tool": tool,
        "command": {"interface": "position", "topic": "commands"},
        "effort_nm": [10.0] * len(entries),
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def example_robot(path: str) -> Path:
    package = metadata.distribution("example-robot-data")
    return Path(str(package.locate_file(f"cmeel.prefix/share/example-robot-data/robots/{path}")))


UR = ["shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint"]
ARMS = {
    "ur3": ("ur_description/urdf/ur3_robot.urdf", "base_link", "tool0", UR),
    "xarm7": ("xarm_description/urdf/xarm7.urdf", "link_base", "link_eef", [f"joint{i}" for i in range(1, 8)]),
    "z1": ("z1_description/urdf/z1.urdf", "link00", "gripperStator", [f"joint{i}" for i in range(1, 7)]),
    # Three of its six joints are continuous.
    "kinova": (
        "kinova_description/robots/kinova.urdf",
        "j2s6s200_link_base",
        "j2s6s200_end_effector",
        [f"j2s6s200_joint_{i}" for i in range(1, 7)],
    ),
}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_of_example_robot_data_is_that_of_pinocchio(arm: str, tmp_path: Path) -> None:
    relative, base, tcp, names = ARMS[arm]
    path = example_robot(relative)
    oracle = pin.buildModelFromUrdf(str(path))
    data, base_id, tcp_id = oracle.createData(), oracle.getFrameId(base, pin.BODY), oracle.getFrameId(tcp, pin.BODY)
    # Another order than the URDF's, and wider limits.
    joints = dict.fromkeys((*names[2:], *names[:2]), (-9.0, 9.0))
    for name in names:
        joint = oracle.joints[oracle.getJointId(name)]
        if joint.nq == 1:
            lower, upper = oracle.lowerPositionLimit[joint.idx_q], oracle.upperPositionLimit[joint.idx_q]
            joints[name] = (float(lower) - 1.0, float(upper) + 1.0)
    model = RobotModel.from_config(load_robot(str(write_yaml(tmp_path, str(path), base, tcp, joints))))
    assert model.names == tuple(joints)

    for q in np.random.default_rng(21).uniform(model.lower, model.upper, (100, len(names))):
        q_oracle = pin.neutral(oracle)
        for name, value in zip(model.names, q, strict=True):
            joint = oracle.joints[oracle.getJointId(name)]
            q_oracle[joint.idx_q : joint.idx_q + joint.nq] = value if joint.nq == 1 else (np.cos(value), np.sin(value))
        pin.framesForwardKinematics(oracle, data, q_oracle)
        expected = data.oMf[base_id].actInv(data.oMf[tcp_id]).homogeneous
        np.testing.assert_allclose(model.forward_kinematics(q), expected, atol=EXACT)

    for i, name in enumerate(model.names):
        joint = oracle.joints[oracle.getJointId(name)]
        if joint.nq == 1:
            assert model.lower[i] == oracle.lowerPositionLimit[joint.idx_q]
            assert model.upper[i] == oracle.upperPositionLimit[joint.idx_q]
        else:
            assert (model.lower[i], model.upper[i]) == (-9.0, 9.0)
        assert model.velocity[i] == min(2.0, oracle.velocityLimit[joint.idx_v])
    # The shapes of most are meshes, so there is nothing to check.
    collision = SelfCollision(model)
    assert bool(collision.pairs) == (arm == "z1")
    assert collision.distance(model.home) > 0.0


# A rail, a continuous joint with and one without limits, a gripper of three fingers that follow one another, and a flap
# that follows the arm.
URDF = """
<robot name="own">
  <link name="floor"/> <link name="cart"/> <link name="a"/> <link name="b"/> <link name="hand"/>
  <link name="thumb"/> <link name="index"/> <link name="ring"/> <link name="flap"/>
  <joint name="rail" type="prismatic"><parent link="floor"/><child link="cart"/><axis xyz="1 0 0"/>
    <limit lower="-0.5" upper="0.5" velocity="0.3" effort="10"/></joint>
  <joint name="swing" type="continuous"><parent link="cart"/><child link="a"/><origin xyz="0 0 0.3"/><axis xyz="0 0 1"/>
    <limit velocity="1.5" effort="10"/></joint>
  <joint name="roll" type="continuous"><parent link="a"/><child link="b"/><origin xyz="0.4 0 0"/>
    <axis xyz="1 0 0"/></joint>
  <joint name="grip" type="fixed"><parent link="b"/><child link="hand"/><origin xyz="0.1 0 0.05"/></joint>
  <joint name="ring_joint" type="prismatic"><parent link="hand"/><child link="ring"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/>
    <mimic joint="index_joint" multiplier="-3" offset="0.5"/></joint>
  <joint name="index_joint" type="prismatic"><parent link="hand"/><child link="index"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/><mimic joint="thumb_joint" multiplier="2"/></joint>
  <joint name="thumb_joint" type="prismatic"><parent link="hand"/><child link="thumb"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.05" velocity="1" effort="1"/></joint>
  <joint name="flap_joint" type="continuous"><parent link="cart"/><child link="flap"/><axis xyz="0 0 1"/>
    <mimic joint="swing" offset="0.1"/></joint>
</robot>
"""
JOINTS = {"rail": (-0.4, 0.6), "swing": (-12.0, 12.0), "roll": (-7.0, 7.0)}


def own_config(folder: Path, **changes: Any) -> RobotConfig:
    """The arm above, loaded from a YAML beside its URDF."""
    (folder / "own.urdf").write_text(changes.pop("urdf", URDF), encoding="utf-8")
    path = write_yaml(folder, "own.urdf", "floor", changes.pop("tcp", "hand"), JOINTS)
    data = yaml.safe_load(path.read_text(encoding="utf-8")) | changes
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return load_robot(str(path))


GRIPPER = {"joints": ["thumb_joint"], "closed": [0.0], "open": [0.04], "max_width_m": 0.1, "speed_per_s": 1.0}
GRIPPER |= {"force_n": 10.0}


def by_hand(rail: float, swing: float, roll: float) -> FloatArray:
    """Position of the hand on the floor."""
    outwards, aside = 0.5, -0.05 * np.sin(roll)
    c, s = np.cos(swing), np.sin(swing)
    return np.array([rail + c * outwards - s * aside, s * outwards + c * aside, 0.3 + 0.05 * np.cos(roll)])


def test_sliding_and_continuous_joints_move_the_tcp_and_count_their_turns(tmp_path: Path) -> None:
    model = RobotModel.from_config(own_config(tmp_path))
    for q in np.random.default_rng(22).uniform(model.lower, model.upper, (50, 3)):
        np.testing.assert_allclose(model.forward_kinematics(q)[:3, 3], by_hand(*q), atol=EXACT)
        a_turn_on = model.forward_kinematics(q + np.array([0.0, 2.0 * np.pi, -2.0 * np.pi]))
        np.testing.assert_allclose(a_turn_on, model.forward_kinematics(q), atol=EXACT)
    np.testing.assert_allclose(model.jacobian(np.zeros(3))[:3, 0], [1.0, 0.0, 0.0], atol=EXACT)
    np.testing.assert_allclose(model.jacobian(np.zeros(3))[:3, 1], [0.0, 0.5, 0.0], atol=EXACT)


def test_limits_of_continuous_joints_are_the_yamls_and_the_urdfs_velocity(tmp_path: Path) -> None:
    model = RobotModel.from_config(own_config(tmp_path))
    np.testing.assert_array_equal(model.lower, [-0.4, -12.0, -7.0])
    np.testing.assert_array_equal(model.upper, [0.5, 12.0, 7.0])
    # The rail's and the swing's are the URDF's; the roll has none there.
    np.testing.assert_array_equal(model.velocity, [0.3, 1.5, 2.0])


def test_joints_that_mimic_follow_their_leader(tmp_path: Path) -> None:
    model = RobotModel.from_config(own_config(tmp_path, gripper=GRIPPER))
    poses = {pose.child: pose.T_parent_child for pose in model.link_poses(np.array([0.0, 0.3, 0.0]), opening=0.5)}
    assert poses["thumb"][1, 3] == pytest.approx(0.02)
    assert poses["index"][1, 3] == pytest.approx(2.0 * 0.02)
    assert poses["ring"][2, 3] == pytest.approx(-3.0 * 0.04 + 0.5)
    assert poses["flap"][1, 0] == pytest.approx(np.sin(0.4))


def test_a_finger_that_the_yaml_names_is_moved_by_it_and_not_by_its_leader(tmp_path: Path) -> None:
    both = GRIPPER | {"joints": ["thumb_joint", "index_joint"], "closed": [0.0, 0.0], "open": [0.04, -0.01]}
    model = RobotModel.from_config(own_config(tmp_path, gripper=both))
    poses = {pose.child: pose.T_parent_child for pose in model.link_poses(model.home, opening=1.0)}
    assert poses["index"][1, 3] == pytest.approx(-0.01)
    assert poses["ring"][2, 3] == pytest.approx(0.03 + 0.5)


def test_a_tcp_behind_a_following_finger_stands_where_the_opening_puts_it(tmp_path: Path) -> None:
    config = own_config(tmp_path, gripper=GRIPPER, tcp="index")
    for opening in (0.0, 1.0):
        T_base_tcp = RobotModel.from_config(config, opening).forward_kinematics(np.zeros(3))
        assert T_base_tcp[1, 3] == pytest.approx(0.08 * opening)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '<axis xyz="1 0 0"/></joint>',
            '<axis xyz="1 0 0"/><mimic joint="swing"/></joint>',
            "joint 'roll' mimics 'swing'; a joint of the arm has to be driven by itself",
        ),
        (
            '<joint name="grip" type="fixed">',
            '<joint name="grip" type="continuous"><mimic joint="swing"/>',
            "joint 'grip' between base and tcp mimics 'swing'",
        ),
        ('<mimic joint="thumb_joint" ', '<mimic joint="ring_joint" ', "index_joint, ring_joint mimic each other"),
        ('name="roll" type="continuous"', 'name="roll" type="floating"', "joint 'roll' has 6 degrees of freedom"),
        ('name="roll" type="continuous"', 'name="roll" type="planar"', "joint 'roll' has 3 degrees of freedom"),
    ],
)
def test_joints_that_the_arm_cannot_be_driven_by_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in URDF
    config = own_config(tmp_path, urdf=URDF.replace(old, new))
    with pytest.raises(ConfigError, match=says):
        RobotModel.from_config(config)


@pytest.mark.parametrize("key", ["acceleration_rad_s2", "jerk_rad_s3", "velocity_rad_s", "position_rad", "home_rad"])
def test_a_missing_limit_is_refused_by_joint_and_key(tmp_path: Path, key: str) -> None:
    path = write_yaml(tmp_path, "own.urdf", "floor", "hand", JOINTS)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    del data["joints"][1][key]
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_robot(str(path))
    assert str(caught.value).startswith(f"{path}: joint swing: key '{key}' is missing; add it")


def test_endless_limits_are_refused_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"joint swing: position_rad \[-inf, inf\] isn't finite; a continuous joint too"
    ):
        load_robot(str(write_yaml(tmp_path, "own.urdf", "floor", "hand", JOINTS | {"swing": (-np.inf, np.inf)})))


def test_a_description_is_found_beside_its_yaml_and_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_config(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_robot("../own.yaml")
    assert config.description_file == tmp_path / "own.urdf"
    monkeypatch.chdir("/")
    assert load_description(config) == URDF


def test_a_description_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    path = write_yaml(tmp_path, "none.urdf", "floor", "hand", JOINTS)
    with pytest.raises(ConfigError, match=r"own\.yaml: description: no file .*none\.urdf"):
        load_robot(str(path))


def test_names_with_a_prefix_are_taken_as_they_stand(tmp_path: Path) -> None:
    """The left one of two arms in one live description."""
    ours = load_robot("ur5e")
    description = load_description(ours, prefix="left_")
    joints = {f"left_{joint.name}": joint.position_rad for joint in ours.joints}
    (tmp_path / "cell.urdf").write_text(description, encoding="utf-8")
    path = write_yaml(tmp_path, "cell.urdf", "left_base_link", "left_gripper_tcp", joints)
    model, plain = RobotModel(load_robot(str(path)), description), RobotModel.from_config(ours)
    for q in np.random.default_rng(23).uniform(plain.lower, plain.upper, (20, 6)):
        np.testing.assert_array_equal(model.forward_kinematics(q), plain.forward_kinematics(q))
    # Our own description has shapes of its own, and capsules are put around them.
    assert SelfCollision(model).pairs
    assert SelfCollision(model).distance(plain.home) > 0.0
