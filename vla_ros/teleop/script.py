"""A script in the place of an operator: twists and waypoints over time, from a YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vla_ros.config import load
from vla_ros.errors import ConfigError
from vla_ros.geometry import rotations, se3
from vla_ros.teleop.config import TeleopConfig
from vla_ros.teleop.operator_input import OperatorInput, check_known
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class ScriptStep:
    """One stretch of a script. With neither twist, move nor pose the tool stays, held.

    Attributes:
        duration_s: of the stretch.
        twist: six numbers, m/s and rad/s, in the operator's frame.
        move: x, y, z and a rotation vector, m and rad in base axes, from where the tool is when the stretch begins.
        pose: x, y, z and roll, pitch, yaw of the tcp in base.
        opening: of the gripper, from its beginning on.
        release: let go of the dead-man switch.
        commands: pressed at its beginning, like `success`.
    """

    duration_s: float
    twist: tuple[float, float, float, float, float, float] | None = None
    move: tuple[float, float, float, float, float, float] | None = None
    pose: tuple[float, float, float, float, float, float] | None = None
    opening: float | None = None
    release: bool = False
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [name for name in ("twist", "move", "pose") if getattr(self, name) is not None]
        if len(given) > 1 or (given and self.release):
            raise ValueError(f"a step has one of twist, move, pose and release; found {', '.join(given)}")
        if not 0.0 < self.duration_s < math.inf:
            raise ValueError(f"duration_s {self.duration_s} isn't positive")
        numbers = [value for name in given for value in getattr(self, name)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{given[0]} {numbers} isn't finite")
        if self.opening is not None and not 0.0 <= self.opening <= 1.0:
            raise ValueError(f"opening {self.opening} isn't in [0, 1]")
        check_known("commands", self.commands)


@dataclass(frozen=True)
class Script:
    """What a script file says.

    Attributes:
        steps: one after the other.
        repeat: how often.
    """

    steps: tuple[ScriptStep, ...] = field(default=())
    repeat: int = 1

    def __post_init__(self) -> None:
        if not self.steps or self.repeat < 1:
            raise ValueError("a script needs steps, and repeat of at least 1")


def load_script(path: Path, config: TeleopConfig) -> Script:
    """Reads a script.

    Raises:
        ConfigError: if it can't be used, or asks for more than the full speed.
    """
    script = load(Script, path)
    check_speeds(script, config, str(path))
    return script


def check_speeds(script: Script, config: TeleopConfig, where: str) -> None:
    """Refuses a script that asks for more than the full speed.

    Raises:
        ConfigError: naming the step.
    """
    for number, step in enumerate(script.steps):
        for name, fast in zip(("linear", "angular"), _fastest(step), strict=True):
            full = config.linear_m_s if name == "linear" else config.angular_rad_s
            if fast > full * (1.0 + 1e-9):
                problem = f"{name} speed {fast:.3g}, full speed {full:g} (config/teleop.yaml)"
                raise ConfigError(f"{where}: steps[{number}]", problem, "give it more time")


def _fastest(step: ScriptStep) -> tuple[float, float]:
    if step.twist is not None:
        return math.hypot(*step.twist[:3]), math.hypot(*step.twist[3:])
    if step.move is not None:
        rate = _PEAK / step.duration_s
        return rate * math.hypot(*step.move[:3]), rate * math.hypot(*step.move[3:])
    return 0.0, 0.0


# Peak over mean speed of the way from rest to rest below.
_PEAK = 1.875


@dataclass(frozen=True)
class ScriptState:
    """Where a script is.

    Attributes:
        index: of the step, over all repetitions; -1 before the first, -2 before the dead-man switch was seen released.
        begun_s: when that began, on any steady clock.
        T_base_begin: (4, 4) where the tool was led to then.
        T_base_end: (4, 4) where the step leads, None for steps without a place.
        is_over: whether all is done.
    """

    index: int = -2
    begun_s: float = 0.0
    T_base_begin: FloatArray = field(default_factory=lambda: np.eye(4))
    T_base_end: FloatArray | None = None
    is_over: bool = False


def step(
    script: Script, state: ScriptState, now_s: float, T_base_led: FloatArray, is_heard: bool, config: TeleopConfig
) -> tuple[ScriptState, OperatorInput]:
    """What the script says now.

    Args:
        script: the script.
        state: after the step before.
        now_s: on a steady clock.
        T_base_led: (4, 4) where the tool is led to, for steps that begin now.
        is_heard: whether the arm is led from here. Until it is, the tool is held where it is: ROS may need seconds to
            bring the first chunk to the filter, and a script's beginning would be lost.
        config: what is full speed.
    """
    if state.is_over or state.index < -1:
        return replace(state, index=max(state.index, -1)), OperatorInput()
    if state.index < 0 and not is_heard and not script.steps[0].release:
        return state, OperatorInput(is_held=True, speed=1.0)
    commands: tuple[str, ...] = ()
    count = len(script.steps) * script.repeat
    ends_s = state.begun_s + script.steps[state.index % len(script.steps)].duration_s
    if state.index < 0 or now_s >= ends_s:
        if state.index + 1 >= count:
            return replace(state, is_over=True), OperatorInput(commands=("quit",))
        begun_s = now_s if state.index < 0 or now_s - ends_s > 0.5 else ends_s
        here = script.steps[(state.index + 1) % len(script.steps)]
        begin = T_base_led if state.T_base_end is None else state.T_base_end
        state = ScriptState(state.index + 1, begun_s, begin, _end(here, begin))
        commands = here.commands
    here = script.steps[state.index % len(script.steps)]
    full = np.array((config.linear_m_s, config.angular_rad_s)).repeat(3)
    said = OperatorInput(is_held=not here.release, speed=1.0, opening=here.opening, commands=commands)
    if here.twist is not None:
        return state, replace(said, sticks=np.array(here.twist) / full)
    if state.T_base_end is None:
        return state, said
    T_wanted, velocity = _on_the_way(state, here, now_s)
    return state, replace(said, T_base_wanted=T_wanted, sticks=velocity / full)


def _end(step: ScriptStep, T_base_begin: FloatArray) -> FloatArray | None:
    if step.pose is not None:
        return se3.make_pose(np.array(step.pose[:3]), rotations.rpy_to_matrix(np.array(step.pose[3:])))
    if step.move is not None:
        delta = se3.make_pose(np.array(step.move[:3]), rotations.rotvec_to_matrix(np.array(step.move[3:])))
        return se3.compose_base(T_base_begin, delta)
    return None


def _on_the_way(state: ScriptState, here: ScriptStep, now_s: float) -> tuple[FloatArray, FloatArray]:
    """Pose and velocity in base axes, from rest to rest with minimum jerk.

    Source: Flash and Hogan, "The coordination of arm movements", J. Neuroscience 1985.
    """
    if state.T_base_end is None:
        raise ValueError("this step leads nowhere")
    x = min(1.0, max(0.0, (now_s - state.begun_s) / here.duration_s))
    part, rate = x**3 * (10.0 - 15.0 * x + 6.0 * x**2), 30.0 * (x * (1.0 - x)) ** 2 / here.duration_s
    # The tool turns with its position on a straight line; rates are of the whole way in base axes.
    whole = se3.pose_error(state.T_base_begin, state.T_base_end)
    delta = se3.make_pose(np.asarray(part * whole[:3]), rotations.rotvec_to_matrix(np.asarray(part * whole[3:])))
    return se3.compose_base(state.T_base_begin, delta), np.asarray(rate * whole)
