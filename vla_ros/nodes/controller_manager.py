"""The controllers of ros2_control's controller manager: which are active, and making ours the one that leads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rclpy.node import Node

from vla_ros.errors import VlaRosError
from vla_ros.nodes.message_packages import missing_package
from vla_ros.nodes.service_calls import Service, Steps, wait_for

try:
    from controller_manager_msgs.srv import ListControllers, SwitchController
except ImportError as error:
    _MISSING: ImportError | None = error
else:
    _MISSING = None

_PERIOD_S, _STALE_S = 0.5, 3.0
_BY_ITSELF_S, _SWITCHED_S = 2.0, 5.0


class ControllerManagerClient:
    """Asks twice a second for the controllers, and switches them.

    Args:
        node: calls.
        name: of the controller manager's node.
        controller: the one that is to be active.
        joint_names: of the arm; whoever else claims their command interfaces has to be deactivated.

    Raises:
        MissingDependencyError: without controller_manager_msgs.
    """

    def __init__(self, node: Node, name: str, controller: str, joint_names: Sequence[str]) -> None:
        if _MISSING is not None:
            raise missing_package(_MISSING, "hardware_node") from _MISSING
        self._controller, self._joints = controller, tuple(joint_names)
        self._list = Service(node, ListControllers, f"{name}/list_controllers")
        self._switch = Service(node, SwitchController, f"{name}/switch_controller")
        self._known: list[Any] = []
        self._asked: Steps | None = None
        self._heard_s = -_STALE_S
        node.create_timer(_PERIOD_S, self._ask)
        node.create_timer(0.05, self._go_on)

    @property
    def silence(self) -> str:
        """Why nothing is known of the controllers, empty if it is."""
        if time.monotonic() - self._heard_s < _STALE_S:
            return ""
        if not self._list.is_there:
            return f"nobody serves {self._list.name}; is the arm's driver running?"
        return f"{self._list.name} doesn't answer"

    @property
    def problem(self) -> str:
        """Why our controller doesn't lead, empty if it does."""
        states = {item.name: item.state for item in self._known}
        if self._controller not in states:
            return (
                f"{self._controller} isn't loaded; loaded are {', '.join(sorted(states)) or 'none'}; "
                "see docs/hardware.md for its configuration, and command.interface in the robot's YAML for another one"
            )
        state = states[self._controller]
        return "" if state == "active" else f"{self._controller} is {state}"

    def activate(self) -> Steps:
        """Makes our controller the active one, in the place of whoever claims the same joints.

        After an interruption a driver may do that by itself, and gets some time for it.

        Raises:
            VlaRosError: if it isn't loaded, or the controller manager refuses.
        """
        wait_s = time.monotonic() + _BY_ITSELF_S
        while self.problem and time.monotonic() < wait_s:
            yield
        if not self.problem:
            return
        if self._controller not in {item.name for item in self._known}:
            raise VlaRosError(self.problem)
        others = [item.name for item in self._known if item.state == "active" and self._claims(item)]
        request = SwitchController.Request(
            activate_controllers=[self._controller],
            deactivate_controllers=others,
            strictness=SwitchController.Request.STRICT,
        )
        yield from self._switch.call(request)
        if not self._switch.response.ok:
            said = getattr(self._switch.response, "message", "") or "its log says why"
            raise VlaRosError(f"{self._switch.name} refused to activate {self._controller}: {said}")
        yield from wait_for(lambda: not self.problem, _SWITCHED_S, f"{self._controller} doesn't become active")

    def _claims(self, item: Any) -> bool:
        """Whether a controller commands one of our joints; its claims are `<joint>/<interface>`."""
        return any(claim.rpartition("/")[0] in self._joints for claim in item.claimed_interfaces)

    def _ask(self) -> None:
        if self._asked is None and self._list.is_there:
            self._asked = self._list.call(ListControllers.Request())

    def _go_on(self) -> None:
        if self._asked is None:
            return
        try:
            next(self._asked)
        except StopIteration:
            self._known, self._heard_s = list(self._list.response.controller), time.monotonic()
            self._asked = None
        except VlaRosError:
            # Told by `silence`.
            self._asked = None
