"""Leads a running stack through recorded actions, as one more source of chunks that safety_node may select."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.evaluation.replay_log import ReplayLog, ReplayRun
from vla_ros.nodes import chunk_messages
from vla_ros.nodes.rivals import who_commands
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only, now_ns, serve_ready
from vla_ros.nodes.settings import model_setting
from vla_ros.nodes.stack_client import call, change
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.streams import Polled
from vla_ros.recording.courses import SOURCE, ReplayError
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.recording.replaying import HoldWatch, Player
from vla_ros.robots.config import RobotConfig
from vla_ros.types import MotionState, RobotState, ToolChunk

_TURN_S, _HEARD_S = 0.02, 10.0


class ReplayNode(Node):
    """Selects itself at safety_node, sends the episode's chunks, and leaves nobody selected: the arm then holds.

    Args:
        robot: the arm.
    """

    def __init__(self, robot: RobotConfig) -> None:
        super().__init__("replay")
        self.model = model_setting(self, robot)
        """Of the arm, as the motion path has it: on real hardware with the kinematics that its driver publishes."""

        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        # Looked at now and then: of 250 states a second only the newest is read.
        self._polled = Polled(self)
        self._states = StateIntake(self, robot, newest_only(SENSOR), streams=self._polled).states
        self._tool = self.create_publisher(MultiDOFJointTrajectory, f"policies/{SOURCE}/action_chunk", RELIABLE)
        self._joint = self.create_publisher(JointTrajectory, f"policies/{SOURCE}/joint_chunk", RELIABLE)
        self.create_subscription(DiagnosticArray, "safety/verdict", self._on_verdict, RELIABLE)
        self._set_safety = self.create_client(SetParameters, "safety_node/set_parameters")
        self._reset = self.create_client(Trigger, "safety/reset")
        self._verdict: dict[str, str] | None = None
        self._state = MotionState.IDLE
        self._log: ReplayLog | None = None

    def refuse_company(self) -> None:
        """Makes sure that no stack runs here yet.

        Raises:
            ReplayError: naming who publishes joint commands in this ROS domain.
        """
        self._turn_for(0.7, lambda: None)
        found = who_commands(self)
        if found:
            raise ReplayError(
                f"{found} already commands an arm in ROS domain {os.environ.get('ROS_DOMAIN_ID', '0')}; "
                "replay through that one with --in arm, stop it, or set ROS_DOMAIN_ID to another number"
            )

    def wait_until_ready(self, timeout_s: float, alive: Callable[[], None]) -> RobotState:
        """Waits for an arm and its filter.

        Returns:
            The arm's state.

        Raises:
            ReplayError: naming what hasn't come.
        """

        def missing() -> list[str]:
            parts = [] if self._states.newest() is not None else ["joint_states"]
            parts += [] if self._verdict is not None else ["safety/verdict"]
            return parts + ([] if self._set_safety.service_is_ready() else [self._set_safety.srv_name])

        deadline_s = time.monotonic() + timeout_s
        while missing():
            if time.monotonic() > deadline_s:
                mend = "is a stack running, in this ROS_DOMAIN_ID and namespace?"
                raise ReplayError(f"not there after {timeout_s:g} s: {', '.join(missing())}; {mend}")
            self._turn(alive)
        newest = self._states.newest()
        if newest is None:
            raise ReplayError("joint_states fell silent")
        return newest

    def reset_safety(self, alive: Callable[[], None]) -> None:
        """Ends a stop that was latched; for a simulation of one's own, never for an arm."""
        call(self._reset, Trigger.Request(), lambda: self._turn(alive))

    def play(
        self,
        actions: RecordedActions,
        speed: float,
        alive: Callable[[], None],
        progress: Callable[[float], None] = lambda _fraction: None,
    ) -> ReplayRun:
        """Moves the arm.

        Args:
            actions: the episode's.
            speed: 1 as recorded.
            alive: called a few times a second; raises where going on has become pointless.
            progress: called with the share of the episode that is over.

        Returns:
            What came of it; its `problem` says why it ended early.

        Raises:
            ReplayError: if it can't begin.
        """
        player, watch = Player(actions, self.model.forward_kinematics, speed), HoldWatch()
        if self._state in (MotionState.STOPPED, MotionState.FAULT):
            raise ReplayError(
                f"the filter is {self._state.value}: {self._reason()}; call safety/reset when all is well"
            )
        with self._selected(alive):
            log = self._log = ReplayLog(self.model, now_ns(self))
            problem = ""
            while not problem and player.phase != "done":
                problem = self._lead(player, watch, log, progress)
                self._turn(alive)
            self._log = None
        return log.finish(actions, now_ns(self), problem)

    def _lead(self, player: Player, watch: HoldWatch, log: ReplayLog, progress: Callable[[float], None]) -> str:
        """One turn; why it can't go on, empty if it can."""
        now, newest = now_ns(self), self._states.newest()
        if newest is None or now - newest.stamp_ns > 1_000_000_000:
            return "joint_states fell silent; is the arm's driver running?"
        try:
            chunk = player.update(now, newest)
        except ReplayError as error:
            return str(error)
        if isinstance(chunk, ToolChunk):
            frames = self.model.config.tcp_frame, self.model.config.base_frame
            self._tool.publish(chunk_messages.to_tool_chunk_message(chunk, *frames))
        elif chunk is not None:
            self._joint.publish(chunk_messages.to_joint_chunk_message(chunk, self.model.names))
        log.sample(player.wanted(newest.stamp_ns), newest)
        progress(player.fraction(now))
        selected = (self._verdict or {}).get("source", "")
        if selected != SOURCE:
            return f"{selected or 'nobody'} has been selected at safety_node; the replay is over"
        return watch.problem(player, self._state, self._reason(), now)

    @contextmanager
    def _selected(self, alive: Callable[[], None]) -> Iterator[None]:
        """Whoever was selected before isn't afterwards: a policy goes on only when it is selected again."""
        self._select(SOURCE, alive)
        try:
            deadline_s = time.monotonic() + _HEARD_S
            while not self._is_heard():
                if time.monotonic() > deadline_s:
                    raise ReplayError(f"safety_node doesn't listen to policies/{SOURCE} after {_HEARD_S:g} s")
                self._turn(alive)
            yield
        finally:
            if (self._verdict or {}).get("source") == SOURCE:
                self._select("", lambda: None)

    def _is_heard(self) -> bool:
        listeners = (self._tool.get_subscription_count(), self._joint.get_subscription_count())
        return all(listeners) and (self._verdict or {}).get("source") == SOURCE

    def _reason(self) -> str:
        return "; ".join(reason for name, reason in (self._verdict or {}).items() if name != "source")

    def _on_verdict(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        self._verdict = {item.key: item.value for item in status.values}
        self._state = MotionState(status.message)
        if self._log is not None:
            self._log.add_limits(self._verdict, now_ns(self))

    def _turn(self, alive: Callable[[], None]) -> None:
        """What has come, then the rest of a turn's time."""
        next_s = time.monotonic() + _TURN_S
        serve_ready(self._executor)
        self._polled.take()
        alive()
        time.sleep(max(0.0, next_s - time.monotonic()))

    def _turn_for(self, duration_s: float, alive: Callable[[], None]) -> None:
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self._turn(alive)

    def _select(self, source: str, alive: Callable[[], None]) -> None:
        change(self._set_safety, "safety_node", "source", source, lambda: self._turn(alive))


@contextmanager
def replay_node(robot: RobotConfig, words: Sequence[str] = ()) -> Iterator[ReplayNode]:
    """A node for a command, with a context that is gone afterwards.

    Args:
        robot: the arm.
        words: ROS arguments: the stack's namespace, and its parameters `hardware` and `prefix`.
    """
    rclpy.init(args=["--ros-args", *words], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = ReplayNode(robot)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
