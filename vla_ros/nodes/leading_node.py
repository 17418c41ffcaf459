"""Leads the tool through steps that a program gives one after the other, as teleop_node does through a script's."""

from __future__ import annotations

from collections.abc import Sequence

from vla_ros.nodes.teleop_devices import Device
from vla_ros.nodes.teleop_node import TeleopNode
from vla_ros.teleop import script
from vla_ros.teleop.config import TeleopConfig
from vla_ros.teleop.operator_input import OperatorInput
from vla_ros.teleop.script import Script, ScriptState, ScriptStep
from vla_ros.teleop.state import ArmView
from vla_ros.types import FloatArray


class Course:
    """A device that lets go between the scripts it is given.

    Args:
        config: what is full speed.
    """

    def __init__(self, config: TeleopConfig) -> None:
        self._config = config
        self._script: Script | None = None
        self._state = ScriptState()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to lead through."""
        return self._script is None

    @property
    def has_begun(self) -> bool:
        """Whether the arm is led along the steps already."""
        return self._script is not None and self._state.index >= 0

    def begin(self, steps: Sequence[ScriptStep]) -> None:
        """Leads through these steps from now on.

        Raises:
            ConfigError: for more than the full speed.
        """
        wanted = Script(tuple(steps))
        script.check_speeds(wanted, self._config, "motion")
        self._script, self._state = wanted, ScriptState()

    def end(self) -> None:
        """Lets go: the arm brakes and holds."""
        self._script = None

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """See Device."""
        if self._script is None or T_base_led is None:
            return OperatorInput()
        self._state, said = script.step(self._script, self._state, now_s, T_base_led, is_heard, self._config)
        if self._state.is_over:
            self._script = None
            return OperatorInput()
        return said

    def close(self) -> None:
        """See Device."""


class LeadingNode(TeleopNode):
    """teleop_node with a Course in the place of an operator's device; its parameter `device` says nothing."""

    course: Course

    def _open_device(self) -> Device:
        self.course = Course(self.config)
        return self.course

    def _show(self, arm: ArmView | None) -> None:
        """Nothing: the terminal is the command's."""

    @property
    def problem(self) -> str:
        """Why the arm can't be led now, empty if it can."""
        return self._state.notice or self._reason

    @property
    def is_leading(self) -> bool:
        """Whether the arm is held by this node."""
        return self._state.is_engaged
