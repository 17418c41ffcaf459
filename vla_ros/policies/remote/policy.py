"""The policy `remote`: another process's, behind the same protocol as those in this one."""

from __future__ import annotations

import functools
import importlib
import secrets
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from vla_ros.contract import Contract
from vla_ros.errors import ConfigError, ContractError, InstructionError
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.remote.act_client import ActClient
from vla_ros.policies.remote.address import Address, make_address
from vla_ros.policies.remote.client import OpenpiClient
from vla_ros.policies.remote.contract_check import check_metadata
from vla_ros.policies.remote.errors import Fault, RemoteError, RemoteFailureError, RemoteReplyError
from vla_ros.policies.remote.health import Health
from vla_ros.policies.remote.key_mapping import KeyMapping
from vla_ros.policies.remote.observation_wire import OWN, PROTOCOL, encode_observation
from vla_ros.policies.remote.parameters import WHERE, RemoteParameters
from vla_ros.policies.remote.reply import ReplyChecker
from vla_ros.policies.remote.wire_arrays import WireLimits
from vla_ros.types import ActionChunk, Observation

_SCHEMES = {
    "openpi": ("ws", "wss"),
    "openvla": ("http", "https"),
    "openvla_oft": ("http", "https"),
    "gr00t": ("tcp",),
}


class Client(Protocol):
    """One request at a time to one server."""

    health: Health

    def metadata(self, timeout_s: float) -> dict[Any, Any]:
        """What the server says of itself, once it is there."""

    def exchange(self, request: Mapping[str, Any], deadline_s: float) -> Any:
        """A reply, or a RemoteError."""

    def close(self) -> None:
        """Leaves the server."""


class RemotePolicy:
    """See the module. Whatever is wrong with a reply raises, and nothing of it is executed.

    Args:
        contract: under which observations are made and actions meant.
        parameters: the server.

    Raises:
        ConfigError: for parameters that can't be used.
        ContractError: if the server says that it has another contract; with the lines that differ.
        RemoteError: if the server isn't there.
    """

    def __init__(self, contract: Contract, parameters: RemoteParameters) -> None:
        self.contract = contract
        self._contract_hash = contract.interface_hash  # Kept, since it is worked out each time it is asked for.
        self._parameters = parameters
        self._keys = parameters.key_mapping(contract)
        self._checker = ReplyChecker(contract.action, parameters.reply)
        self._session = secrets.token_hex(8)
        self._task: str | None = None
        self._seed = 0
        self._must_reset = True
        self._client = self._make_client()
        try:
            self._client.metadata(parameters.connect_s)
        except BaseException:
            self._client.close()
            raise
        # A node that is configured anew drops its policy without a word.
        weakref.finalize(self, self._client.close)

    @classmethod
    def from_parameters(cls, contract: Contract, parameters: dict[str, Any]) -> RemotePolicy:
        """Made from the parameters of a policy's YAML."""
        return cls(contract, RemoteParameters.read(parameters))

    @staticmethod
    def check_parameters(contract: Contract, parameters: dict[str, Any]) -> None:
        """Finds what `from_parameters` would refuse, without asking for the server. Raises the same."""
        given = RemoteParameters.read(parameters)
        given.key_mapping(contract)
        _address(given).ssl_context()
        if given.protocol == "gr00t":
            importlib.import_module("vla_ros.policies.remote.gr00t_client")

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`. A server that can't be asked now is told with the next observation."""
        if not task.strip():
            raise InstructionError(task, "it is empty", "publish what the arm is to do")
        self._task, self._seed, self._must_reset = task, seed, True
        if self._keys is not None:
            return
        try:
            self._ask({OWN: self._own("reset") | {"reset": {"task": task, "seed": seed}}})
        except InstructionError:
            self._task = None
            raise
        except (RemoteError, ContractError):
            return
        self._must_reset = False

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`.

        Raises:
            RemoteError: whatever kept a reply from being executable; of bad actions a RemoteReplyError, a ChunkError.
        """
        if self._task is None:
            return ActionChunk(np.zeros((0, 0)), is_idle=True, note="no task")
        if self._keys is not None:
            return self._infer_foreign(observation, self._keys)
        request = encode_observation(observation, context)
        own = request[OWN] | self._own("infer")
        if self._must_reset:
            own["reset"] = {"task": self._task, "seed": self._seed}
        try:
            reply = self._ask(request | {OWN: own})
        except RemoteFailureError as error:
            # It was started anew, or lost us; somebody else's task (`taken`) isn't ours to end.
            self._must_reset = error.fault == "not_reset"
            raise
        self._must_reset = False
        if reply.get("is_idle") is True:
            return ActionChunk(np.zeros((0, 0)), is_idle=True, note=_note(reply) or "the remote policy is idle")
        return ActionChunk(self._checked(reply.get("actions")), note=_note(reply))

    def health(self) -> dict[str, Any]:
        """Figures of the connection, for diagnostics: see `Health.as_dict`. Any thread may ask."""
        return self._client.health.as_dict()

    def close(self) -> None:
        """Leaves the server; the policy is of no use then."""
        self._client.close()

    def _make_client(self) -> Client:
        given = self._parameters
        address = _address(given)
        limits, health = WireLimits(max_bytes=round(given.max_reply_mb * 2**20)), Health()
        if given.protocol == "openpi":
            # Nothing of this object, which the client's thread would keep alive.
            accept = functools.partial(_accept, self.contract, given.url, self._keys is None)
            return OpenpiClient(address, accept, health, limits)
        if given.protocol == "gr00t":
            from vla_ros.policies.remote.gr00t_client import Gr00tClient

            return Gr00tClient(address, health, limits)
        return ActClient(address, health, limits)

    def _own(self, call: str) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "call": call,
            "session": self._session,
            "contract": self._contract_hash,
        }

    def _ask(self, request: Mapping[str, Any]) -> Mapping[Any, Any]:
        """The reply of our own server; what it refuses is raised by name."""
        reply: Mapping[Any, Any] = self._exchange(request)
        own = reply.get(OWN)
        text = own.get("error") if isinstance(own, dict) else None
        if text is None:
            return reply
        fault = own.get("fault") if isinstance(own, dict) else None
        if fault == "instruction":
            raise InstructionError(str(self._task), str(text)[:500], "see what the policy understands")
        known: Fault = "taken" if fault == "taken" else "not_reset" if fault == "not_reset" else "server_error"
        error = RemoteFailureError(known, f"{self._parameters.url}: {str(text)[:2000]}")
        self._client.health.add_fault(error.fault, str(error))
        raise error

    def _exchange(self, request: Mapping[str, Any]) -> Any:
        try:
            return self._client.exchange(request, self._parameters.deadline_s)
        except RemoteError as error:
            self._client.health.add_fault(error.fault, str(error))
            raise

    def _infer_foreign(self, observation: Observation, keys: KeyMapping) -> ActionChunk:
        reply = self._exchange(keys.request(observation))
        try:
            actions = keys.actions_of(reply)
        except RemoteReplyError as error:
            self._client.health.add_fault(error.fault, str(error))
            raise
        return ActionChunk(self._checked(actions))

    def _checked(self, actions: Any) -> Any:
        try:
            return self._checker.check(actions)
        except RemoteReplyError as error:
            self._client.health.add_fault(error.fault, f"{self._parameters.url}: {error}")
            raise


def _address(given: RemoteParameters) -> Address:
    return make_address(given.url, _SCHEMES[given.protocol], given.api_key_env, given.ca_file, given.is_insecure)


def _accept(contract: Contract, url: str, must_be_ours: bool, metadata: Mapping[Any, Any]) -> None:
    if must_be_ours and OWN not in metadata:
        raise ConfigError(
            f"{WHERE}: keys",
            f"{url} isn't a server of ours",
            "say with `keys` under which names it expects the observation",
        )
    check_metadata(metadata, contract, url)


def _note(reply: Mapping[Any, Any]) -> str:
    note = reply.get("note")
    return note[:500] if isinstance(note, str) else ""
