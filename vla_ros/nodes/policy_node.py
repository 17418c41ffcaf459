"""policy_node: observations into the active policy, its chunks out; a lifecycle node, silent unless it is active."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle import Node as LifecycleNode
from rclpy.parameter import Parameter
from std_msgs.msg import String

from vla_ros.errors import VlaRosError
from vla_ros.nodes import messages
from vla_ros.nodes.inference import Inference
from vla_ros.nodes.loading import Loader, progress
from vla_ros.nodes.resident_policy import LoadedPolicy, PolicyLoadError, ResidentPolicy
from vla_ros.nodes.residents import Residents
from vla_ros.nodes.runtime import (
    LATCHED,
    RELIABLE,
    autostart,
    destroy,
    entities,
    logged_transition,
    now_ns,
    parameter,
    required_parameter,
    run,
)
from vla_ros.nodes.settings import hardware_setting, rig_setting, robot_setting
from vla_ros.nodes.streams import Polled
from vla_ros.policies.registry import listed_policies, policies_by_name, policy_name

POLL_HZ = 60.0
"""How often it looks for messages."""


class PolicyNode(LifecycleNode):
    """Keeps policies loaded, one of them active, and feeds that one the newest aligned observation.

    Parameter `policy` says which is active and can be set to any that is resident; the arm moves again when safety_node
    selects that source, too (`vla-ros swap` does both). Names added to `resident` are loaded in the background.
    """

    def __init__(self) -> None:
        super().__init__("policy_node")
        self.robot, self.rig = robot_setting(self), rig_setting(self)
        self._wanted = required_parameter(self, "policy", "the active policy: name or YAML file", is_fixed=False)
        meaning = "policies kept loaded besides the active one, with commas: names or YAML files"
        self._residents_wanted = listed_policies(str(parameter(self, "resident", "", meaning, is_fixed=False)))
        task = str(parameter(self, "task", "", "instruction in force from the start; empty: wait for `task`"))
        hardware_setting(self)
        self._autostart = bool(parameter(self, "autostart", True, "activate without being asked"))
        self._started_ns = now_ns(self)
        self.residents: Residents | None = None
        """The policies that are loaded; None until this is configured."""

        self._active_name = ""
        self._loading = ""
        self._built: set[Any] = set()
        self._tasks = Polled(self)  # Humble's executor doesn't tell when a message was sent.
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._events = self.create_publisher(String, "episode/event", LATCHED)
        self.inference = Inference(self, self._take_frames, self._publish_event)
        self.inference.set_task(task)
        self._loader = Loader(self.rig, self._tell_loading)
        self.create_timer(1.0, self._publish_diagnostics)
        self.create_timer(0.05, self._adopt_loaded)
        self.add_on_set_parameters_callback(self._on_parameters)

    def start(self) -> None:
        """Configures and activates where `autostart` says so.

        Raises:
            VlaRosError: what configuring refuses, under autostart.
        """
        if self._autostart:
            self._configure()
            autostart(self)

    @property
    def active(self) -> ResidentPolicy | None:
        """The policy that is asked."""
        return None if self.residents is None else self.residents.by_name.get(self._active_name)

    # Lifecycle and callbacks: executor's thread.

    def poll(self) -> None:
        """Takes in what cameras and arm have sent; called by `run` at its rate."""
        if self.residents is not None:
            self._tasks.take()
            self.residents.poll()

    def _configure(self) -> None:
        """Loads what is wanted; what can't be loaded is refused before there are any topics."""
        if self.residents is not None:
            return
        loaded: list[LoadedPolicy] = []
        try:
            for name, word in policies_by_name((self._wanted, *self._residents_wanted)).items():
                with progress(name, self._tell_loading):
                    task = self.inference.task if word == self._wanted else ""
                    loaded.append(LoadedPolicy.load(word, self.rig, task))
        except BaseException:
            for policy in loaded:
                policy.close()
            raise
        finally:
            self._loading = ""
        before = entities(self)
        self._tasks.subscribe(String, "task", self._on_task, RELIABLE)
        self._built = entities(self) - before
        residents = Residents(self, self.robot, self.rig)
        for policy in loaded:
            residents.add(policy)
        self._active_name = policy_name(self._wanted)
        self.residents = residents
        self.inference.select(self.active)

    @logged_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the policies, checks their contracts against the rig, and makes the topics."""
        self._configure()
        self.inference.start()
        return super().on_configure(state)

    @logged_transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leaves the topics and the policies; configuring makes and loads them anew."""
        self.inference.select(None)
        self.inference.wait_until_idle()
        residents, self.residents = self.residents, None
        if residents is not None:
            residents.close()
        self._tasks.close()
        destroy(self, self._built)
        return super().on_cleanup(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits chunks."""
        if self.active is not None:
            contract = self.active.contract.interface_hash
            self._publish_event({"event": "policy_active", "policy": self._active_name, "contract": contract})
        self.inference.set_active(True)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits no more chunks; the filter holds when the last has ended."""
        self.inference.set_active(False)
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits no more chunks, whichever state that comes from."""
        self.inference.set_active(False)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits no more chunks after a transition that failed."""
        self.inference.set_active(False)
        return super().on_error(state)

    def _on_task(self, message: String, info: Mapping[str, int]) -> None:
        if info["source_timestamp"] < self._started_ns:
            self.get_logger().warning(f"task {message.data!r} is from before the start; publish it again to begin")
            return
        self.inference.set_task(message.data)

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for item in parameters:
            if item.name in ("policy", "resident"):
                if item.type_ is not Parameter.Type.STRING:
                    return SetParametersResult(successful=False, reason=f"{item.name} must be a string")
                reason = self._swap(item.value) if item.name == "policy" else self._keep(listed_policies(item.value))
                if reason:
                    return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _swap(self, wanted: str) -> str:
        """Makes another resident policy the active one; why not, if it can't be."""
        try:
            name = policy_name(wanted)
        except VlaRosError as error:
            return str(error)
        if self.residents is None:
            self._wanted = wanted
            return ""
        resident = self.residents.by_name.get(name)
        if resident is None:
            known = ", ".join(sorted(self.residents.by_name))
            return f"policy {name!r} isn't resident (resident: {known}); add it to the parameter `resident` first"
        if name == self._active_name:
            return ""
        before, self._active_name, self._wanted = self._active_name, name, wanted
        self.inference.select(resident)
        contract = resident.contract.interface_hash
        self._publish_event({"event": "policy_swapped", "from": before, "policy": name, "contract": contract})
        return ""

    def _keep(self, wanted: tuple[str, ...]) -> str:
        """Which policies stay loaded besides the active one; why not, if that can't be."""
        try:
            names = policies_by_name(wanted)
        except VlaRosError as error:
            return str(error)
        self._residents_wanted = wanted
        if self.residents is None:
            return ""
        for name in self.residents.by_name.keys() - names.keys() - {self._active_name}:
            self.inference.wait_until_idle()
            self.residents.drop(name)
        for name in names.keys() - self.residents.by_name.keys():
            self._loader.load(names[name])
        return ""

    def _adopt_loaded(self) -> None:
        if (taken := self._loader.take()) is None:
            return
        self._loading = ""
        word, loaded = taken
        if isinstance(loaded, VlaRosError):
            self._refuse(word, loaded)
            return
        residents = self.residents
        if residents is None or word not in self._residents_wanted or loaded.config.name in residents.by_name:
            loaded.close()
            return
        try:
            residents.add(loaded)
        # The one that moves the arm isn't to suffer from another that can't be shown anything.
        except Exception as error:
            loaded.close()
            self._refuse(word, error if isinstance(error, VlaRosError) else PolicyLoadError(word, error))
            return
        contract = loaded.contract.interface_hash
        self._publish_event({"event": "policy_loaded", "policy": loaded.config.name, "contract": contract})

    def _refuse(self, word: str, error: VlaRosError) -> None:
        """Tells that a policy can't be loaded, and takes it out of `resident`, which says what is."""
        self.get_logger().error(f"policy {word} can't be loaded: {error}")
        self._publish_event({"event": "policy_refused", "policy": word, "reason": str(error)})
        left = [kept for kept in self._residents_wanted if kept != word]
        self.set_parameters([Parameter("resident", Parameter.Type.STRING, ",".join(left))])

    def _tell_loading(self, text: str) -> None:
        self._loading = text
        self.get_logger().info(text)
        self._publish_diagnostics()  # The executor doesn't while it configures.

    # Any thread.

    def _take_frames(self) -> None:
        if self.residents is not None:
            self.residents.take_frames()

    def _publish_event(self, event: Mapping[str, Any]) -> None:
        self._events.publish(String(data=json.dumps(event)))

    def _publish_diagnostics(self) -> None:
        inference = self.inference
        values: dict[str, object] = {
            "policy": self._active_name,
            "resident": ",".join(sorted(self.residents.by_name)) if self.residents else "",
            "task": inference.task,
            "active": inference.is_active,
        }
        for name, times in inference.times_s.items():
            values[f"{name}_p50_s"], values[f"{name}_p99_s"] = times.at(0.5), times.at(0.99)
        if self.active is not None:
            values.update(self.active.health)
        status = self._loading if self._loading and not inference.is_active else inference.status
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), status, values, inference.level)
        )

    def close(self) -> None:
        """Ends the inference thread and lets go of the policies."""
        self.inference.close()
        self._loader.close()
        if self.residents is not None:
            self.residents.close()


def _make() -> list[PolicyNode]:
    node = PolicyNode()
    node.start()
    return [node]


def main() -> int:
    """Runs policy_node; looking for messages now and then spares it most of a 250 Hz stream."""
    return run(_make, poll_hz=POLL_HZ)


if __name__ == "__main__":
    sys.exit(main())
