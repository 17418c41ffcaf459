"""teleop_node: an operator's device in, action chunks out; silent unless the dead-man switch is held."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from trajectory_msgs.msg import MultiDOFJointTrajectory

from vla_ros.config import load, package_share
from vla_ros.contract import load_rig
from vla_ros.errors import UnknownNameError, VlaRosError
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.camera_node import mount_pose
from vla_ros.nodes.chunk_intake import TELEOP
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only, now_ns, parameter, required_parameter, run
from vla_ros.nodes.settings import command_setting, model_setting, robot_setting
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.streams import Polled
from vla_ros.nodes.teleop_devices import Device, DeviceOptions, PoseStream, make_device
from vla_ros.safety.config import SafetyConfig
from vla_ros.teleop.config import DEVICES, FRAMES, TeleopConfig
from vla_ros.teleop.operator_input import SERVICES, OperatorInput
from vla_ros.teleop.state import ArmView
from vla_ros.teleop.teleoperator import Teleoperator
from vla_ros.teleop.terminal import StatusLine
from vla_ros.types import FloatArray, RobotState

POLL_HZ = 100.0
"""How often devices are looked at."""

_CANT_LEAD = ("stopped", "fault")


class TeleopNode(Node):
    """Leads the tool as an operator says. safety_node lets it take over from any policy with its first chunk."""

    def __init__(self) -> None:
        super().__init__("teleop_node")
        self.robot = robot_setting(self)
        path = str(parameter(self, "config", "", "teleop YAML file; empty: the package's own"))
        self.config = load(TeleopConfig, Path(path) if path else package_share() / "config" / "teleop.yaml")
        self._teleoperator = Teleoperator(self.config, self._arm_lead_s())
        self._model = model_setting(self, self.robot)
        self._choose_camera()
        frame = str(parameter(self, "frame", "base", f"of the motion: {', '.join(FRAMES)}", is_fixed=False))
        self._check_frame(frame)
        self._state = self._teleoperator.begin(frame)
        speed = float(
            parameter(self, "speed", 0.0, "part of the full speed, the nearest of `speeds`; 0: as configured")
        )
        if speed:
            self._state = self._teleoperator.with_speed(self._state, speed)

        self._streams = Polled(self)
        self._intake = StateIntake(self, self.robot, newest_only(SENSOR), streams=self._streams)
        self._commanded_opening: float | None = None
        self._streams.subscribe(Float64, "gripper/command", self._on_gripper_command, RELIABLE)
        self._verdict, self._who, self._reason, self._is_others = "", "", "", True
        self._streams.subscribe(DiagnosticArray, "safety/verdict", self._on_verdict, SENSOR)
        self._chunks = self.create_publisher(MultiDOFJointTrajectory, f"{TELEOP}/action_chunk", RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._triggers = {name: self.create_client(Trigger, topic) for name, topic in SERVICES.items()}

        self.device_name = required_parameter(self, "device", f"what leads: {', '.join(DEVICES)}")
        self._device = self._open_device()
        self.add_on_set_parameters_callback(self._on_parameters)
        self.figures = {"chunks": 0, "engagements": 0}
        """What was done, for who asks at the end."""

        self._notice, self._rivals, self._line = "", "", StatusLine()
        self._shown_s = 0.0
        self.create_timer(1.0, self._report)

    def _open_device(self) -> Device:
        options = DeviceOptions(
            mapping=str(parameter(self, "mapping", "", "gamepad: one of the configuration's mappings")),
            script=str(parameter(self, "script", "", "scripted: its YAML file")),
            hid=str(parameter(self, "hid", "", "spacemouse: a /dev/hidraw* to read without a driver")),
        )
        parameter(self, "clutch", False, "pose: whether the hand leads, for senders without a clutch", is_fixed=False)
        return make_device(self.device_name, self, self._streams, self.config, options, time.monotonic)

    def _arm_lead_s(self) -> float:
        """Time from a command until the arm is there, as safety_node has it."""
        path = str(parameter(self, "safety", "", "safety YAML file; empty: the package's own"))
        safety = load(SafetyConfig, Path(path) if path else package_share() / "config" / "safety.yaml")
        return safety.actuation_latency_s + command_setting(self, self.robot).delay_s

    def _choose_camera(self) -> None:
        name = str(parameter(self, "rig", "", "rig whose camera the frame `camera` is; empty: none"))
        camera = str(parameter(self, "camera", "", "the operator's camera; empty: the rig's first"))
        self._mount: tuple[str, FloatArray] | None = None
        if not name:
            return
        cameras = load_rig(name, self.robot.prefix).cameras
        if camera and camera not in cameras:
            raise UnknownNameError(f"camera of rig {name}", camera, cameras)
        if cameras:
            mount = cameras[camera or next(iter(cameras))].mount
            self._model.link_pose(self._model.home, mount.parent)  # Refuses a link that isn't there.
            self._mount = mount.parent, mount_pose(mount)

    def _check_frame(self, frame: str) -> None:
        if frame not in FRAMES:
            raise UnknownNameError("frame", frame, FRAMES)
        if frame == "camera" and self._mount is None:
            raise VlaRosError("frame camera needs a rig with a camera; pass -p rig:=...")

    # What comes in: all in the executor's thread.

    def _on_gripper_command(self, message: Float64, _info: object = None) -> None:
        self._commanded_opening = float(message.data)

    def _on_verdict(self, message: DiagnosticArray, _info: object = None) -> None:
        status = message.status[0]
        values = {item.key: item.value for item in status.values}
        self._who, self._verdict = values.pop("source", ""), status.message
        self._is_others |= self._who != TELEOP and not self._state.is_engaged
        reason = "; ".join(values.values())
        self._reason = f"the arm is in {status.message}: {reason}" if status.message in _CANT_LEAD else ""

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for item in parameters:
            try:
                if item.name == "frame":
                    self._check_frame(str(item.value))
                    self._state = self._teleoperator.with_frame(self._state, str(item.value))
                elif item.name == "clutch" and isinstance(self._device, PoseStream):
                    self._device.set_clutch(bool(item.value))
            except VlaRosError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # The turn.

    def poll(self) -> None:
        """Looks at device and arm, and sends what follows; called by `run` at its rate."""
        self._streams.take()
        stamp_ns = now_ns(self)
        arm = self._look(stamp_ns)
        is_ready = arm is not None and not arm.problem
        led = self._teleoperator.led(self._state, arm, stamp_ns) if arm is not None and is_ready else None
        said = self._device.read(time.monotonic(), led, self._who == TELEOP)
        self._step(said, arm, stamp_ns)
        for command in said.commands:
            if command in SERVICES:
                self._ask(command)
        self._show(arm)
        if "quit" in said.commands:
            raise ShutdownException  # `run` then ends this node in order.

    def _step(self, said: OperatorInput, arm: ArmView | None, stamp_ns: int) -> None:
        was_engaged = self._state.is_engaged
        self._state, chunk = self._teleoperator.step(self._state, said, arm, stamp_ns)
        if self._state.is_engaged and not was_engaged:
            self.figures["engagements"] += 1
            self._is_others = False
        if chunk is not None:
            frames = (self.robot.tcp_frame, self.robot.base_frame)
            self._chunks.publish(chunk_messages.to_tool_chunk_message(chunk, *frames))
            self.figures["chunks"] += 1

    def _look(self, stamp_ns: int) -> ArmView | None:
        measured = self._intake.states.newest()
        if measured is None:
            return None
        T_base_tcp, J = self._model.tcp_pose_and_jacobian(measured.positions)
        T_base_cam = None
        if self._mount is not None:
            T_base_cam = self._model.link_pose(measured.positions, self._mount[0]) @ self._mount[1]
        return ArmView(
            T_base_tcp,
            J @ measured.velocities,
            self._commanded_opening,
            self._intake.gripper_opening,
            T_base_cam,
            self._is_others,
            self._problem(measured, stamp_ns),
        )

    def _problem(self, measured: RobotState, stamp_ns: int) -> str:
        silence_s = (stamp_ns - measured.stamp_ns) * 1e-9
        if abs(silence_s) > self.config.state_timeout_s:
            return (
                f"no joint state for {silence_s:.1f} s (limit {self.config.state_timeout_s} s); is the driver running?"
            )
        if self._chunks.get_subscription_count() == 0:
            return f"nobody hears {self._chunks.topic_name}; is the stack running, in this ROS_DOMAIN_ID?"
        if not self._verdict:
            # A recorder may hear what the filter doesn't yet: finding each other takes seconds at times.
            return "no safety/verdict yet; is safety_node running?"
        return self._rivals or self._reason

    def _ask(self, command: str) -> None:
        client = self._triggers[command]
        if not client.service_is_ready():
            node = "safety_node" if command in ("halt", "reset") else "recorder_node (record:=true)"
            self._tell(f"{command}: no service {client.srv_name}; is {node} running? The motion goes on")
            return

        def answered(future: Any) -> None:
            answer = future.result()
            self._tell(f"{command}: {'' if answer.success else 'refused: '}{answer.message}")

        client.call_async(Trigger.Request()).add_done_callback(answered)

    # What is told.

    def _tell(self, text: str) -> None:
        self._notice = text
        self.get_logger().info(text)

    def _show(self, arm: ArmView | None) -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s < 0.2:
            return
        self._shown_s = now_s
        self._line.show(self.status(arm))

    def status(self, arm: ArmView | None) -> str:
        """How things are, in one line."""
        state, speed = self._state, self._teleoperator.speed(self._state)
        gripper = "as it is" if state.opening is None else f"{100 * state.opening:.0f} % open"
        where = "unknown" if arm is None else "{:+.3f} {:+.3f} {:+.3f} m".format(*arm.T_base_tcp[:3, 3])
        notice = state.notice or self._notice
        return " | ".join(
            [
                "LEADS" if state.is_engaged else "lets go",
                # Before what a narrow terminal may cut.
                *([notice] if notice else []),
                f"frame {state.frame}",
                f"speed {100 * speed:.0f} % ({1000 * speed * self.config.linear_m_s:.0f} mm/s)",
                f"gripper {gripper}",
                f"tcp {where}",
                f"{self._verdict or 'no filter'} for {self._who or 'nobody'}",
            ]
        )

    def _report(self) -> None:
        state, topic = self._state, self._chunks.topic_name
        is_alone = self.count_publishers(topic) <= 1
        self._rivals = "" if is_alone else f"another node publishes {topic}, too, and so the arm holds; end one of them"
        values = {
            "device": self.device_name,
            "engaged": state.is_engaged,
            "frame": state.frame,
            "speed": self._teleoperator.speed(state),
            **self.figures,
        }
        level = DiagnosticStatus.WARN if state.notice else DiagnosticStatus.OK
        text = state.notice or ("leads the arm" if state.is_engaged else "lets go")
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), text, values, level)
        )

    def close(self) -> None:
        """Lets go of the arm and the device."""
        self._step(OperatorInput(), self._look(now_ns(self)), now_ns(self))
        self._line.close()
        self._device.close()


def lead(args: Sequence[str] | None = None) -> tuple[int, dict[str, int]]:
    """Runs teleop_node.

    Args:
        args: command line, default sys.argv.

    Returns:
        The exit code, and what was done.
    """
    made: list[TeleopNode] = []

    def make() -> list[TeleopNode]:
        made.append(TeleopNode())
        return made

    exit_code = run(make, poll_hz=POLL_HZ, args=args)
    return exit_code, dict(made[0].figures) if made else {}


def main() -> int:
    """Runs teleop_node."""
    return lead()[0]


if __name__ == "__main__":
    sys.exit(main())
