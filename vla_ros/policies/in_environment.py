"""A policy in another environment's Python: served from there, and spoken to from here as if it were here."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from vla_ros.config import plain
from vla_ros.contract import Contract, save_contract
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.environment import Environment
from vla_ros.policies.remote.parameters import RemoteParameters
from vla_ros.policies.remote.policy import RemotePolicy
from vla_ros.policies.served_process import ServedProcess, ServerStartError
from vla_ros.types import ActionChunk, Observation

# Several cameras of full size with a history, uncompressed.
_MAX_REQUEST_MB = 128


class PolicyInEnvironment:
    """See the module. The other process ends with this one, or with `close`.

    Args:
        kind: of the policy, as in its YAML.
        contract: what it is asked to see and emit.
        parameters: of its YAML; paths are absolute.
        environment: from `environment.look_through`.
        start_timeout_s: until it is loaded.
        deadline_s: of one answer.

    Raises:
        ServerStartError: if it doesn't start, with what it said.
    """

    def __init__(
        self,
        kind: str,
        contract: Contract,
        parameters: dict[str, Any],
        environment: Environment,
        start_timeout_s: float,
        deadline_s: float,
    ) -> None:
        self.contract = contract
        with tempfile.TemporaryDirectory(prefix="vla_ros_policy_") as folder:
            policy = _write(Path(folder), kind, contract, parameters)
            words = ["serve", str(policy), "--port", "0", "--json", "--max-mb", str(_MAX_REQUEST_MB)]
            self._process = ServedProcess(environment, words)
            url = self._process.wait_for_url(start_timeout_s)
        try:
            self._remote = RemotePolicy(contract, RemoteParameters(url, deadline_s=deadline_s))
        except BaseException:
            self._process.close()
            raise

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`."""
        self._check_alive()
        self._remote.reset(task, seed)

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`. Raises RemoteError for whatever kept an answer from coming."""
        self._check_alive()
        return self._remote.infer(observation, context)

    def health(self) -> dict[str, Any]:
        """Figures of the connection to the other process, for diagnostics."""
        return self._remote.health()

    def close(self) -> None:
        """Ends the other process."""
        self._remote.close()
        self._process.close()

    def _check_alive(self) -> None:
        if not self._process.is_running:
            raise ServerStartError(f"the policy's process ended: {self._process.last_line}; configure it again")


def _write(folder: Path, kind: str, contract: Contract, parameters: dict[str, Any]) -> Path:
    """The policy's YAML and its contract's, for the other process. Returns the first."""
    save_contract(contract, folder / "contract.yaml")
    config = {
        "name": f"{kind}_in_environment",
        "kind": kind,
        "contract": str(folder / "contract.yaml"),
        "rate_hz": 1.0,
        "parameters": parameters,
    }
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(plain(config), sort_keys=False), encoding="utf-8")
    return path
