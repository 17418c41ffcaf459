"""Where the tcp may not be: walls of the workspace, planes and spheres, each a signed depth and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vla_ros.safety.stopping import Vector
from vla_ros.types import FloatArray

# Part of its radius by which a straight way may lead through a sphere: between neighbours on it, every way does.
_GRAZING = 0.01


class Region(Protocol):
    """A forbidden region of the base frame."""

    name: str
    """Of the limit, for the verdict."""
    what: str
    """The border, for a person."""

    def depth(self, p: Vector) -> float:
        """How deep a point is inside, m; outside, minus its distance."""

    def outwards(self, p: Vector) -> Vector:
        """The unit vector in which the depth shrinks fastest."""

    def nearest(self, p: Vector) -> Vector:
        """The point of the border that is nearest to one inside."""

    def aim(self, p: Vector, goal: Vector) -> Vector:
        """Where to head for, from one point outside, to get to another."""

    def deepest(self, path: FloatArray) -> float:
        """The greatest depth of the points of a path, (n, 3) m."""


class HalfSpace:
    """All points with normal . p below an offset.

    Args:
        name: see Region.
        what: see Region.
        normal: unit vector that points out of it.
        offset_m: distance of the border from the base's origin, along the normal.
    """

    def __init__(self, name: str, what: str, normal: Vector, offset_m: float) -> None:
        self.name, self.what, self.offset_m = name, what, offset_m
        self._normal = normal
        self._column = np.array(normal)
        # Rounding must not leave a point of a wall behind it, however far off it was.
        axes = [axis for axis in range(3) if abs(normal[axis]) == 1.0]
        self._axis = axes[0] if axes else None

    def depth(self, p: Vector) -> float:
        """See Region."""
        x, y, z = self._normal
        return self.offset_m - (x * p[0] + y * p[1] + z * p[2])

    def outwards(self, p: Vector) -> Vector:
        """See Region."""
        return self._normal

    def nearest(self, p: Vector) -> Vector:
        """See Region."""
        if self._axis is not None:
            moved = list(p)
            moved[self._axis] = self.offset_m * self._normal[self._axis]
            return moved[0], moved[1], moved[2]
        depth, (x, y, z) = self.depth(p), self._normal
        return p[0] + depth * x, p[1] + depth * y, p[2] + depth * z

    def aim(self, p: Vector, goal: Vector) -> Vector:
        """See Region. Nothing is in the way on this side of a plane."""
        return goal

    def deepest(self, path: FloatArray) -> float:
        """See Region."""
        return self.offset_m - float((path @ self._column).min())


class Sphere:
    """All points inside a sphere.

    Args:
        name: see Region.
        what: see Region.
        centre_m: in base.
        radius_m: of the sphere.
    """

    def __init__(self, name: str, what: str, centre_m: Vector, radius_m: float) -> None:
        self.name, self.what = name, what
        self._centre, self._radius_m = centre_m, radius_m
        self._row = np.array(centre_m)

    def depth(self, p: Vector) -> float:
        """See Region."""
        return self._radius_m - math.dist(p, self._centre)

    def outwards(self, p: Vector) -> Vector:
        """See Region. Upwards at the centre, where every direction is as good."""
        distance = math.dist(p, self._centre)
        if distance < 1e-9:
            return 0.0, 0.0, 1.0
        cx, cy, cz = self._centre
        return (p[0] - cx) / distance, (p[1] - cy) / distance, (p[2] - cz) / distance

    def nearest(self, p: Vector) -> Vector:
        """See Region."""
        x, y, z = self.outwards(p)
        cx, cy, cz = self._centre
        return cx + self._radius_m * x, cy + self._radius_m * y, cz + self._radius_m * z

    def aim(self, p: Vector, goal: Vector) -> Vector:
        """See Region. As far as to the goal, but along the tangent that leads round the sphere."""
        px, py, pz = (a - b for a, b in zip(p, self._centre, strict=True))
        gx, gy, gz = (a - b for a, b in zip(goal, p, strict=True))
        far, way = math.sqrt(px * px + py * py + pz * pz), math.sqrt(gx * gx + gy * gy + gz * gz)
        radius = self._radius_m
        nearing = -(px * gx + py * gy + pz * gz) / way if way > 0.0 else 0.0
        if far <= radius or nearing <= 0.0 or far - radius >= way:
            return goal
        on_way = min(nearing, way)
        nearest = math.sqrt(max(0.0, far * far - 2.0 * nearing * on_way + on_way * on_way))
        if nearest > radius * (1.0 - _GRAZING):
            return goal
        nx, ny, nz = px / far, py / far, pz / far
        out = gx * nx + gy * ny + gz * nz
        sx, sy, sz = gx - out * nx, gy - out * ny, gz - out * nz
        sideways = math.sqrt(sx * sx + sy * sy + sz * sz)
        if sideways < 1e-6 * way:
            # Straight ahead every side is as good.
            sx, sy, sz = (ny, -nx, 0.0) if abs(nz) < 0.9 else (0.0, nz, -ny)
            sideways = math.sqrt(sx * sx + sy * sy + sz * sz)
        along, inwards = way * radius / far / sideways, way * math.sqrt(far * far - radius * radius) / far
        return (
            p[0] + along * sx - inwards * nx,
            p[1] + along * sy - inwards * ny,
            p[2] + along * sz - inwards * nz,
        )

    def deepest(self, path: FloatArray) -> float:
        """See Region."""
        apart = path - self._row
        return self._radius_m - math.sqrt(float(np.einsum("ij,ij->i", apart, apart).min()))


class Regions:
    """A box to stay in and regions to stay out of.

    Args:
        lower_m: lower corner of the box.
        upper_m: upper corner.
        keep_out: further regions.
    """

    # Rounding of a point that was put on a border.
    tolerance_m = 1e-12

    def __init__(self, lower_m: Vector, upper_m: Vector, keep_out: Sequence[Region] = ()) -> None:
        self._lower, self._upper = lower_m, upper_m
        self.keep_out = tuple(keep_out)
        walls = []
        for axis, name in enumerate("xyz"):
            for sign, bound in ((1.0, lower_m[axis]), (-1.0, upper_m[axis])):
                normal = tuple(sign if other == axis else 0.0 for other in range(3))
                what = f"the workspace's wall at {name} = {bound:.3f} m"
                walls.append(HalfSpace("workspace", what, (normal[0], normal[1], normal[2]), sign * bound))
        self.walls: tuple[Region, ...] = tuple(walls)

    def within(self, p: Vector, distance_m: float) -> list[Region]:
        """The regions that are nearer to a point than a distance, or hold it; zero for those that hold it."""
        (x, y, z), (x0, y0, z0), (x1, y1, z1), d = p, self._lower, self._upper, distance_m
        is_far = x0 + d <= x <= x1 - d and y0 + d <= y <= y1 - d and z0 + d <= z <= z1 - d
        near = [] if is_far else [wall for wall in self.walls if wall.depth(p) > -d]
        near.extend(region for region in self.keep_out if region.depth(p) > -d)
        return near

    def nearest(self, p: Vector) -> tuple[float, Region]:
        """The region that is nearest to a point, or that it is deepest in, and how deep; negative outside."""
        depth, region = -math.inf, self.walls[0]
        for candidate in (*self.walls, *self.keep_out):
            found = candidate.depth(p)
            if found > depth:
                depth, region = found, candidate
        return depth, region
