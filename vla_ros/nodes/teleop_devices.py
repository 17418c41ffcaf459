"""The operator's devices as teleop_node has them: topics, the terminal and HID devices in, what is said out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from geometry_msgs.msg import PoseStamped, Transform, Twist, Vector3
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, Float64

from vla_ros.errors import SensorError, UnknownNameError, VlaRosError
from vla_ros.nodes import messages
from vla_ros.nodes.runtime import RELIABLE, SENSOR
from vla_ros.nodes.streams import Polled
from vla_ros.teleop import joystick, keyboard, pose_stream, script
from vla_ros.teleop.config import DEVICES, JoyMapping, TeleopConfig
from vla_ros.teleop.operator_input import OperatorInput
from vla_ros.teleop.spacemouse_hid import FULL_SCALE, HidReader, find_device
from vla_ros.teleop.terminal import Terminal
from vla_ros.types import FloatArray


class Device(Protocol):
    """What an operator leads the tool by."""

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """What is said now.

        Args:
            now_s: on the monotonic clock.
            T_base_led: (4, 4) where the tool is led to, None while unknown.
            is_heard: whether the filter says that the arm is led from here.
        """

    def close(self) -> None:
        """Lets go of the device."""


@dataclass(frozen=True)
class DeviceOptions:
    """What a device may need besides the configuration: a gamepad's `mapping`, a script's file, a device's `hid`."""

    mapping: str = ""
    script: str = ""
    hid: str = ""


class Keyboard:
    """The keys of the terminal."""

    def __init__(self, config: TeleopConfig) -> None:
        mend = "run `vla-ros teleop --device keyboard` in one; launch files start the other devices"
        self._config, self._terminal = config.keyboard, Terminal(mend)
        self._state = keyboard.KeyboardState()

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """See Device. Whoever closes the terminal quits."""
        try:
            keys = self._terminal.take()
        except SensorError as error:
            return OperatorInput(commands=("quit",), problem=str(error))
        self._state, said = keyboard.step(self._state, keys, now_s, self._config)
        return said

    def close(self) -> None:
        """See Device."""
        self._terminal.close()


class Joystick:
    """A topic of sensor_msgs/Joy.

    Args:
        streams: subscribes.
        topic: of the messages.
        mapping: what axes and buttons mean.
        deadzone: part of an axis' way that is silent.
        timeout_s: silence that releases it.
        clock: monotonic, s.
        full_scale: value of an axis that stands for 1.
        is_silent_at_rest: whether it is heard while it is moved alone.
    """

    def __init__(
        self,
        streams: Polled,
        topic: str,
        mapping: JoyMapping,
        deadzone: float,
        timeout_s: float,
        clock: Callable[[], float],
        full_scale: float = 1.0,
        is_silent_at_rest: bool = False,
    ) -> None:
        self._topic, self._mapping, self._deadzone, self._timeout_s = topic, mapping, deadzone, timeout_s
        self._clock, self._full_scale, self._is_silent_at_rest = clock, full_scale, is_silent_at_rest
        self._state = joystick.JoystickState()
        self._commands: tuple[str, ...] = ()
        if topic:
            streams.subscribe(Joy, topic, self._on_joy, SENSOR)

    def _on_joy(self, message: Joy, _info: object = None) -> None:
        self.take([axis / self._full_scale for axis in message.axes], list(message.buttons))

    def take(self, axes: list[float], buttons: list[int]) -> None:
        """What the joystick is like now."""
        self._state, commands = joystick.take(self._state, axes, buttons, self._clock(), self._mapping)
        self._commands += commands

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """See Device."""
        commands, self._commands = self._commands, ()
        return joystick.read(
            self._state,
            now_s,
            self._mapping,
            self._deadzone,
            self._timeout_s,
            self._topic or "the device",
            commands,
            self._is_silent_at_rest,
        )

    def close(self) -> None:
        """See Device."""


class SpaceMouseTwist(Joystick):
    """The topic `spacenav/twist`, without buttons."""

    def __init__(self, streams: Polled, config: TeleopConfig, clock: Callable[[], float]) -> None:
        mouse = config.spacemouse
        super().__init__(
            streams, "", mouse.mapping, mouse.deadzone, config.device_timeout_s, clock, is_silent_at_rest=True
        )
        self._topic, self._full = "spacenav/twist", mouse.full_scale
        streams.subscribe(Twist, self._topic, self._on_twist, SENSOR)

    def _on_twist(self, message: Twist, _info: object = None) -> None:
        entries: list[Vector3] = [message.linear, message.angular]
        self.take([value / self._full for entry in entries for value in (entry.x, entry.y, entry.z)], [])


class SpaceMouseHid(Joystick):
    """The device itself."""

    def __init__(self, streams: Polled, config: TeleopConfig, clock: Callable[[], float], path: str) -> None:
        mouse = config.spacemouse
        super().__init__(
            streams, "", mouse.mapping, mouse.deadzone, config.device_timeout_s, clock, is_silent_at_rest=True
        )
        self._reader = HidReader(Path(path) if path else find_device())
        self._scale = mouse.full_scale * FULL_SCALE
        self.take([0.0] * 6, [0] * 16)  # It says nothing until it is touched.

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """See Device."""
        try:
            for state in self._reader.take():
                self.take(list(state.axes(self._scale)), list(state.button_list()))
        except SensorError as error:
            return OperatorInput(problem=str(error))
        return super().read(now_s, T_base_led, is_heard)

    def close(self) -> None:
        """See Device."""
        self._reader.close()


class PoseStream:
    """`teleop/pose` with its clutch: `teleop/clutch`, or the parameter `clutch` of the node.

    Args:
        streams: subscribes.
        config: what the poses mean.
        clock: monotonic, s.
    """

    def __init__(self, streams: Polled, config: TeleopConfig, clock: Callable[[], float]) -> None:
        self._config, self._clock = config.pose, clock
        self._state = pose_stream.PoseStreamState()
        self._opening: float | None = None
        streams.subscribe(PoseStamped, "teleop/pose", self._on_pose, SENSOR)
        streams.subscribe(Bool, "teleop/clutch", self._on_clutch, RELIABLE)
        streams.subscribe(Float64, "teleop/gripper", self._on_gripper, RELIABLE)

    def _on_pose(self, message: PoseStamped, _info: object = None) -> None:
        p, q = message.pose.position, message.pose.orientation
        try:
            T = messages.from_transform(Transform(translation=Vector3(x=p.x, y=p.y, z=p.z), rotation=q))
        except ValueError as error:
            self._state = replace(self._state, fault=str(error))
            return
        self._state = pose_stream.take_pose(self._state, T, self._clock(), self._config)

    def _on_clutch(self, message: Bool, _info: object = None) -> None:
        self._state = pose_stream.take_clutch(self._state, message.data, self._clock())

    def _on_gripper(self, message: Float64, _info: object = None) -> None:
        if 0.0 <= message.data <= 1.0:
            self._opening = message.data

    def set_clutch(self, is_clutched: bool) -> None:
        """What the parameter says."""
        self._state = pose_stream.take_clutch(self._state, is_clutched, None)

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """See Device."""
        said = pose_stream.read(self._state, now_s, self._config, "teleop/pose")
        return said if self._opening is None else replace(said, lever=self._opening)

    def close(self) -> None:
        """See Device."""


class Scripted:
    """A script, from the moment at which the arm is led."""

    def __init__(self, config: TeleopConfig, path: str) -> None:
        if not path:
            raise VlaRosError("the device scripted needs a script; name its YAML file")
        self._config, self._script = config, script.load_script(Path(path).expanduser(), config)
        self._state = script.ScriptState()

    def read(self, now_s: float, T_base_led: FloatArray | None, is_heard: bool) -> OperatorInput:
        """See Device."""
        if T_base_led is None:
            return OperatorInput()
        self._state, said = script.step(self._script, self._state, now_s, T_base_led, is_heard, self._config)
        return said

    def close(self) -> None:
        """See Device."""


def make_device(
    name: str, node: Node, streams: Polled, config: TeleopConfig, options: DeviceOptions, clock: Callable[[], float]
) -> Device:
    """The device of that name.

    Args:
        name: one of DEVICES.
        node: logs.
        streams: subscribes.
        config: what its axes and buttons mean.
        options: see there.
        clock: monotonic, s.

    Raises:
        VlaRosError: if there is none, or it can't be used.
    """
    if name == "keyboard":
        return Keyboard(config)
    if name == "gamepad":
        pad, mapping = config.gamepad, options.mapping or config.gamepad.mapping
        if mapping not in pad.mappings:
            raise UnknownNameError("gamepad mapping", mapping, pad.mappings)
        return Joystick(streams, "joy", pad.mappings[mapping], pad.deadzone, config.device_timeout_s, clock)
    if name == "spacemouse":
        mouse = config.spacemouse
        if mouse.source == "hid" or options.hid:
            return SpaceMouseHid(streams, config, clock, options.hid)
        if mouse.source == "twist":
            return SpaceMouseTwist(streams, config, clock)
        timeout_s, scale = config.device_timeout_s, mouse.full_scale
        return Joystick(streams, "spacenav/joy", mouse.mapping, mouse.deadzone, timeout_s, clock, scale, True)
    if name == "pose":
        return PoseStream(streams, config, clock)
    if name == "scripted":
        return Scripted(config, options.script)
    raise UnknownNameError("device", name, DEVICES)
