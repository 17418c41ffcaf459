"""The bodies of the things on the table, and which of them a scene uses.

A model is compiled once for all scenes. Each of its slots is a free body with a geom for every shape that it may take,
of which one is there at a time; a slot that a scene doesn't need is parked below the floor, weightless and untouchable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_ros.sim.content import MOST_DISTRACTORS, OBJECT_COUNT, ObjectShape, SceneContent, SceneObject, Setting
from vla_ros.sim.furniture import BLOCK_MASS_KG, HIDDEN_GROUP, ROBOT_BIT, WORLD_BIT
from vla_ros.sim.placement import BLOCK_NAMES, BLOCK_SIZE_M

BOWL_RADIUS_M, BOWL_HEIGHT_M = 0.055, 0.04  # Inside, and all in all.
_WALL_M, _WALL_PARTS, _BOTTOM_M = 0.005, 16, 0.004
_FRICTION = (0.8, 0.01, 0.0001)
_SHOWN_GROUP = 0
_PARKED_M = -20.0
_HALF = BLOCK_SIZE_M / 2.0


@dataclass(frozen=True)
class Body:
    """What a shape is made of.

    Attributes:
        half_height_m: from the table to the body's origin, which is its centre.
        mass_kg: of the whole.
        inertia: kg m^2 about the body's axes, for the mass.
    """

    half_height_m: float
    mass_kg: float
    inertia: tuple[float, float, float]


def _solid(half_height_m: float, mass_kg: float, *squared_m2: float) -> Body:
    """A body whose inertia about each axis is its mass times a squared length."""
    x, y, z = (mass_kg * value for value in squared_m2)
    return Body(half_height_m, mass_kg, (x, y, z))


# Semi-axes of the pebble and the tile; radius and half length of the stick, which lies along x.
_PEBBLE_M, _TILE_M, _STICK_M = (0.02, 0.02, 0.011), (0.028, 0.014, 0.007), (0.011, 0.018)
_p, _t, _s, _r, _h = _PEBBLE_M, _TILE_M, _STICK_M, BOWL_RADIUS_M + _WALL_M / 2.0, BOWL_HEIGHT_M
BODIES: dict[ObjectShape, Body] = {
    "block": _solid(_HALF, BLOCK_MASS_KG, *[2.0 * _HALF**2 / 3.0] * 3),
    "cylinder": _solid(_HALF, BLOCK_MASS_KG, *[7.0 * _HALF**2 / 12.0] * 2, _HALF**2 / 2.0),
    # A ring of that radius and height, whose bottom weighs little beside it.
    "bowl": _solid(_h / 2.0, 0.3, *[_r**2 / 2.0 + _h**2 / 12.0] * 2, _r**2),
    "pebble": _solid(_p[2], 0.04, (_p[1] ** 2 + _p[2] ** 2) / 5.0, (_p[0] ** 2 + _p[2] ** 2) / 5.0, 2 * _p[0] ** 2 / 5),
    "tile": _solid(_t[2], 0.04, *((_t[i] ** 2 + _t[j] ** 2) / 3.0 for i, j in ((1, 2), (0, 2), (0, 1)))),
    # As a cylinder of the length between the middles of its caps.
    "stick": _solid(_s[0], 0.04, _s[0] ** 2 / 2.0, *[(3.0 * _s[0] ** 2 + (2.0 * _s[1] + _s[0]) ** 2) / 12.0] * 2),
}


@dataclass(frozen=True)
class Slot:
    """A body that can be one thing or another.

    Attributes:
        body: its id in the model, and of its name.
        name: of the body.
        qpos: (7,) addresses of position and quaternion (wxyz).
        dof: (6,) addresses of velocities.
        geoms: ids of the geoms that make each shape.
    """

    body: int
    name: str
    qpos: NDArray[np.int64]
    dof: NDArray[np.int64]
    geoms: dict[ObjectShape, tuple[int, ...]]


_KINDS: dict[str, tuple[ObjectShape, ...]] = {
    **{f"object_{i}": ("block", "cylinder") for i in range(OBJECT_COUNT)},
    "bowl": ("bowl",),
    **{f"distractor_{i}": ("pebble", "tile", "stick") for i in range(MOST_DISTRACTORS)},
}


def add_slots(spec: mujoco.MjSpec) -> None:
    """Adds the bodies of the setting `varied`."""
    for name, shapes in _KINDS.items():
        body = spec.worldbody.add_body(name=name, explicitinertial=True, mass=BODIES[shapes[0]].mass_kg)
        body.inertia = BODIES[shapes[0]].inertia
        body.add_freejoint(name=name)
        for shape in shapes:
            _add_geoms(body, f"{name}_{shape}", shape)


def find_slots(model: mujoco.MjModel, setting: Setting) -> dict[str, Slot]:
    """The bodies of a setting's things in a compiled model, by name."""
    if setting == "blocks":
        return {name: _find_slot(model, name, {"block": (model.geom(name).id,)}) for name in BLOCK_NAMES}
    slots = {}
    for name, shapes in _KINDS.items():
        geoms: dict[ObjectShape, tuple[int, ...]] = {
            shape: tuple(i for i in range(model.ngeom) if model.geom(i).name.startswith(f"{name}_{shape}"))
            for shape in shapes
        }
        slots[name] = _find_slot(model, name, geoms)
    return slots


def assign(slots: dict[str, Slot], content: SceneContent) -> dict[str, Slot]:
    """Which body is which thing of a scene, by the thing's name."""
    if content.setting == "blocks":
        return {thing.name: slots[thing.name] for thing in content.objects}
    objects = {thing.name: slots[f"object_{i}"] for i, thing in enumerate(content.objects)}
    return objects | {thing.name: slots[thing.name] for thing in content.things[len(objects) :]}


def equip(model: mujoco.MjModel, slots: dict[str, Slot], content: SceneContent) -> None:
    """Gives the bodies of a setting `varied` the shapes, masses and frictions of a scene, and parks the others."""
    for slot, thing in _uses(slots, content):
        for shape, geom in _all_geoms(slot):
            is_there = thing is not None and thing.shape == shape
            model.geom_contype[geom] = WORLD_BIT if is_there else 0
            model.geom_conaffinity[geom] = WORLD_BIT | ROBOT_BIT if is_there else 0
            model.geom_friction[geom, 0] = _FRICTION[0] * (thing.friction_scale if thing else 1.0)
        model.body_gravcomp[slot.body] = 0.0 if thing else 1.0
        if thing is not None:
            _set_mass(model, slot, thing)


def show(model: mujoco.MjModel, slots: dict[str, Slot], content: SceneContent) -> None:
    """Gives the bodies of a setting `varied` the shapes and colours of a scene, and hides the others."""
    for slot, thing in _uses(slots, content):
        for shape, geom in _all_geoms(slot):
            is_there = thing is not None and thing.shape == shape
            model.geom_group[geom] = _SHOWN_GROUP if is_there else HIDDEN_GROUP
            if is_there and thing is not None and thing.rgba is not None:
                model.geom_rgba[geom] = thing.rgba


def parked_position(slot: Slot) -> tuple[float, float, float]:
    """Where in MuJoCo's world a body stays that a scene doesn't need."""
    return float(slot.body), 0.0, _PARKED_M


def _uses(slots: dict[str, Slot], content: SceneContent) -> Iterator[tuple[Slot, SceneObject | None]]:
    """Every body with the thing that it is, None for what isn't there."""
    used = assign(slots, content)
    things = {used[thing.name].body: thing for thing in content.things}
    return ((slot, things.get(slot.body)) for slot in slots.values())


def _all_geoms(slot: Slot) -> Iterator[tuple[ObjectShape, int]]:
    return ((shape, geom) for shape, geoms in slot.geoms.items() for geom in geoms)


def _set_mass(model: mujoco.MjModel, slot: Slot, thing: SceneObject) -> None:
    body, dof = BODIES[thing.shape], slot.dof
    mass_kg, inertia = thing.mass_scale * body.mass_kg, thing.mass_scale * np.array(body.inertia)
    model.body_mass[slot.body] = model.body_subtreemass[slot.body] = mass_kg
    model.body_inertia[slot.body] = inertia
    # What the contact solver takes for the inverse inertia, as the compiler does it: a mean over the axes.
    inverse_mass, inverse_inertia = 1.0 / mass_kg, float(np.mean(1.0 / inertia))
    model.body_invweight0[slot.body] = inverse_mass, inverse_inertia
    model.dof_invweight0[dof] = [inverse_mass] * 3 + [inverse_inertia] * 3
    model.dof_M0[dof] = [mass_kg] * 3 + inertia.tolist()


def _find_slot(model: mujoco.MjModel, name: str, geoms: dict[ObjectShape, tuple[int, ...]]) -> Slot:
    joint = model.joint(name)
    return Slot(
        body=model.body(name).id,
        name=name,
        qpos=joint.qposadr[0] + np.arange(7),
        dof=joint.dofadr[0] + np.arange(6),
        geoms=geoms,
    )


def _add_geoms(body: mujoco.MjsBody, name: str, shape: ObjectShape) -> None:
    kind = mujoco.mjtGeom
    if shape == "bowl":
        _add_bowl(body, name)
    elif shape == "block":
        _add_geom(body, name, kind.mjGEOM_BOX, [_HALF] * 3)
    elif shape == "cylinder":
        _add_geom(body, name, kind.mjGEOM_CYLINDER, [_HALF, _HALF, 0.0])
    elif shape == "pebble":
        _add_geom(body, name, kind.mjGEOM_ELLIPSOID, list(_PEBBLE_M))
    elif shape == "tile":
        _add_geom(body, name, kind.mjGEOM_BOX, list(_TILE_M))
    else:
        # Rolling friction keeps it where it lies.
        stick = _add_geom(body, name, kind.mjGEOM_CAPSULE, [*_STICK_M, 0.0])
        stick.quat, stick.condim, stick.friction = [0.5**0.5, 0.0, 0.5**0.5, 0.0], 6, [_FRICTION[0], 0.01, 0.002]


def _add_bowl(body: mujoco.MjsBody, name: str) -> None:
    low = -BOWL_HEIGHT_M / 2.0
    bottom_m = BOWL_RADIUS_M + _WALL_M
    bottom = _add_geom(body, f"{name}_bottom", mujoco.mjtGeom.mjGEOM_CYLINDER, [bottom_m, _BOTTOM_M / 2.0, 0.0])
    bottom.pos = [0.0, 0.0, low + _BOTTOM_M / 2.0]
    middle_m = BOWL_RADIUS_M + _WALL_M / 2.0
    half_width_m = (BOWL_RADIUS_M + _WALL_M) * np.tan(np.pi / _WALL_PARTS)
    half_height_m = (BOWL_HEIGHT_M - _BOTTOM_M) / 2.0
    for i in range(_WALL_PARTS):
        angle = 2.0 * np.pi * i / _WALL_PARTS
        size = [_WALL_M / 2.0, half_width_m, half_height_m]
        wall = _add_geom(body, f"{name}_wall{i}", mujoco.mjtGeom.mjGEOM_BOX, size)
        wall.pos = [middle_m * np.cos(angle), middle_m * np.sin(angle), low + _BOTTOM_M + half_height_m]
        wall.quat = [np.cos(angle / 2.0), 0.0, 0.0, np.sin(angle / 2.0)]


def _add_geom(body: mujoco.MjsBody, name: str, kind: mujoco.mjtGeom, size: list[float]) -> mujoco.MjsGeom:
    return body.add_geom(
        name=name,
        type=kind,
        size=size,
        mass=0.0,
        rgba=[0.5, 0.5, 0.6, 1.0],
        contype=WORLD_BIT,
        conaffinity=WORLD_BIT | ROBOT_BIT,
        condim=4,
        friction=list(_FRICTION),
    )
