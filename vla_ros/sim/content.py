"""What a seed puts into the simulated cell: which things, where, how they look, and how the cameras and physics differ.

Everything is drawn here, before a model sees it, so that a scene can be known without a simulator. `blocks` is three
blocks in a plain cell; `varied` is what a policy has to cope with that is to see more than the cell it was shown;
`single` is that with one thing alone, for policies that hear no instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.instruction import (
    BOWL,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    THINGS,
    VERBS,
    Colour,
    Direction,
    Instruction,
    Thing,
    Verb,
)
from vla_ros.sim.layout import Claim, draw_layout, has_free_way
from vla_ros.sim.look import Look, draw_bowl_colour, draw_distractor_colour, draw_look, draw_shade
from vla_ros.sim.placement import BLOCK_COLOURS, draw_placements

Setting = Literal["blocks", "varied", "single"]
SETTINGS: tuple[Setting, ...] = ("blocks", "varied", "single")
# What can be asked in each: there is neither a bowl nor enough to stack among the blocks.
SETTING_VERBS: dict[Setting, tuple[Verb, ...]] = {
    "blocks": ("reach", "push", "pick"),
    "varied": VERBS,
    "single": ("reach", "pick"),
}
ObjectShape = Literal["block", "cylinder", "bowl", "pebble", "tile", "stick"]
DISTRACTOR_SHAPES: tuple[ObjectShape, ...] = ("pebble", "tile", "stick")
OBJECT_COUNT, MOST_DISTRACTORS = 4, 2

_BOWL_SHARE, _SHARED_COLOUR_SHARE = 0.3, 0.25
_MASS_SCALE, _FRICTION_SCALE, _SERVO_SCALE = (0.7, 1.4), (0.75, 1.25), (0.85, 1.15)
# Keeps the draws of tasks, objects and looks apart, so that more of one leaves the others alone.
_TASK_STREAM, _OBJECT_STREAM, _LOOK_STREAM, _DYNAMICS_STREAM = 11, 12, 13, 14


@dataclass(frozen=True)
class SceneObject:
    """One thing of a scene.

    Attributes:
        name: as in ground truth: `block_red`, `cylinder_blue`, `bowl`, `distractor_0`.
        shape: which body it has.
        rgba: its colour, of this scene's shade; None: as built.
        xy_m: its centre in base.
        yaw_rad: about base z.
        mass_scale: times the shape's mass.
        friction_scale: times the sliding friction.
    """

    name: str
    shape: ObjectShape
    rgba: tuple[float, float, float, float] | None
    xy_m: tuple[float, float]
    yaw_rad: float
    mass_scale: float = 1.0
    friction_scale: float = 1.0


@dataclass(frozen=True)
class SceneContent:
    """A scene before it is simulated.

    Attributes:
        seed: what it was drawn from.
        setting: by which rules.
        objects: the things that can be named, the instruction's own first.
        bowl: None: there is none.
        distractors: things without a name.
        look: light, colours of the room and textures; None: as built.
        has_camera_jitter: whether the cameras are off their mounts, each by a draw of the seed.
        camera_offset_m: by how much besides the fixed cameras are moved, in axes of the link that carries them.
        servo_scale: times the stiffness of the arm's servo.
        finger_damping_scale: times the damping of the gripper's.
    """

    seed: int
    setting: Setting
    objects: tuple[SceneObject, ...]
    bowl: SceneObject | None = None
    distractors: tuple[SceneObject, ...] = ()
    look: Look | None = None
    has_camera_jitter: bool = False
    camera_offset_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    servo_scale: float = 1.0
    finger_damping_scale: float = 1.0

    @property
    def has_bowl(self) -> bool:
        """Whether there is a bowl."""
        return self.bowl is not None

    def can_be_pushed(self, name: str, direction: Direction) -> bool:
        """Whether an object has the free way that `draw_content` gives to what it is told is to be pushed."""
        places = {thing.name: (np.array(thing.xy_m), Claim(_claimed(thing))) for thing in self.things}
        p, _ = places.pop(name)
        return has_free_way(p, direction, list(places.values()))

    @property
    def things(self) -> tuple[SceneObject, ...]:
        """Everything that lies on the table."""
        return (*self.objects, *((self.bowl,) if self.bowl else ()), *self.distractors)


def _claimed(thing: SceneObject) -> Literal["thing", "bowl", "distractor"]:
    if thing.shape in DISTRACTOR_SHAPES:
        return "distractor"
    return "bowl" if thing.shape == "bowl" else "thing"


def draw_content(seed: int, setting: Setting, needed: Instruction | None = None) -> SceneContent:
    """The scene of a seed.

    Args:
        seed: the same one gives the same scene.
        setting: one of `SETTINGS`.
        needed: what the scene must allow: it then holds what this names, with the free way that a push takes.

    Raises:
        ConfigError: if the setting is unknown, or hasn't what is needed.
    """
    if setting == "blocks":
        return _draw_blocks(seed, needed)
    if setting == "varied":
        return _draw_varied(seed, needed)
    if setting == "single":
        return _draw_single(seed, needed)
    raise ConfigError("setting of the scene", f"{setting!r} is none", f"choose one of {', '.join(SETTINGS)}")


def draw_task(verb: Verb, seed: int, setting: Setting = "varied") -> Instruction:
    """What a suite of a verb asks for at a seed; the scene of that seed that needs it, holds it.

    Raises:
        ConfigError: for a verb that the setting has nothing for.
    """
    if verb not in SETTING_VERBS[setting]:
        raise ConfigError(f"verb {verb!r}", f"the setting {setting} has no such tasks", "choose the setting varied")
    rng = np.random.default_rng([_TASK_STREAM, seed, *verb.encode()])
    things = tuple(Thing(colour) for colour in BLOCK_COLOURS) if setting == "blocks" else THINGS
    thing = things[int(rng.integers(len(things)))]
    if verb == "push":
        return Instruction(verb, thing, DIRECTIONS[int(rng.integers(len(DIRECTIONS)))])
    if verb == "place":
        return Instruction(verb, thing, destination=BOWL)
    if verb == "stack":
        others = [other for other in things if other != thing]
        return Instruction(verb, thing, destination=others[int(rng.integers(len(others)))])
    return Instruction(verb, thing)


def _draw_blocks(seed: int, needed: Instruction | None) -> SceneContent:
    blocks = [Thing(colour) for colour in BLOCK_COLOURS]
    missing = [thing for thing in (needed.thing, needed.destination) if thing not in (None, *blocks)] if needed else []
    if missing:
        raise ConfigError(
            f"instruction {str(needed)!r}", f"the setting blocks has no {missing[0]}", "choose the setting varied"
        )
    placements = zip(blocks, draw_placements(seed).tolist(), strict=True)
    objects = (SceneObject(thing.name, "block", None, (x, y), yaw) for thing, (x, y, yaw) in placements)
    return SceneContent(seed, "blocks", tuple(objects))


def _draw_varied(seed: int, needed: Instruction | None) -> SceneContent:
    rng = np.random.default_rng([_OBJECT_STREAM, seed])
    shades = np.random.default_rng([_LOOK_STREAM, seed])
    physics = np.random.default_rng([_DYNAMICS_STREAM, seed])
    things = _draw_things(rng, needed)
    has_bowl = bool(rng.random() < _BOWL_SHARE) or (needed is not None and needed.destination == BOWL)
    distractors = int(rng.integers(MOST_DISTRACTORS + 1))
    kinds = [DISTRACTOR_SHAPES[int(i)] for i in rng.integers(len(DISTRACTOR_SHAPES), size=distractors)]
    claims = [Claim("thing")] * len(things) + [Claim("bowl")] * has_bowl + [Claim("distractor")] * distractors
    if needed is not None and needed.direction is not None:
        claims[0] = Claim("thing", needed.direction)
    layout = draw_layout(rng, claims).tolist()
    look = draw_look(shades)

    def make(name: str, shape: ObjectShape, rgb: tuple[float, float, float]) -> SceneObject:
        x, y, yaw = layout.pop(0)
        mass_scale, friction_scale = physics.uniform(*_MASS_SCALE), physics.uniform(*_FRICTION_SCALE)
        return SceneObject(name, shape, (*rgb, 1.0), (x, y), yaw, mass_scale, friction_scale)

    return SceneContent(
        seed=seed,
        setting="varied",
        objects=tuple(make(thing.name, thing.shape, draw_shade(shades, thing.colour)) for thing in things),
        bowl=make("bowl", "bowl", draw_bowl_colour(shades)) if has_bowl else None,
        distractors=tuple(
            make(f"distractor_{i}", shape, draw_distractor_colour(shades)) for i, shape in enumerate(kinds)
        ),
        look=look,
        has_camera_jitter=True,
        servo_scale=physics.uniform(*_SERVO_SCALE),
        finger_damping_scale=physics.uniform(*_SERVO_SCALE),
    )


def _draw_single(seed: int, needed: Instruction | None) -> SceneContent:
    """A varied scene without everything but the thing that is needed, or its first."""
    if needed is not None and (needed.destination is not None or needed.direction is not None):
        where, problem = f"instruction {str(needed)!r}", "the setting single has one thing, to be reached or picked up"
        raise ConfigError(where, problem, "choose the setting varied")
    whole = _draw_varied(seed, needed)
    return replace(whole, setting="single", objects=whole.objects[:1], bowl=None, distractors=())


def _draw_things(rng: np.random.Generator, needed: Instruction | None) -> list[Thing]:
    """Four different things, of which two share a colour in a quarter of the scenes; what is needed comes first."""
    things: list[Thing] = []
    if needed is not None:
        things = [needed.thing] + ([needed.destination] if isinstance(needed.destination, Thing) else [])
    is_shared = rng.random() < _SHARED_COLOUR_SHARE
    if is_shared and len({thing.colour for thing in things}) == len(things):
        if not things or (rng.random() < 0.5 and len(things) + 2 <= OBJECT_COUNT):
            first = Thing(_draw_colour(rng, things), SHAPES[int(rng.integers(2))])
            things.append(first)
        else:
            first = things[int(rng.integers(len(things)))]
        things.append(Thing(first.colour, "cylinder" if first.shape == "block" else "block"))
    while len(things) < OBJECT_COUNT:
        things.append(Thing(_draw_colour(rng, things), SHAPES[int(rng.integers(2))]))
    return things


def _draw_colour(rng: np.random.Generator, things: list[Thing]) -> Colour:
    """A colour that none of the things has."""
    free = [colour for colour in COLOURS if colour not in {thing.colour for thing in things}]
    return free[int(rng.integers(len(free)))]
