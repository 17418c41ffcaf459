"""How far the arm's links are from each other, and how joints change it: on capsules, cheap enough for every tick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import coal
import numpy as np
import pinocchio as pin

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.robots.capsules import Capsule, capsules_of
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class Proximities:
    """Pairs of capsules that are near each other.

    Attributes:
        distances: (k,) m, negative in penetration.
        gradients: (k, n) m/rad, of the distances in the joints' positions.
        pairs: the k pairs of links.
    """

    distances: FloatArray
    gradients: FloatArray
    pairs: tuple[tuple[str, str], ...]


class SelfCollision:
    """Distances between the capsules of an arm, those of links next to each other left out.

    It computes in buffers of its own: give each thread its own.

    Attributes:
        pairs: links of the pairs of capsules that are checked, the one nearer to the base first.
        overlapping: pairs of links that are left out because the capsules put around the URDF's shapes touch at home,
            where the arm doesn't: they can't tell. Capsules of the YAML aren't left out but refused.
        reach_m: (n,) m/rad, bound on how much any distance can change with a joint's position: inside the position
            limits `abs(distance(q_b) - distance(q_a)) <= reach_m @ abs(q_b - q_a)`.
    """

    def __init__(self, model: RobotModel) -> None:
        """Sets up the capsules of `model.config.self_collision`, or those of the URDF's shapes where it has none.

        Raises:
            ConfigError: for a link that isn't in the URDF, or capsules of the YAML that touch at home.
        """
        config, self._where = model.config.self_collision, f"robot {model.config.name}: self_collision"
        self._model, self._order = model.reduced, model.order
        self._data, self._q = self._model.createData(), np.empty(self._model.nq)
        capsules = config.capsules or capsules_of(model.description)
        for link in (*(capsule.link for capsule in capsules), *(link for pair in config.ignore for link in pair)):
            self._check_link(link)
        # What is left of the arm in the reduced model is a chain: a joint's number is its place in it.
        self._capsules = sorted(((self._joint(capsule), capsule) for capsule in capsules), key=lambda item: item[0])
        self._geometry = pin.GeometryModel()
        for _, capsule in self._capsules:
            self._add(capsule)

        self._choose_pairs(config.ignore)
        self.overlapping: tuple[tuple[str, str], ...] = tuple(dict.fromkeys(self.nearest(model.home, 0.0).pairs))
        if self.overlapping and config.capsules:
            problem = "touch at home: " + ", ".join(f"{a} and {b}" for a, b in self.overlapping)
            raise ConfigError(self._where, problem, "make them thinner, or name the pair under `ignore`")
        if self.overlapping:
            self._choose_pairs((*config.ignore, *self.overlapping))
        self.reach_m = self._reach(np.maximum(np.abs(model.lower), np.abs(model.upper)))

    def distance(self, q: FloatArray) -> float:
        """Smallest distance over all pairs at q (n,) rad, m; negative in penetration, infinite without pairs.

        Raises:
            ValueError: for positions that aren't finite.
        """
        if not self._results:
            return float("inf")
        return float(self._results[self._compute(q)].min_distance)

    def nearest(self, q: FloatArray, within_m: float) -> Proximities:
        """The pairs nearer to each other than `within_m` at q (n,) rad.

        Raises:
            ValueError: for positions that aren't finite.
        """
        if not self._results or self._results[self._compute(q)].min_distance >= within_m:
            return self._nothing
        near, distances, wrenches = [], [], []
        for i, result in enumerate(self._results):
            distance = result.min_distance
            if distance < within_m:
                near.append(i)
                distances.append(distance)
                wrenches.append(_unit_wrench(result))
        # Virtual work: the joints between the two links move the outer one's nearest point along the common normal.
        J = pin.computeJointJacobians(self._model, self._data)
        gradients = ((np.array(wrenches) @ J) * self._is_between[near])[:, self._order]
        return Proximities(np.array(distances), gradients, tuple(self.pairs[i] for i in near))

    def _compute(self, q: FloatArray) -> int:
        """Computes all distances; index of the smallest."""
        # Pairs that a joint without a position moves would just be passed over.
        if not math.isfinite(q.dot(q)):
            raise ValueError(f"positions aren't finite: {q}")
        self._q[self._order] = q
        return int(pin.computeDistances(self._model, self._data, self._geometry, self._buffers, self._q))

    def _check_link(self, link: str) -> None:
        if not self._model.existFrame(link, pin.BODY):
            links = [frame.name for frame in self._model.frames if frame.type == pin.BODY]
            raise ConfigError(self._where, f"no link {link!r} in the URDF", did_you_mean(link, links))

    def _joint(self, capsule: Capsule) -> int:
        """Number of the joint that carries a capsule, 0 for none."""
        return int(self._model.frames[self._model.getFrameId(capsule.link, pin.BODY)].parentJoint)

    def _add(self, capsule: Capsule) -> None:
        frame_id = self._model.getFrameId(capsule.link, pin.BODY)
        frame = self._model.frames[frame_id]
        start, end = np.array(capsule.from_m), np.array(capsule.to_m)
        along = end - start
        R = pin.Quaternion.FromTwoVectors(np.array([0.0, 0.0, 1.0]), along).matrix() if along.any() else np.eye(3)
        placement = frame.placement * pin.SE3(R, (start + end) / 2.0)
        shape = coal.Capsule(capsule.radius_m, float(np.linalg.norm(along)))
        name = f"{capsule.link} {self._geometry.ngeoms}"
        self._geometry.addGeometryObject(pin.GeometryObject(name, frame.parentJoint, frame_id, placement, shape))

    def _choose_pairs(self, ignore: tuple[tuple[str, str], ...]) -> None:
        """Pairs up the capsules of links that more than one joint lies between, and creates the buffers for them."""
        ignored = {frozenset(pair) for pair in ignore}
        self._geometry.removeAllCollisionPairs()
        pairs, is_between = [], []
        numbers = np.arange(1, self._model.njoints)
        for (i, (joint_a, a)), (k, (joint_b, b)) in combinations(enumerate(self._capsules), 2):
            if joint_b - joint_a > 1 and frozenset((a.link, b.link)) not in ignored:
                self._geometry.addCollisionPair(pin.CollisionPair(i, k))
                pairs.append((a.link, b.link))
                is_between.append((numbers > joint_a) & (numbers <= joint_b))
        self.pairs = tuple(pairs)
        self._is_between = np.array(is_between, dtype=np.float64).reshape(-1, len(numbers))
        self._buffers = pin.GeometryData(self._geometry)
        # References into the buffers: to fetch them anew every time would cost three times as much.
        self._results = list(self._buffers.distanceResults)
        self._nothing = Proximities(np.zeros(0), np.zeros((0, len(numbers))), ())

    def _reach(self, travel: FloatArray) -> FloatArray:
        """See `reach_m`: the most that a joint can move the nearest points of any of the pairs that it lies between.

        Args:
            travel: (n,) how far each joint can be from 0; counts for prismatic ones.
        """
        chain = _Chain(self._model, dict(zip(self._order.tolist(), travel.tolist(), strict=True)))
        segments = []
        for shape in self._geometry.geometryObjects:
            half = np.array([0.0, 0.0, shape.geometry.halfLength])
            segments.append((shape.placement.act(half), shape.placement.act(-half)))
        reach_m = np.zeros(self._model.nv)
        for pair in self._geometry.collisionPairs:
            inner, outer = self._capsules[pair.first][0], self._capsules[pair.second][0]
            for joint in range(inner + 1, outer + 1):
                bound_m = chain.lever(joint, inner, segments[pair.first], outer, segments[pair.second])
                reach_m[joint - 1] = max(reach_m[joint - 1], bound_m)
        return reach_m[self._order]


def _unit_wrench(result: coal.DistanceResult) -> tuple[float, float, float, float, float, float]:
    """Unit force along the normal at the nearest points, and its moment about the origin."""
    nx, ny, nz = result.normal.tolist()
    x, y, z = result.getNearestPoint1().tolist()
    return nx, ny, nz, y * nz - z * ny, z * nx - x * nz, x * ny - y * nx


class _Chain:
    """How far from a joint's axis points elsewhere on a chain of joints can be."""

    def __init__(self, model: pin.Model, travel: dict[int, float]) -> None:
        data = model.createData()
        J = pin.computeJointJacobians(model, data, pin.neutral(model))
        self._placements = model.jointPlacements
        self._axes = [np.zeros(3)]  # In the joint's own frame, zero for a prismatic joint.
        self._steps_m = [0.0]  # The most that the joint can be from the one before.
        self._slides_m = [0.0]
        for joint in range(1, model.njoints):
            self._axes.append(data.oMi[joint].actInv(pin.Motion(J[:, joint - 1])).angular)
            self._slides_m.append(0.0 if self._axes[joint].any() else travel[joint - 1])
            self._steps_m.append(_longest([self._placements[joint].translation]) + self._slides_m[joint])

    def lever(
        self, joint: int, inner: int, points_inner: Sequence[FloatArray], outer: int, points_outer: Sequence[FloatArray]
    ) -> float:
        """Bound on what a joint moves the nearest points of two segments by, that joints before and behind it carry.

        The nearest points, on the segments' surfaces or on the segments, lie on a common normal that has one lever
        about the axis: the nearer segment counts.

        Args:
            joint: inner < joint <= outer.
            inner: carries one segment.
            points_inner: its ends in that joint's frame.
            outer: carries the other.
            points_outer: its ends in that joint's frame.
        """
        axis, back = self._axes[joint], self._placements[joint]
        if not axis.any():
            return 1.0
        if outer == joint:
            outwards = _longest(np.cross(axis, points_outer))
        else:
            first = _longest([np.cross(axis, self._placements[joint + 1].translation)]) + self._slides_m[joint + 1]
            outwards = first + sum(self._steps_m[joint + 2 : outer + 1]) + _longest(points_outer)
        if inner == joint - 1:
            inwards = _longest(np.cross(axis, [back.actInv(point) for point in points_inner]))
        else:
            first = _longest([np.cross(axis, back.actInv(np.zeros(3)))])
            inwards = first + sum(self._steps_m[inner + 1 : joint]) + _longest(points_inner)
        return min(outwards, inwards)


def _longest(vectors: Sequence[FloatArray] | FloatArray) -> float:
    return max(float(np.linalg.norm(vector)) for vector in vectors)
