"""What an episode is to be: drawn from the data set's seed and the episode's number, and from nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_ros.generation.starts import KINDS, SHARES, StartKind
from vla_ros.instruction import THINGS, Instruction, Thing, Verb, instruction_texts
from vla_ros.sim.content import SceneContent, Setting, draw_content, draw_task

# How often a verb comes: what takes longer has more to learn.
WEIGHTS: dict[Verb, float] = {"reach": 1.0, "push": 2.0, "pick": 2.0, "place": 2.0, "stack": 3.0}
# In so many of the varied scenes at least, something named has the colour of another thing: what tells a block from a
# cylinder is learned from these, and few scenes have them by chance.
_PAIR_SHARE, _MOST_SCENES = 0.4, 100
# Scenes for training begin here: suites count from 0.
_FIRST_SCENE, _SCENES = 1 << 32, 1 << 31
_SHORTEST_S, _LONGEST_S, _WHOLE_S = 1.6, 4.0, 14.0
_DISTURBED_SHARE, _MOST_DISTURBED_S, _LEAST_DISTURBED_S = 0.4, 0.6, 0.2
_MOVED_SHARE = 0.3  # Of the disturbances.


@dataclass(frozen=True)
class Disturbance:
    """Somebody else takes the arm for a moment.

    Attributes:
        start_s: since the episode's begin.
        duration_s: of it.
        offset_m: (3,) by which the tool is moved.
        turn_rad: (3,) rotation vector in base by which it is turned.
        opening: that the gripper is told, None as it was.
        is_object_moved: whether what the instruction names is put elsewhere at its end.
    """

    start_s: float
    duration_s: float
    offset_m: tuple[float, float, float]
    turn_rad: tuple[float, float, float]
    opening: float | None
    is_object_moved: bool


@dataclass(frozen=True)
class EpisodePlan:
    """One episode before it is simulated.

    Attributes:
        number: of the episode in its data set.
        scene_seed: of the simulator's scene.
        instruction: what is done.
        text: in which words.
        start: where it begins.
        duration_s: after which it ends; an episode from home ends sooner, when it is done.
        latency_s: from a command until the arm has it.
        exposure_s: by how much images are older than their stamps.
        disturbances: by time.
        seed: for everything else.
    """

    number: int
    scene_seed: int
    instruction: Instruction
    text: str
    start: StartKind
    duration_s: float
    latency_s: float
    exposure_s: float
    disturbances: tuple[Disturbance, ...] = field(default=())
    seed: int = 0


def draw_plan(robot: str, seed: int, number: int, verbs: Sequence[Verb], setting: Setting = "varied") -> EpisodePlan:
    """The plan of an episode.

    Args:
        robot: its name; every robot has scenes of its own.
        seed: of the data set.
        number: of the episode.
        verbs: that are to be done.
        setting: of the scene.

    Raises:
        ConfigError: for a verb that the setting has nothing for.
    """
    rng = np.random.default_rng([seed, number, zlib.crc32(robot.encode())])
    weights = np.array([WEIGHTS[verb] for verb in verbs])
    verb = verbs[int(rng.choice(len(verbs), p=weights / weights.sum()))]
    scene_seed, instruction = _draw_scene(rng, verb, setting)
    texts = instruction_texts(instruction)
    start = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    duration_s = _WHOLE_S if start == "home" else float(rng.uniform(_SHORTEST_S, _LONGEST_S))
    disturbances = []
    if rng.random() < _DISTURBED_SHARE:
        disturbances.append(_draw_disturbance(rng, min(duration_s, 6.0)))
        duration_s += disturbances[0].duration_s
    return EpisodePlan(
        number=number,
        scene_seed=scene_seed,
        instruction=instruction,
        text=texts[int(rng.integers(len(texts)))],
        start=start,
        duration_s=duration_s,
        latency_s=float(rng.uniform(0.0, 0.06)),
        exposure_s=float(rng.uniform(0.0, 0.03)),
        disturbances=tuple(disturbances),
        seed=int(rng.integers(1 << 31)),
    )


def _draw_scene(rng: np.random.Generator, verb: Verb, setting: Setting) -> tuple[int, Instruction]:
    """A scene's seed and what is asked there."""
    wants_pair = setting == "varied" and rng.random() < _PAIR_SHARE
    for _ in range(_MOST_SCENES):
        seed = _FIRST_SCENE + int(rng.integers(_SCENES))
        instruction = draw_task(verb, seed, setting)
        if not wants_pair or names_one_of_a_pair(instruction, draw_content(seed, setting, instruction)):
            break
    return seed, instruction


def names_one_of_a_pair(instruction: Instruction, content: SceneContent) -> bool:
    """Whether something that the instruction names has the colour of another thing in the scene."""
    names = {placed.name for placed in content.objects}
    colours = [thing.colour for thing in THINGS if thing.name in names]
    named = [thing for thing in (instruction.thing, instruction.destination) if isinstance(thing, Thing)]
    return any(colours.count(thing.colour) > 1 for thing in named)


def _draw_disturbance(rng: np.random.Generator, duration_s: float) -> Disturbance:
    offset = rng.uniform(-0.06, 0.06, 3)
    turn = np.radians(rng.normal(0.0, [2.0, 2.0, 10.0]))
    opening = None if rng.random() < 0.5 else float(rng.random() < 0.5)
    return Disturbance(
        start_s=float(rng.uniform(0.2, 0.6 * duration_s)),
        duration_s=float(rng.uniform(_LEAST_DISTURBED_S, _MOST_DISTURBED_S)),
        offset_m=(float(offset[0]), float(offset[1]), float(offset[2])),
        turn_rad=(float(turn[0]), float(turn[1]), float(turn[2])),
        opening=opening,
        is_object_moved=bool(rng.random() < _MOVED_SHARE),
    )
