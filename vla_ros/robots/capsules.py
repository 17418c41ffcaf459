"""The capsules that stand for an arm's links in the check of self-collision, given or made of its URDF's shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.geometry.rotations import rpy_to_matrix
from vla_ros.types import FloatArray

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Capsule:
    """All points within a distance of a line segment.

    Attributes:
        link: link that carries it.
        from_m: one end of the segment, in the link's frame.
        to_m: the other end; the same point for a sphere.
        radius_m: the distance.
    """

    link: str
    from_m: Point
    to_m: Point
    radius_m: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (*self.from_m, *self.to_m)):
            raise ValueError(f"capsule of {self.link}: from_m {self.from_m} and to_m {self.to_m} have to be finite")
        if not 0.0 < self.radius_m < math.inf:
            raise ValueError(f"capsule of {self.link}: radius_m is {self.radius_m}, it has to be above 0 and finite")


@dataclass(frozen=True)
class SelfCollisionConfig:
    """What may not touch.

    Attributes:
        capsules: enclose the links, the fingers at every opening too. None given: one is put around each collision
            cylinder, sphere and box of the URDF, fingers where the model locks them; meshes are left out.
        ignore: pairs of links that are not checked against each other, besides those next to each other.
    """

    capsules: tuple[Capsule, ...] = ()
    ignore: tuple[tuple[str, str], ...] = ()


def capsules_of(description: str) -> tuple[Capsule, ...]:
    """A capsule around each collision cylinder, sphere and box of a URDF; other shapes are left out.

    Raises:
        ConfigError: for a shape whose numbers make no sense, by link.
    """
    found = []
    for link in ElementTree.fromstring(description).findall("link"):
        for collision in link.findall("collision"):
            try:
                half = _segment(collision.find("geometry/*"))
                if half is not None:
                    p, R = _origin(collision.find("origin"))
                    axis, radius_m = R @ half[0], half[1]
                    found.append(Capsule(link.get("name", ""), _point(p - axis), _point(p + axis), radius_m))
            except ValueError as error:
                where = f"URDF: collision of link {link.get('name')}"
                raise ConfigError(where, f"can't be enclosed ({error})", "mend its sizes and its origin") from error
    return tuple(found)


def _segment(shape: ElementTree.Element | None) -> tuple[FloatArray, float] | None:
    """Half of the segment, (3,) m in the shape's frame, and radius of a capsule that encloses a shape."""
    if shape is None:
        return None
    if shape.tag == "sphere":
        return np.zeros(3), float(shape.get("radius", "nan"))
    if shape.tag == "cylinder":
        radius_m, length_m = float(shape.get("radius", "nan")), float(shape.get("length", "nan"))
        return _around_a_cylinder(radius_m, np.array([0.0, 0.0, 0.5 * length_m]))
    if shape.tag == "box":
        x, y, z = (float(value) for value in shape.get("size", "").split())
        half = 0.5 * np.array([x, y, z])
        longest = int(np.argmax(half))
        return _around_a_cylinder(float(np.linalg.norm(np.delete(half, longest))), half[longest] * np.eye(3)[longest])
    return None


def _around_a_cylinder(radius_m: float, half: FloatArray) -> tuple[FloatArray, float]:
    """A capsule a tenth wider than the cylinder: it then needs to bulge past its ends by less than with equal radii."""
    half_length_m, wider_m = float(np.linalg.norm(half)), 1.1 * radius_m
    inset_m = min(math.sqrt(wider_m**2 - radius_m**2), half_length_m)
    if inset_m == half_length_m:
        return 0.0 * half, math.hypot(radius_m, half_length_m)
    return half * (1.0 - inset_m / half_length_m), wider_m


def _origin(origin: ElementTree.Element | None) -> tuple[FloatArray, FloatArray]:
    """Position and rotation of a shape in its link."""
    if origin is None:
        return np.zeros(3), np.eye(3)
    xyz, rpy = (np.array([float(v) for v in origin.get(key, "0 0 0").split()]) for key in ("xyz", "rpy"))
    R: FloatArray = rpy_to_matrix(rpy)
    return xyz, R


def _point(p: FloatArray) -> Point:
    x, y, z = p.tolist()
    return x, y, z
