"""A policy that answers requests: in a thread of its own, one at a time, and one client's at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from vla_ros.contract import Contract
from vla_ros.errors import ContractError, InstructionError, VlaRosError
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.registry import PolicyConfig, make_policy
from vla_ros.policies.remote.contract_check import contract_metadata
from vla_ros.policies.remote.errors import RemoteFailureError
from vla_ros.policies.remote.fields import take_int, take_mapping, take_text
from vla_ros.policies.remote.key_mapping import KeyMapping
from vla_ros.policies.remote.observation_wire import OWN, decode_observation, encode_chunk
from vla_ros.policies.remote.plain_request import decode_plain, own_keys
from vla_ros.policies.remote.worker import Worker
from vla_ros.types import ActionChunk

_log = logging.getLogger(__name__)


class HostedPolicy:
    """A loaded policy. It is made, reset and asked in one thread, as policies expect.

    A policy remembers its task and what it did, so it has one client at a time: who resets it takes it over, and the
    one before is told so instead of being answered out of another's task.

    Args:
        name: under which it is served.
        make: makes it, with its contract; called in its thread.
        seed: of the resets that plain clients don't ask for.
        keys: under which keys plain openpi clients send; None for those of our own form.

    Raises:
        VlaRosError: what making it raises.
    """

    def __init__(
        self, name: str, make: Callable[[], tuple[Policy, Contract]], seed: int = 0, keys: KeyMapping | None = None
    ) -> None:
        self.name, self._seed = name, seed
        self._worker = Worker(f"policy {name}")
        self._owner: str | None = None
        self._task: str | None = None
        try:
            self._policy, self.contract = self._worker.run(make)
            self._contract_hash = self.contract.interface_hash  # Kept: it is worked out each time it is asked for.
            self._keys = keys or own_keys(self.contract)
            self._keys.check(self.contract, f"serve {name}")
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(cls, config: PolicyConfig, keys: KeyMapping | None = None) -> HostedPolicy:
        """The policy that a config describes."""
        return cls(config.name, lambda: make_policy(config), config.seed, keys)

    def metadata(self) -> dict[str, Any]:
        """What it says of itself: its name and contract."""
        return {"policy": self.name, **contract_metadata(self.contract)}

    def submit(self, message: Mapping[Any, Any], client: str) -> asyncio.Future[dict[str, Any]]:
        """Queues a request, from a running loop; cancelling the future takes it out of the queue again.

        Args:
            message: in our own form, or a plain client's.
            client: who asks, where the message doesn't say.
        """
        return self._worker.submit(self._answer, message, client)

    def close(self) -> None:
        """Ends its thread after what it is doing, and lets go of what the policy holds outside of this process."""
        self._worker.close(getattr(getattr(self, "_policy", None), "close", None))

    # In the policy's thread.

    def _answer(self, message: Mapping[Any, Any], client: str) -> dict[str, Any]:
        begin_s = time.perf_counter()
        chunk = self._answer_own(message) if OWN in message else self._answer_plain(message, client)
        reply = {} if chunk is None else encode_chunk(chunk)
        return reply | {"server_timing": {"infer_ms": 1e3 * (time.perf_counter() - begin_s)}}

    def _answer_own(self, message: Mapping[Any, Any]) -> ActionChunk | None:
        own = take_mapping(message, OWN)
        session = take_text(own, "session")
        if take_text(own, "contract") != self._contract_hash:
            raise ContractError(
                f"policy {self.name} has contract {self._contract_hash}, the request was made under "
                f"{own['contract'][:40]}"
            )
        if "reset" in own:
            reset = take_mapping(own, "reset")
            self._reset(take_text(reset, "task"), take_int(reset, "seed"), session)
        if own["call"] == "reset":
            return None
        if self._owner != session:
            fault = RemoteFailureError("not_reset", f"policy {self.name} has no task")
            if self._owner is not None:
                fault = RemoteFailureError("taken", f"policy {self.name} was given a task by another client; reset it")
            raise fault
        observation, context = decode_observation(message, self.contract)
        return self._policy.infer(observation, context)

    def _answer_plain(self, message: Mapping[Any, Any], client: str) -> ActionChunk:
        observation = decode_plain(message, self.contract, time.time_ns(), self._keys)
        if (self._owner, self._task) != (client, observation.instruction):
            self._reset(observation.instruction, self._seed, client)
        return self._policy.infer(observation, InferenceContext())

    def _reset(self, task: str, seed: int, owner: str) -> None:
        self._owner, self._task = None, None
        self._policy.reset(task, seed)
        self._owner, self._task = owner, task


def describe_failure(error: BaseException, name: str) -> tuple[str, str]:
    """Name and text of an error, for the client: our own errors as they are, of others no more than their type.

    A traceback holds paths, and values that may be another's; the server's log has it.
    """
    if isinstance(error, InstructionError):
        return "instruction", f"{error.problem}; {error.mend}"
    if isinstance(error, VlaRosError):
        return str(getattr(error, "fault", "server_error")), f"{type(error).__name__}: {error}"
    _log.error("policy %s failed", name, exc_info=error)
    return "server_error", f"policy {name} failed with {type(error).__name__}; the server's log has the traceback"
