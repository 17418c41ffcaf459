"""The wire between gripper_node and a gripper's driver: goals of its actions, or positions to its controller."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from vla_ros.control.gripper_goals import GripperGoal, Kind, Outcome
from vla_ros.nodes.message_packages import missing_package
from vla_ros.nodes.runtime import RELIABLE
from vla_ros.robots.config import GripperConfig
from vla_ros.robots.driver import GripperDriver

OnAccepted = Callable[[int], None]
OnEnded = Callable[[int, Outcome, str], None]


class GripperLink(Protocol):
    """How one kind of driver is told."""

    def missing(self) -> str:
        """What isn't there that should be, in words; empty if all is."""

    def send(self, goal: GripperGoal, number: int) -> None:
        """Sends a goal; what becomes of it is told under its number."""

    def cancel(self, number: int) -> None:
        """Asks for the end of that goal."""

    def close(self) -> None:
        """Leaves the driver."""


def link_to_gripper(
    node: Node, gripper: GripperConfig, driver: GripperDriver, on_accepted: OnAccepted, on_ended: OnEnded
) -> GripperLink:
    """The link to a driver of that kind.

    Args:
        node: whose clients and publishers they are.
        gripper: speeds and forces.
        driver: names and positions.
        on_accepted: called with the number of a goal that was taken.
        on_ended: called with the number of a goal, how it ended and what was said of it.

    Raises:
        MissingDependencyError: for messages that aren't installed.
    """
    if driver.kind == "position":
        return PositionLink(node, driver, on_accepted, on_ended)
    make = {
        "franka": _franka_actions,
        "gripper_command": _command_action,
        "parallel_gripper_command": _parallel_action,
    }[driver.kind]
    return ActionLink(node, make(gripper, driver), on_accepted, on_ended)


class PositionLink:
    """A forward controller: a position is all it is told, and nothing is answered."""

    def __init__(self, node: Node, driver: GripperDriver, on_accepted: OnAccepted, on_ended: OnEnded) -> None:
        self._driver, self._on_accepted, self._on_ended = driver, on_accepted, on_ended
        self._publisher = node.create_publisher(Float64MultiArray, driver.name, RELIABLE)

    def missing(self) -> str:
        """Who doesn't listen."""
        if self._publisher.get_subscription_count():
            return ""
        return f"nobody hears {self._publisher.topic_name}; is the gripper's controller active?"

    def send(self, goal: GripperGoal, number: int) -> None:
        """Publishes the position."""
        self._publisher.publish(Float64MultiArray(data=[self._driver.position(goal.opening)]))
        self._on_accepted(number)
        self._on_ended(number, "reached", "")

    def cancel(self, number: int) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is held."""


class ActionType:
    """An action, what its goals are made of and what its results say.

    Args:
        module: where its type is, such as `control_msgs.action`.
        kind: the type's name there.
        name: the action's name.
        fill: writes a goal into a goal message.
        read: how a goal ended, of a result message.
    """

    def __init__(
        self,
        module: str,
        kind: str,
        name: str,
        fill: Callable[[Any, GripperGoal], None],
        read: Callable[[Any], tuple[Outcome, str]],
    ) -> None:
        package = module.partition(".")[0]
        try:
            self.type: Any = getattr(importlib.import_module(module), kind)
        except ImportError as error:
            raise missing_package(error, f"the gripper's action {name}") from error
        self.full_type = f"{package}/action/{kind}"
        self.name, self.fill, self.read = name, fill, read


class ActionLink:
    """Actions of a gripper's node, one for each kind of goal; one goal at a time."""

    def __init__(
        self, node: Node, types: Mapping[Kind, ActionType], on_accepted: OnAccepted, on_ended: OnEnded
    ) -> None:
        self._node, self._types = node, types
        self._on_accepted, self._on_ended = on_accepted, on_ended
        clients = {kind.name: ActionClient(node, kind.type, kind.name) for kind in types.values()}
        self._clients = {goal: clients[kind.name] for goal, kind in types.items()}
        self._handles: dict[int, Any] = {}

    def missing(self) -> str:
        """Which action isn't served, or what is served in its place."""
        for goal, client in self._clients.items():
            if not client.server_is_ready():
                return self._reason(self._types[goal])
        return ""

    def _reason(self, wanted: ActionType) -> str:
        name = self._node.resolve_service_name(wanted.name)
        services = dict(self._node.get_service_names_and_types())
        kinds = {kind.removesuffix("_SendGoal") for kind in services.get(f"{name}/_action/send_goal", [])}
        others = kinds - {wanted.full_type}  # Ours is there by our own client.
        if others:
            mend = "give the robot's YAML the kind of that (driver.gripper.kind)"
            return f"{name} is of {', '.join(sorted(others))} and not {wanted.full_type}; {mend}"
        return f"no action {name} ({wanted.full_type}); does the gripper's driver run?"

    def send(self, goal: GripperGoal, number: int) -> None:
        """Sends a goal of its kind."""
        kind = self._types[goal.kind]
        message = kind.type.Goal()
        kind.fill(message, goal)

        def on_answer(future: Any) -> None:
            handle = future.result()
            if handle is None or not handle.accepted:
                self._on_ended(number, "refused", "the gripper's driver refuses the goal")
                return
            self._handles = {number: handle}
            handle.get_result_async().add_done_callback(on_result)
            self._on_accepted(number)

        def on_result(future: Any) -> None:
            answer = future.result()
            if answer.status == GoalStatus.STATUS_CANCELED:
                self._on_ended(number, "canceled", "")
            else:
                self._on_ended(number, *kind.read(answer.result))

        self._clients[goal.kind].send_goal_async(message).add_done_callback(on_answer)

    def cancel(self, number: int) -> None:
        """Asks for its end; the result comes as any other."""
        handle = self._handles.get(number)
        if handle is not None:
            handle.cancel_goal_async()

    def close(self) -> None:
        """Destroys the clients."""
        for client in {id(client): client for client in self._clients.values()}.values():
            client.destroy()


def _franka_actions(gripper: GripperConfig, driver: GripperDriver) -> Mapping[Kind, ActionType]:
    """franka_gripper's. Widths are of both fingers, its joint states half of it.

    Source: franka_ros2, franka_gripper/src/gripper_action_server.cpp: every goal is executed in a thread of its own and
    none ends another, so one has to be ended first; closing is a grasp there, too; a width past the hand's own aborts.
    """
    finger_m = driver.open - driver.closed
    width_m, speed_m_s = 2.0 * finger_m, gripper.speed_per_s * gripper.max_width_m

    def move(message: Any, goal: GripperGoal) -> None:
        message.width, message.speed = 2.0 * driver.closed + goal.opening * width_m, speed_m_s

    def grasp(message: Any, goal: GripperGoal) -> None:
        move(message, goal)
        message.force = gripper.force_n
        # Whatever is between the fingers, and nothing, is as wished.
        message.epsilon.inner = message.epsilon.outer = width_m

    def read(result: Any) -> tuple[Outcome, str]:
        if result.success:
            return "reached", ""
        return ("failed", result.error) if result.error else ("blocked", "")

    def home(_message: Any, _goal: GripperGoal) -> None:
        return

    def action(kind: str, name: str, fill: Callable[[Any, GripperGoal], None]) -> ActionType:
        return ActionType("franka_msgs.action", kind, f"{driver.name}/{name}", fill, read)

    return {
        "move": action("Move", "move", move),
        "grasp": action("Grasp", "grasp", grasp),
        "home": action("Homing", "homing", home),
    }


def _read_command(result: Any) -> tuple[Outcome, str]:
    if result.reached_goal:
        return "reached", ""
    return ("blocked", "") if result.stalled else ("failed", "the gripper neither arrived nor was it held up")


def _command_action(gripper: GripperConfig, driver: GripperDriver) -> Mapping[Kind, ActionType]:
    def fill(message: Any, goal: GripperGoal) -> None:
        message.command.position, message.command.max_effort = driver.position(goal.opening), gripper.force_n

    return {"move": ActionType("control_msgs.action", "GripperCommand", driver.name, fill, _read_command)}


def _parallel_action(gripper: GripperConfig, driver: GripperDriver) -> Mapping[Kind, ActionType]:
    def fill(message: Any, goal: GripperGoal) -> None:
        message.command.name, message.command.position = [driver.joint], [driver.position(goal.opening)]
        message.command.effort = [gripper.force_n]

    return {"move": ActionType("control_msgs.action", "ParallelGripperCommand", driver.name, fill, _read_command)}
