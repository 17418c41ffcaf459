"""Every robot in config/robots: a new one is tested by being added."""

from __future__ import annotations

from itertools import combinations, product
from xml.etree import ElementTree

import coal
import numpy as np
import pinocchio as pin
import pytest

from vla_ros.config import config_names
from vla_ros.geometry.se3 import make_pose, pose_error
from vla_ros.robots.capsules import capsules_of
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel
from vla_ros.robots.self_collision import SelfCollision
from vla_ros.types import FloatArray


@pytest.fixture(params=config_names("robots"))
def config(request: pytest.FixtureRequest) -> RobotConfig:
    return load_robot(request.param)


def test_there_are_robots() -> None:
    assert {"panda", "fr3", "ur5e", "ur10e"} <= set(config_names("robots"))


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


class Shapes:
    """The URDF's own collision shapes on pinocchio's reduced model, paired where more than one joint lies between."""

    def __init__(self, model: RobotModel) -> None:
        self._model, self._order = model.reduced, model.order
        self._data = self._model.createData()
        self._geometry = pin.buildGeomFromUrdfString(self._model, model.description, pin.COLLISION)
        self.objects = list(self._geometry.geometryObjects)
        self.pairs = []
        for (i, a), (k, b) in combinations(enumerate(self.objects), 2):
            if abs(a.parentJoint - b.parentJoint) > 1:
                self._geometry.addCollisionPair(pin.CollisionPair(i, k))
                self.pairs.append(frozenset(self._model.frames[shape.parentFrame].name for shape in (a, b)))
        self._buffers = pin.GeometryData(self._geometry)

    def touching(self, q: FloatArray) -> set[frozenset[str]]:
        """Pairs of links."""
        q_model = np.empty(len(q))
        q_model[self._order] = q
        if not pin.computeCollisions(self._model, self._data, self._geometry, self._buffers, q_model, False):
            return set()
        results = self._buffers.collisionResults
        return {pair for i, pair in enumerate(self.pairs) if results[i].isCollision()}


def random_configurations(model: RobotModel, count: int, seed: int) -> FloatArray:
    """Within the limits, and within a turn: more would only repeat."""
    lower, upper = np.maximum(model.lower, -np.pi), np.minimum(model.upper, np.pi)
    return np.random.default_rng(seed).uniform(lower, upper, (count, len(model.names)))


def test_the_capsules_touch_wherever_the_shapes_do_and_seldom_else(config: RobotConfig) -> None:
    """Fingers at every opening; what is ignored really can't touch."""
    ignored = {frozenset(pair) for pair in config.self_collision.ignore}
    collision = SelfCollision(RobotModel.from_config(config))
    is_real, is_alarm = [], []
    for opening in (0.0, 1.0):
        model = RobotModel.from_config(config, opening)
        shapes = Shapes(model)
        for q in random_configurations(model, 1000, seed=31):
            touching, distance = shapes.touching(q), collision.distance(q)
            assert not touching or distance < 0.0, f"{touching} at {q}"
            assert not touching & ignored
            is_real.append(bool(touching))
            is_alarm.append(distance < 0.0)
    assert np.mean(is_real) > 0.01, "no collision among the configurations"
    assert np.mean(np.array(is_alarm)[~np.array(is_real)]) < 0.1


def surface(shape: coal.CollisionGeometry) -> FloatArray:
    """Points of a box's corners, edges and faces, or a cylinder's rims and mantle, or a sphere's surface."""
    grid = np.linspace(-1.0, 1.0, 9)
    if isinstance(shape, coal.Box):
        points = np.array(list(product(grid, repeat=3)))
        return points[np.abs(points).max(axis=1) == 1.0] * shape.halfSide
    angles = np.linspace(0.0, 2.0 * np.pi, 48)
    if isinstance(shape, coal.Cylinder):
        r, h = shape.radius, shape.halfLength
        return np.array([[r * np.cos(a), r * np.sin(a), h * z] for a in angles for z in grid])
    assert isinstance(shape, coal.Sphere)
    rings = [(np.cos(b), np.sin(b)) for b in np.pi / 2 * grid]
    return shape.radius * np.array([[c * np.cos(a), c * np.sin(a), s] for a in angles for c, s in rings])


@pytest.mark.parametrize("opening", [0.0, 0.5, 1.0])
def test_the_capsules_enclose_the_shapes(config: RobotConfig, opening: float) -> None:
    model = RobotModel.from_config(config, opening)
    capsules = config.self_collision.capsules or capsules_of(model.description)
    for shape in Shapes(model).objects:
        points = np.array([shape.placement.act(point) for point in surface(shape.geometry)])
        outside = np.full(len(points), np.inf)
        for capsule in capsules:
            frame = model.reduced.frames[model.reduced.getFrameId(capsule.link, pin.BODY)]
            if frame.parentJoint == shape.parentJoint:
                start, end = (frame.placement.act(np.array(p)) for p in (capsule.from_m, capsule.to_m))
                along = end - start
                share = np.clip((points - start) @ along / max(along @ along, 1e-12), 0.0, 1.0)
                apart = np.linalg.norm(points - start - share[:, None] * along, axis=1)
                outside = np.minimum(outside, apart - capsule.radius_m)
        assert outside.max() < 1e-6, shape.name


def test_the_arm_is_clear_of_itself_at_home_and_over_the_table(config: RobotConfig) -> None:
    """With the tool as the demo has it: straight down, turned about the vertical, from the table to home's height."""
    model = RobotModel.from_config(config)
    collision = SelfCollision(model)
    clear_m = 0.03
    assert collision.distance(model.home) > clear_m
    R_down = np.diag([1.0, -1.0, -1.0])
    for x, y, z, yaw in product((0.36, 0.47, 0.58), (-0.2, 0.0, 0.2), (0.02, 0.2, 0.38), (-0.7, 0.0, 0.7)):
        c, s = np.cos(yaw), np.sin(yaw)
        T_base_target = make_pose(np.array([x, y, z]), np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ R_down)
        q = model.home.copy()
        for _ in range(60):
            T_base_tcp, J = model.tcp_pose_and_jacobian(q)
            step = J.T @ np.linalg.solve(J @ J.T + 1e-6 * np.eye(6), pose_error(T_base_tcp, T_base_target))
            q += step * min(1.0, 0.2 / np.abs(step).max())
        assert np.linalg.norm(pose_error(model.forward_kinematics(q), T_base_target)) < 1e-4
        assert collision.distance(q) > clear_m, (x, y, z, yaw)
