"""Self-collision on capsules: distances against an optimiser, gradients and their bound against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from vla_ros.config import config_names
from vla_ros.errors import ConfigError
from vla_ros.robots.capsules import Capsule, SelfCollisionConfig, capsules_of
from vla_ros.robots.config import CommandConfig, JointConfig, RobotConfig, ToolLimits, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.self_collision import SelfCollision
from vla_ros.types import FloatArray

ROBOTS = config_names("robots")

# A post, and on it an arm of three turning joints and a sliding one; drawn with each shape that URDF has.
URDF = """
<robot name="crane">
  <link name="ground"/>
  <link name="post"><collision><origin xyz="0 0 0.2"/><geometry><cylinder radius="0.05" length="0.4"/></geometry>
    </collision></link>
  <link name="turret"/>
  <link name="boom"><collision><origin xyz="0.25 0 0" rpy="0 0 1.5707963"/>
    <geometry><box size="0.04 0.5 0.06"/></geometry></collision></link>
  <link name="jib"><collision><origin xyz="0.15 0 0" rpy="0 1.5707963 0"/>
    <geometry><cylinder radius="0.03" length="0.3"/></geometry></collision></link>
  <link name="ram"><visual><geometry><sphere radius="9"/></geometry></visual>
    <collision><geometry><sphere radius="0.05"/></geometry></collision>
    <collision><geometry><mesh filename="package://none/ram.stl"/></geometry></collision></link>
  <link name="tip"/>
  <joint name="standing" type="fixed"><parent link="ground"/><child link="post"/><origin xyz="0.1 0 0"/></joint>
  <joint name="turn" type="revolute"><parent link="post"/><child link="turret"/><origin xyz="0 0 0.5"/>
    <axis xyz="0 0 1"/><limit lower="-3" upper="3" velocity="1" effort="10"/></joint>
  <joint name="lift" type="revolute"><parent link="turret"/><child link="boom"/><axis xyz="0 1 0"/>
    <limit lower="-3" upper="3" velocity="1" effort="10"/></joint>
  <joint name="fold" type="revolute"><parent link="boom"/><child link="jib"/><origin xyz="0.5 0.02 0"/>
    <axis xyz="0 1 0"/><limit lower="-3" upper="3" velocity="1" effort="10"/></joint>
  <joint name="push" type="prismatic"><parent link="jib"/><child link="ram"/><origin xyz="0.3 0 0"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.3" velocity="1" effort="10"/></joint>
  <joint name="tipping" type="fixed"><parent link="ram"/><child link="tip"/><origin xyz="0.1 0 0"/></joint>
</robot>
"""


def joint(name: str, lower: float, upper: float) -> JointConfig:
    return JointConfig(name, 0.5 * (lower + upper), (lower, upper), 1.0, 1.0, 1.0)


def crane(self_collision: SelfCollisionConfig | None = None) -> RobotModel:
    config = RobotConfig(
        name="crane",
        description="crane.urdf",
        base_frame="ground",
        tcp_frame="tip",
        joints=(joint("turn", -3.0, 3.0), joint("lift", -3.0, 3.0), joint("fold", -3.0, 3.0), joint("push", 0.0, 0.3)),
        gripper=None,
        tool=ToolLimits(1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        command=CommandConfig("position", "commands"),
        effort_nm=(10.0,) * 4,
        self_collision=self_collision or SelfCollisionConfig(),
    )
    return RobotModel(config, URDF)


def models() -> list[RobotModel]:
    return [*(RobotModel.from_config(load_robot(name)) for name in ROBOTS), crane()]


def random_configurations(model: RobotModel, count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(model.lower, model.upper, (count, len(model.names)))


def distances_by_optimisation(
    model: RobotModel, capsules: tuple[Capsule, ...], q: FloatArray
) -> dict[frozenset[str], float]:
    """Smallest distance of each pair of links: over the two segments, a least-squares problem in a box."""
    ends = []
    for capsule in capsules:
        T = model.link_pose(q, capsule.link)
        ends.append([T[:3, :3] @ np.array(p) + T[:3, 3] for p in (capsule.from_m, capsule.to_m)])
    found: dict[frozenset[str], float] = {}
    for i, a in enumerate(capsules):
        for k, b in enumerate(capsules[:i]):
            # Along each segment by a parameter in [0, 1]; a point's has no effect, so a little of it is added.
            A = np.column_stack([ends[i][1] - ends[i][0], ends[k][0] - ends[k][1]])
            solution = lsq_linear(np.vstack([A, 1e-9 * np.eye(2)]), np.r_[ends[k][0] - ends[i][0], 0, 0], bounds=(0, 1))
            apart = float(np.linalg.norm(A @ solution.x - (ends[k][0] - ends[i][0]))) - a.radius_m - b.radius_m
            pair = frozenset((a.link, b.link))
            found[pair] = min(apart, found.get(pair, np.inf))
    return found


@pytest.mark.parametrize("model", models(), ids=lambda model: model.config.name)
def test_distances_are_those_that_an_optimiser_finds_between_the_segments(model: RobotModel) -> None:
    collision = SelfCollision(model)
    capsules = model.config.self_collision.capsules or capsules_of(URDF)
    pairs = {frozenset(pair) for pair in collision.pairs}
    for q in random_configurations(model, 5, seed=1):
        expected = distances_by_optimisation(model, capsules, q)
        # lsq_linear stops within 1e-10 of the cost, which is the distance squared.
        assert collision.distance(q) == pytest.approx(min(expected[pair] for pair in pairs), abs=1e-5)
        near = collision.nearest(q, np.inf)
        for pair in pairs:
            found = min(d for d, links in zip(near.distances, near.pairs, strict=True) if frozenset(links) == pair)
            assert found == pytest.approx(expected[pair], abs=1e-5)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.config.name)
def test_gradients_are_the_differences_of_the_distances(model: RobotModel) -> None:
    collision = SelfCollision(model)
    h, checked = 1e-6, 0
    for q in random_configurations(model, 40, seed=2):
        gradients = collision.nearest(q, np.inf).gradients
        assert gradients.shape == (len(collision.pairs), len(model.names))
        plus, minus = (
            np.array([collision.nearest(q + sign * step, np.inf).distances for step in h * np.eye(len(q))]).T
            for sign in (1.0, -1.0)
        )
        there = collision.nearest(q, np.inf).distances
        # Where the nearest points change from one edge to another the distance has a kink, and no gradient.
        smooth = np.abs(plus + minus - 2.0 * there[:, None]).max(axis=1) < 1e-9
        assert smooth.mean() > 0.8
        np.testing.assert_allclose(gradients[smooth], ((plus - minus) / (2.0 * h))[smooth], atol=1e-5)
        checked += int((there[smooth] < 0.0).sum())
    assert checked > 0, "no penetration among the configurations"


@pytest.mark.parametrize("model", models(), ids=lambda model: model.config.name)
def test_no_distance_changes_by_more_than_the_reach_allows(model: RobotModel) -> None:
    collision, n = SelfCollision(model), len(model.names)
    rng = np.random.default_rng(3)
    everything = [collision.nearest(q, np.inf) for q in random_configurations(model, 300, seed=4)]
    # Every gradient lies within the bound, and the bound isn't idle: some gradient uses half of it.
    used = np.max([np.abs(near.gradients).max(axis=0) for near in everything], axis=0)
    assert (used <= collision.reach_m + 1e-9).all()
    assert (used >= 0.5 * collision.reach_m - 1e-9).all()
    for q in random_configurations(model, 300, seed=5):
        step = rng.choice([1e-3, 0.1, 1.0]) * rng.uniform(-1.0, 1.0, n) * (rng.random(n) < rng.random())
        moved = np.clip(q + step, model.lower, model.upper)
        change = collision.nearest(moved, np.inf).distances - collision.nearest(q, np.inf).distances
        allowed = collision.reach_m @ np.abs(moved - q) + 1e-9
        assert np.abs(change).max() <= allowed
        assert abs(collision.distance(moved) - collision.distance(q)) <= allowed


def test_only_pairs_within_the_distance_asked_for_are_returned() -> None:
    model = RobotModel.from_config(load_robot("panda"))
    collision = SelfCollision(model)
    for q in random_configurations(model, 50, seed=6):
        everything = collision.nearest(q, np.inf)
        for within_m in (-0.05, 0.0, 0.05, 0.2):
            near = collision.nearest(q, within_m)
            chosen = everything.distances < within_m
            np.testing.assert_array_equal(near.distances, everything.distances[chosen])
            np.testing.assert_allclose(near.gradients, everything.gradients[chosen], atol=1e-15)
            assert near.pairs == tuple(pair for pair, is_near in zip(everything.pairs, chosen, strict=True) if is_near)
            assert near.gradients.shape == (len(near.pairs), 7)
        assert collision.distance(q) == everything.distances.min()


def test_the_yamls_order_of_joints_is_that_of_the_gradients() -> None:
    config, order = load_robot("ur5e"), [4, 0, 5, 2, 1, 3]
    plain = SelfCollision(RobotModel.from_config(config))
    mixed_model = RobotModel.from_config(replace(config, joints=tuple(config.joints[i] for i in order)))
    mixed = SelfCollision(mixed_model)
    np.testing.assert_array_equal(mixed.reach_m, plain.reach_m[order])
    for q in random_configurations(mixed_model, 20, seed=7):
        in_plain_order = np.empty(6)
        in_plain_order[order] = q
        np.testing.assert_array_equal(
            mixed.nearest(q, np.inf).gradients, plain.nearest(in_plain_order, np.inf).gradients[:, order]
        )


def test_distances_of_the_crane_are_those_worked_by_hand() -> None:
    """A ball on the ram against a rod in the post."""
    given = SelfCollisionConfig(
        (
            Capsule("post", (0.0, 0.0, 0.0), (0.0, 0.0, 0.4), 0.05),
            Capsule("ram", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.02),
        )
    )
    collision = SelfCollision(crane(given))
    # Jib and ball are 0.02 m beside the plane of the boom, which the post's axis lies in.
    beside_m = 0.02
    # Straight out, the ball's centre is 0.5 + 0.3 + push m from the post's axis and 0.1 m over its end.
    straight_m = np.linalg.norm([0.9, beside_m, 0.1])
    assert collision.distance(np.array([0.7, 0.0, 0.0, 0.1])) == pytest.approx(straight_m - 0.07, abs=1e-9)
    # Boom and jib straight down: the ball's centre is 0.3 m + push under the post.
    down_m = np.hypot(0.4, beside_m)
    assert collision.distance(np.array([0.0, np.pi / 2, 0.0, 0.1])) == pytest.approx(down_m - 0.07, abs=1e-9)
    # Boom and jib, 0.5 m both, make a triangle of equal sides with the post, at 0.5 m - 2 * 0.5 m * sin(0.3) of its
    # height: in penetration.
    assert collision.distance(np.array([0.0, 0.3, np.pi - 0.6, 0.2])) == pytest.approx(beside_m - 0.07, abs=1e-9)
    # Folded by 90 degrees downwards: 0.5 m before the axis, 0.3 m + push below the joint.
    near = collision.nearest(np.array([0.0, 0.0, np.pi / 2, 0.1]), 1.0)
    away_m = np.hypot(0.5, beside_m)
    assert near.distances[0] == pytest.approx(away_m - 0.07, abs=1e-9)
    # The fold swings it inwards with a lever of 0.4 m, the lift with the same, pushing goes along the post.
    lever_m = 0.4 * 0.5 / away_m
    np.testing.assert_allclose(near.gradients, [[0.0, -lever_m, -lever_m, 0.0]], atol=1e-9)
    assert near.pairs == (("post", "ram"),)


def test_links_next_to_each_other_and_ignored_ones_are_left_out() -> None:
    assert {frozenset(pair) for pair in SelfCollision(crane()).pairs} == {
        frozenset(pair) for pair in (("post", "boom"), ("post", "jib"), ("post", "ram"), ("boom", "ram"))
    }
    ignoring = SelfCollision(crane(SelfCollisionConfig(ignore=(("ram", "post"), ("post", "boom")))))
    assert set(ignoring.pairs) == {("post", "jib"), ("boom", "ram")}


def test_without_pairs_the_distance_is_infinite() -> None:
    model = crane(SelfCollisionConfig((Capsule("post", (0.0, 0.0, 0.0), (0.0, 0.0, 0.4), 0.05),)))
    collision = SelfCollision(model)
    assert collision.distance(model.home) == np.inf
    near = collision.nearest(model.home, 1.0)
    assert (near.pairs, near.distances.shape, near.gradients.shape) == ((), (0,), (0, 4))
    np.testing.assert_array_equal(collision.reach_m, np.zeros(4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_refused(value: float) -> None:
    model = RobotModel.from_config(load_robot("ur5e"))
    collision, q = SelfCollision(model), model.home.copy()
    at_home = collision.distance(q)
    for i in range(6):
        q = model.home.copy()
        q[i] = value
        with pytest.raises(ValueError, match="positions aren't finite"):
            collision.distance(q)
        with pytest.raises(ValueError, match="positions aren't finite"):
            collision.nearest(q, 0.1)
    assert collision.distance(model.home) == at_home


def test_a_link_that_is_not_there_is_refused_by_name() -> None:
    capsule = Capsule("boon", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.1)
    for given in (SelfCollisionConfig((capsule,)), SelfCollisionConfig(ignore=(("post", "boon"),))):
        with pytest.raises(ConfigError, match=r"self_collision: no link 'boon' in the URDF; did you mean 'boom'\?"):
            SelfCollision(crane(given))


def test_capsules_of_the_yaml_that_touch_at_home_are_refused_and_those_of_the_urdf_left_out() -> None:
    thick = tuple(Capsule(link, (0.1, 0.0, 0.0), (0.2, 0.0, 0.0), 0.4) for link in ("post", "boom"))
    with pytest.raises(ConfigError, match="self_collision: touch at home: post and boom"):
        SelfCollision(crane(SelfCollisionConfig(thick)))
    config = crane().config
    stout = URDF.replace('size="0.04 0.5 0.06"', 'size="0.04 0.5 0.9"')
    collision = SelfCollision(RobotModel(config, stout))
    assert collision.overlapping == (("post", "boom"),)
    assert set(collision.pairs) == {("post", "jib"), ("post", "ram"), ("boom", "ram")}
    assert SelfCollision(crane()).overlapping == ()


def test_capsules_enclose_the_shapes_of_the_urdf() -> None:
    """Corners of the box, rims of the cylinders and the poles of the sphere; the mesh is left out."""
    capsules = {capsule.link: capsule for capsule in capsules_of(URDF)}
    assert set(capsules) == {"post", "boom", "jib", "ram"}
    angles = np.linspace(0.0, 2.0 * np.pi, 60)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    shapes = {
        "post": [[0.05 * x, 0.05 * y, z] for x, y in circle for z in (0.0, 0.4)],
        "boom": [[x, y, z] for x in (0.0, 0.5) for y in (-0.02, 0.02) for z in (-0.03, 0.03)],
        "jib": [[x, 0.03 * y, 0.03 * z] for y, z in circle for x in (0.0, 0.3)],
        "ram": [[0.05 * x, 0.05 * y, 0.0] for x, y in circle],
    }
    for link, points in shapes.items():
        start, end = np.array(capsules[link].from_m), np.array(capsules[link].to_m)
        along, p = end - start, np.array(points)
        share = np.clip((p - start) @ along / max(along @ along, 1e-12), 0.0, 1.0)
        outside = np.linalg.norm(p - start - share[:, None] * along, axis=1) - capsules[link].radius_m
        # The URDF has eight digits of a right angle.
        assert outside.max() <= 1e-8
        # And they fit: no more than the bulge that a round end needs.
        assert outside.max() > -1e-3
        assert np.linalg.norm(along) < np.ptp(p, axis=0).max() + 1e-9


@pytest.mark.parametrize(
    "shape",
    ['<sphere radius="0"/>', "<sphere/>", '<sphere radius="a"/>', '<box size="1 2"/>', '<cylinder length="1"/>'],
)
def test_a_shape_without_sense_is_refused_by_link(shape: str) -> None:
    with pytest.raises(ConfigError, match="URDF: collision of link ram: can't be enclosed"):
        capsules_of(URDF.replace('<sphere radius="0.05"/>', shape))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"radius_m": 0.0}, r"capsule of a: radius_m is 0\.0, it has to be above 0"),
        ({"radius_m": float("nan")}, "radius_m is nan"),
        ({"radius_m": float("inf")}, "radius_m is inf"),
        ({"to_m": (0.0, float("nan"), 0.0)}, "capsule of a: from_m .* have to be finite"),
    ],
)
def test_a_capsule_that_is_none_is_refused(changes: dict[str, float], says: str) -> None:
    given = {"link": "a", "from_m": (0.0, 0.0, 0.0), "to_m": (0.0, 0.0, 1.0), "radius_m": 0.1, **changes}
    with pytest.raises(ValueError, match=says):
        Capsule(**given)  # type: ignore[arg-type]
