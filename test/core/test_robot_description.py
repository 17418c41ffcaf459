"""Our URDFs: kinematics against independent sources, frames, limits, and that pinocchio and MuJoCo read them alike."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import metadata
from itertools import pairwise, product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
import pytest

from vla_ros.errors import ConfigError, MissingDependencyError
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

OURS = ["panda", "fr3", "ur5e", "ur10e"]
# Sums of about ten products of numbers near 1 in double precision; a link wrong by a micrometre is 1000 times more.
EXACT = 1e-9


def angle_between(R_a: FloatArray, R_b: FloatArray) -> float:
    """Angle, rad, without the loss of digits that arccos has near zero: |R_a - R_b| = 2 sqrt(2) sin(angle / 2)."""
    return float(2.0 * np.arcsin(min(1.0, np.linalg.norm(R_a - R_b) / (2.0 * np.sqrt(2.0)))))


def random_configurations(model: RobotModel, count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(model.lower, model.upper, (count, len(model.names)))


@pytest.mark.parametrize("tcp_frame", ["panda_link8", "panda_hand", "panda_hand_tcp", "panda_link4"])
def test_panda_kinematics_are_those_of_example_robot_data(tcp_frame: str) -> None:
    package = metadata.distribution("example-robot-data")
    path = package.locate_file("cmeel.prefix/share/example-robot-data/robots/panda_description/urdf/panda.urdf")
    oracle = pin.buildModelFromUrdf(str(path))
    data, frame = oracle.createData(), oracle.getFrameId(tcp_frame, pin.BODY)
    config = load_robot("panda")
    if tcp_frame == "panda_link4":
        config = replace(config, joints=config.joints[:4], effort_nm=config.effort_nm[:4])
    model = RobotModel.from_config(replace(config, tcp_frame=tcp_frame))
    for q in random_configurations(model, 1000, seed=1):
        pin.framesForwardKinematics(oracle, data, np.concatenate([q, np.zeros(oracle.nq - len(q))]))
        T_base_tcp = model.forward_kinematics(q)
        assert np.linalg.norm(T_base_tcp[:3, 3] - data.oMf[frame].translation) < EXACT
        assert angle_between(T_base_tcp[:3, :3], data.oMf[frame].rotation) < EXACT


def franka_by_denavit_hartenberg(q: FloatArray) -> FloatArray:
    """Pose of the flange in the base.

    Source: Franka's FCI documentation, "Robot and interface specifications", modified convention (Craig)
    Rx(alpha) Tx(a) Rz(theta) Tz(d); the same table for the Panda and the FR3.
    """
    table = [
        # a, d, alpha
        (0.0, 0.333, 0.0),
        (0.0, 0.0, -np.pi / 2),
        (0.0, 0.316, np.pi / 2),
        (0.0825, 0.0, np.pi / 2),
        (-0.0825, 0.384, -np.pi / 2),
        (0.0, 0.0, np.pi / 2),
        (0.088, 0.0, np.pi / 2),
        (0.0, 0.107, 0.0),
    ]
    T = np.eye(4)
    for theta, (a, d, alpha) in zip([*q, 0.0], table, strict=True):
        c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
        T = T @ np.array([[c, -s, 0, a], [s * ca, c * ca, -sa, -d * sa], [s * sa, c * sa, ca, d * ca], [0, 0, 0, 1]])
    return T


@pytest.mark.parametrize("name", ["panda", "fr3"])
def test_franka_kinematics_are_those_of_the_published_denavit_hartenberg_table(name: str) -> None:
    config = load_robot(name)
    model = RobotModel.from_config(replace(config, tcp_frame=f"{name}_link8"))
    with_hand = RobotModel.from_config(config)
    # The hand is screwed on at 45 degrees; its tcp is 103.4 mm out (Franka hand manual).
    s = np.sqrt(0.5)
    T_flange_tcp = np.array([[s, s, 0, 0], [-s, s, 0, 0], [0, 0, 1, 0.1034], [0, 0, 0, 1]])
    for q in random_configurations(model, 1000, seed=8):
        expected = franka_by_denavit_hartenberg(q)
        np.testing.assert_allclose(model.forward_kinematics(q), expected, atol=EXACT)
        np.testing.assert_allclose(with_hand.forward_kinematics(q), expected @ T_flange_tcp, atol=EXACT)


# Classic convention Rz(theta) Tz(d) Tx(a) Rx(alpha): a, d, alpha.
# Source: Universal Robots, "DH parameters for calculations of kinematics and dynamics".
UR_TABLES = {
    "ur5e": [
        (0.0, 0.1625, np.pi / 2),
        (-0.425, 0.0, 0.0),
        (-0.3922, 0.0, 0.0),
        (0.0, 0.1333, np.pi / 2),
        (0.0, 0.0997, -np.pi / 2),
        (0.0, 0.0996, 0.0),
    ],
    "ur10e": [
        (0.0, 0.1807, np.pi / 2),
        (-0.6127, 0.0, 0.0),
        (-0.57155, 0.0, 0.0),
        (0.0, 0.17415, np.pi / 2),
        (0.0, 0.11985, -np.pi / 2),
        (0.0, 0.11655, 0.0),
    ],
}


def ur_by_denavit_hartenberg(name: str, q: FloatArray) -> FloatArray:
    """Pose of the tool flange in the controller's base."""
    T = np.eye(4)
    for theta, (a, d, alpha) in zip(q, UR_TABLES[name], strict=True):
        c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
        T = T @ np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])
    return T


@pytest.mark.parametrize("name", UR_TABLES)
def test_ur_kinematics_are_those_of_the_published_denavit_hartenberg_table(name: str) -> None:
    model = RobotModel.from_config(replace(load_robot(name), base_frame="base", tcp_frame="tool0"))
    for q in random_configurations(model, 1000, seed=2):
        T_base_tool0 = model.forward_kinematics(q)
        expected = ur_by_denavit_hartenberg(name, q)
        assert np.linalg.norm(T_base_tool0[:3, 3] - expected[:3, 3]) < EXACT
        assert angle_between(T_base_tool0[:3, :3], expected[:3, :3]) < EXACT


@pytest.mark.parametrize(("name", "reach_m"), [("ur5e", 0.425 + 0.3922), ("ur10e", 0.6127 + 0.57155)])
def test_ur_base_link_looks_the_other_way_than_the_controllers_base(name: str, reach_m: float) -> None:
    """Stretched out at q = 0 the arm points along -x of the controller's base, so along +x of base_link."""
    config = load_robot(name)
    q = np.zeros(6)
    in_base_link = RobotModel.from_config(replace(config, tcp_frame="tool0")).forward_kinematics(q)
    assert in_base_link[0, 3] == pytest.approx(reach_m)
    half_a_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(in_base_link, half_a_turn @ ur_by_denavit_hartenberg(name, q), atol=EXACT)


@pytest.mark.parametrize("name", OURS)
def test_home_puts_the_tool_straight_down_over_the_table(name: str) -> None:
    model = RobotModel.from_config(load_robot(name))
    T_base_tcp = model.forward_kinematics(model.home)
    # The YAML has six digits a joint.
    np.testing.assert_allclose(T_base_tcp[:3, 3], [0.47, 0.0, 0.38], atol=5e-6)
    np.testing.assert_allclose(T_base_tcp[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=5e-6)


def relative_pose(description: str, reference: str, frame: str) -> FloatArray:
    model = pin.buildModelFromXML(description)
    data = model.createData()
    pin.framesForwardKinematics(model, data, pin.neutral(model))
    M_reference, M_frame = (data.oMf[model.getFrameId(link, pin.BODY)] for link in (reference, frame))
    return np.asarray(M_reference.actInv(M_frame).homogeneous)


def test_the_wrist_camera_stands_at_the_same_pose_in_the_tcp_on_all_arms() -> None:
    configs = [load_robot(name) for name in OURS]
    poses = [relative_pose(load_description(c), c.tcp_frame, "camera_wrist_optical_frame") for c in configs]
    for pose in poses[1:]:
        np.testing.assert_allclose(pose, poses[0], atol=EXACT)
    np.testing.assert_allclose(poses[0][:3, 3], [0.08, 0.0, -0.075], atol=EXACT)
    # Worked by hand: 20 degrees from the tool axis towards it; right is the tcp's +y.
    s, c = np.sin(np.deg2rad(20.0)), np.cos(np.deg2rad(20.0))
    np.testing.assert_allclose(poses[0][:3, :3], np.array([[0, -c, -s], [1, 0, 0], [0, -s, c]]), atol=EXACT)


def test_the_wrist_camera_sees_the_fingertips_low_and_the_cube_below_the_tcp() -> None:
    config = load_robot("panda")
    T_cam_tcp = np.linalg.inv(relative_pose(load_description(config), config.tcp_frame, "camera_wrist_optical_frame"))

    def seen(points_tcp: FloatArray) -> FloatArray:
        """Where in a square image of 60 degrees: right and down from the middle in halves of the image, (n, 2)."""
        points_cam = points_tcp @ T_cam_tcp[:3, :3].T + T_cam_tcp[:3, 3]
        assert (points_cam[:, 2] > 0.0).all()
        return np.asarray(points_cam[:, :2] / points_cam[:, 2:] / np.tan(np.deg2rad(30.0)))

    cube = np.array(list(product([-0.02, 0.02], repeat=3)))
    for hover_m in (0.1, 0.12, 0.2, 0.3):
        assert (np.abs(seen(cube + np.array([0.0, 0.0, hover_m]))) < 0.5).all()
    fingertips = seen(np.array([[0.0, -0.04, 0.009], [0.0, 0.04, 0.009]]))
    assert (fingertips[:, 1] > 0.7).all()
    assert (np.abs(fingertips) < 1.0).all()


@pytest.mark.parametrize("name", OURS)
def test_the_opening_is_the_way_between_the_fingers(name: str) -> None:
    model, gripper = RobotModel.from_config(load_robot(name)), load_robot(name).gripper
    assert gripper is not None
    apart = []
    for opening in (0.0, 1.0):
        fingers = [pose.T_parent_child[:3, 3] for pose in model.link_poses(model.home, opening)][-2:]
        apart.append(fingers[0] - fingers[1])
    np.testing.assert_allclose(np.array(apart), np.array([[0, 0, 0], [0, gripper.max_width_m, 0]]), atol=EXACT)


@pytest.mark.parametrize("name", OURS)
def test_mujoco_and_the_model_agree_on_every_link(name: str) -> None:
    mujoco = pytest.importorskip("mujoco")
    config = load_robot(name)
    model = RobotModel.from_config(config)
    simulated = mujoco.MjSpec.from_string(load_description(config)).compile()
    data = mujoco.MjData(simulated)
    gripper = config.gripper
    assert gripper is not None
    joints = [mujoco.mj_id2name(simulated, mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(simulated.njnt)]
    assert joints == [*config.joint_names, *gripper.joints]
    for q in random_configurations(model, 20, seed=3):
        data.qpos[:] = [*q, *gripper.positions(0.6)]
        mujoco.mj_forward(simulated, data)
        T_base_link = {config.base_frame: np.eye(4)}
        edges = {pose.child: pose for pose in [*model.static_link_poses, *model.link_poses(q, opening=0.6)]}
        for link in edges:
            chain = [link]
            while chain[-1] not in T_base_link:
                chain.append(edges[chain[-1]].parent)
            for parent, child in pairwise(reversed(chain)):
                T_base_link[child] = T_base_link[parent] @ edges[child].T_parent_child
        assert len(T_base_link) == simulated.nbody - 1
        for link, T in T_base_link.items():
            np.testing.assert_allclose(T[:3, 3], data.body(link).xpos, atol=EXACT)
            assert angle_between(T[:3, :3], data.body(link).xmat.reshape(3, 3)) < EXACT
        np.testing.assert_allclose(model.forward_kinematics(q), T_base_link[config.tcp_frame], atol=EXACT)


@pytest.mark.parametrize("name", OURS)
def test_mujoco_keeps_the_drawn_shapes_and_does_not_let_them_collide(name: str) -> None:
    mujoco = pytest.importorskip("mujoco")
    description = load_description(load_robot(name))
    drawn, solid = (len(ElementTree.fromstring(description).findall(f"link/{tag}")) for tag in ("visual", "collision"))
    geoms = list(mujoco.MjSpec.from_string(description).geoms)
    assert sum(geom.contype == 0 for geom in geoms) == drawn
    assert sum(geom.contype != 0 for geom in geoms) == solid


@pytest.mark.parametrize("name", OURS)
def test_a_prefix_stands_before_every_link_and_joint(name: str) -> None:
    config = load_robot(name)
    plain = ElementTree.fromstring(load_description(config))
    prefixed = ElementTree.fromstring(load_description(config, prefix="left_"))
    for path, key in (
        ("link", "name"),
        ("joint", "name"),
        ("joint/parent", "link"),
        ("joint/child", "link"),
    ):
        names = [element.attrib[key] for element in plain.findall(path)]
        assert [element.attrib[key] for element in prefixed.findall(path)] == ["left_" + name for name in names]


@pytest.mark.parametrize("name", OURS)
def test_without_camera_its_links_are_gone_and_nothing_else(name: str) -> None:
    config = load_robot(name)
    links = [
        {link.attrib["name"] for link in ElementTree.fromstring(text).findall("link")}
        for text in (load_description(config), load_description(config, arguments={"camera": "false"}))
    ]
    assert links[0] - links[1] == {"wrist_camera_link", "camera_wrist_optical_frame"}
    assert links[1] < links[0]


def with_description(path: Path) -> RobotConfig:
    return replace(load_robot("panda"), description=str(path))


@pytest.mark.parametrize(
    ("suffix", "text", "says"),
    [
        ("urdf", "<robot name='a'><link name='b'>", "isn't XML"),
        ("urdf", "<mujoco/>", "its root element is <mujoco>"),
        ("urdf", "<robot name='a'><link name='b'/><link name='b'/></robot>", "link named more than once: b"),
        ("urdf.xacro", "<robot name='a'>${1 +}</robot>", "xacro can't expand it"),
        (
            "urdf.xacro",
            "<robot name='a' xmlns:xacro='http://www.ros.org/wiki/xacro'><xacro:include filename='no.xacro'/></robot>",
            "no.xacro",
        ),
        ("urdf.xacro", "<robot name='a'>$(find no_such_package)</robot>", "xacro can't expand it"),
        ("urdf.xacro", "<robot", "xacro can't expand it"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, suffix: str, text: str, says: str
) -> None:
    path = tmp_path / f"arm.{suffix}"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_description(with_description(path))
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_urdf_is_taken_as_it_is_and_refuses_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "arm.urdf"
    path.write_text("<robot name='a'><link name='b'/></robot>", encoding="utf-8")
    assert load_description(with_description(path)) == "<robot name='a'><link name='b'/></robot>"
    with pytest.raises(ConfigError, match=r"takes no arguments \(prefix\)"):
        load_description(with_description(path), prefix="left_")
    with pytest.raises(ConfigError, match="can't be read"):
        load_description(with_description(tmp_path / "none.urdf"))


def test_without_xacro_the_error_names_file_and_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xacro", None)
    with pytest.raises(MissingDependencyError, match=r"xacro is missing, needed for .*panda\.urdf\.xacro.*pip install"):
        load_description(load_robot("panda"))
