"""A policy that is loaded: what it is fed with, what it answers, and where that is published."""

from __future__ import annotations

import json
import logging
import math
import traceback
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.actions.answer import to_wire
from vla_ros.contract import Contract, Rig, find_mismatches
from vla_ros.errors import ContractError, VlaRosError
from vla_ros.nodes import chunk_messages
from vla_ros.nodes.runtime import RELIABLE
from vla_ros.observation.observed import observed_to_json
from vla_ros.observation.synchroniser import ObservationBuilder
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.registry import PolicyConfig, load_policy_config, make_policy
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.types import ActionChunk, FloatArray, JointChunk, Observation, ToolChunk

_STATE_TOLERANCE_NS = 50_000_000
_log = logging.getLogger(__name__)


class PolicyLoadError(VlaRosError):
    """A policy, or a package that it uses, failed in a way that nobody foresaw while it was loaded."""

    def __init__(self, name: str, error: BaseException) -> None:
        places = traceback.extract_tb(error.__traceback__)
        where = f" in {places[-1].filename}:{places[-1].lineno}" if places else ""
        super().__init__(f"policy {name} failed to load: {type(error).__name__}: {error}{where}")


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy in memory that nobody asks yet.

    Attributes:
        config: what its YAML says.
        policy: itself.
        contract: what it observes and means.
    """

    config: PolicyConfig
    policy: Policy
    contract: Contract

    @classmethod
    def load(cls, name: str, rig: Rig, task: str) -> LoadedPolicy:
        """Reads and makes it, which may take minutes. Any thread.

        Args:
            name: of the policy, or its YAML file.
            rig: the cell that it is for.
            task: instruction in force from the start, empty for none.

        Raises:
            VlaRosError: if it can't be loaded, the rig doesn't give what it needs, or it can't read the instruction.
        """
        config = load_policy_config(name)
        try:
            loaded = cls(config, *make_policy(config))
            try:
                loaded._check(rig, task)
            except BaseException:
                loaded.close()
                raise
        except VlaRosError:
            raise
        # A policy is other people's code, which may even call sys.exit.
        except (Exception, SystemExit) as error:
            raise PolicyLoadError(config.name, error) from error
        return loaded

    def _check(self, rig: Rig, task: str) -> None:
        mismatches = find_mismatches(rig, self.contract)
        if mismatches:
            raise ContractError("; ".join(mismatches))
        if task:
            self.policy.reset(task, self.config.seed)

    def close(self) -> None:
        """Lets go of what it holds outside of this process; one that fails to is told in the log."""
        close = getattr(self.policy, "close", None)
        if not callable(close):
            return
        try:
            close()
        except Exception:
            _log.warning("policy %s failed to close", self.config.name, exc_info=True)


class ResidentPolicy:
    """A loaded policy between the topics. Frames and states may come in any thread; the rest is one thread's.

    Args:
        node: publishes its chunks.
        loaded: the policy.
        robot: whose joints and frames its chunks are about.
        model: of that robot; used by the thread that observes.
        states: measured joint states.
    """

    def __init__(
        self, node: Node, loaded: LoadedPolicy, robot: RobotConfig, model: RobotModel, states: JointStateBuffer
    ) -> None:
        self.name, self.contract, self.policy = loaded.config.name, loaded.contract, loaded.policy
        self.period_s = 1.0 / loaded.config.rate_hz
        self._loaded, self._robot, self._states = loaded, robot, states
        self.builder = ObservationBuilder(loaded.contract, model.forward_kinematics)
        self._committed: ToolChunk | JointChunk | None = None
        topic = f"policies/{self.name}"
        self._tool_chunks = node.create_publisher(MultiDOFJointTrajectory, f"{topic}/action_chunk", RELIABLE)
        self._joint_chunks = node.create_publisher(JointTrajectory, f"{topic}/joint_chunk", RELIABLE)
        self._observed = node.create_publisher(String, f"{topic}/observed", RELIABLE)

    @property
    def cameras(self) -> set[str]:
        """The rig's cameras that it looks through, and those that may be absent."""
        return {spec.camera for spec in self.contract.observation.images.values()}

    @property
    def health(self) -> dict[str, Any]:
        """What it says of itself for diagnostics, such as of its connection; mostly nothing."""
        health = getattr(self.policy, "health", None)
        return dict(health()) if callable(health) else {}

    def begin(self, task: str) -> None:
        """Starts on a task.

        Raises:
            InstructionError: if it can't be read.
        """
        self._committed = None
        self.policy.reset(task, self._loaded.config.seed)

    def infer(self, observation: Observation, expected_delay_s: float) -> ActionChunk:
        """Its answer to an observation, told what of its last one will still be executed."""
        steps = self.contract.action.steps_within(self.period_s)
        delay_s = 0.0 if math.isnan(expected_delay_s) else expected_delay_s
        return self.policy.infer(observation, InferenceContext(delay_s, steps, self._committed))

    def publish(self, chunk: ActionChunk, observation: Observation, now_ns: int) -> None:
        """Sends an answer on its way, and after it what its observation was made of.

        Raises:
            VlaRosError: if it can't be decoded, or is too old.
        """
        self._publish_chunk(chunk, observation, now_ns)
        if observation.made_of is not None:
            values = {**observed_to_json(observation.made_of), "chunk_stamp_ns": observation.stamp_ns}
            self._observed.publish(String(data=json.dumps(values)))

    def _publish_chunk(self, chunk: ActionChunk, observation: Observation, now_ns: int) -> None:
        wire, committed = to_wire(chunk, self.contract.action, observation, self._positions_at, now_ns, self.name)
        if isinstance(wire, ToolChunk):
            frames = self._robot.tcp_frame, self._robot.base_frame
            self._tool_chunks.publish(chunk_messages.to_tool_chunk_message(wire, *frames))
        else:
            self._joint_chunks.publish(chunk_messages.to_joint_chunk_message(wire, self._robot.joint_names))
        self._committed = committed

    def _positions_at(self, stamp_ns: int) -> FloatArray:
        return self._states.at(stamp_ns, _STATE_TOLERANCE_NS).positions

    def rest(self) -> None:
        """Nothing of its last answer is executed any more."""
        self._committed = None

    def leave(self, node: Node) -> None:
        """Takes its topics off the node and lets it go."""
        node.destroy_publisher(self._tool_chunks)
        node.destroy_publisher(self._joint_chunks)
        node.destroy_publisher(self._observed)
        self._loaded.close()
