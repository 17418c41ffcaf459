"""The policy kind `lerobot`: any policy that lerobot saved, in this process or in an environment that has lerobot.

The parameters of its YAML:

    checkpoint: .../pretrained_model        # as lerobot saved it, with its processors
    environment: /opt/lerobot               # by scripts/make_lerobot_environment.sh; none where lerobot is installed
    images: {observation.images.top: base}  # only where names differ from the contract's

What the folder takes and gives is held against the contract before anything is loaded, without torch or lerobot.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.errors import MissingDependencyError
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.environment import SERVER_NEEDS, Environment, is_this_environment, look_through
from vla_ros.policies.lerobot_features import LeRobotParameters, match, read_features
from vla_ros.types import ActionChunk, Observation

_WHERE, _MAKE = "policy lerobot: parameters", "scripts/make_lerobot_environment.sh"
_NEEDS = {**SERVER_NEEDS, "lerobot": "lerobot", "torch": "torch"}


class LeRobotPolicy:
    """See the module.

    Args:
        contract: what it is asked to see and emit.
        parameters: folder, environment, device and names.

    Raises:
        ContractError: with the lines in which the folder and the contract differ.
        ConfigError: if the folder isn't a policy's, or lerobot can't load it.
        MissingDependencyError: if lerobot, or what this policy needs besides, is missing where it is to run.
        ServerStartError: if the process in the other environment ends.
    """

    def __init__(self, contract: Contract, parameters: LeRobotParameters) -> None:
        self.contract = contract
        self._policy = _make(contract, parameters)

    @classmethod
    def from_parameters(cls, contract: Contract, parameters: dict[str, Any]) -> LeRobotPolicy:
        """Made from the parameters of a policy's YAML. Raises ConfigError for one that isn't known."""
        return cls(contract, build(LeRobotParameters, parameters, _WHERE))

    @staticmethod
    def check_parameters(contract: Contract, parameters: dict[str, Any]) -> None:
        """Finds what `from_parameters` would refuse, without loading the policy. Raises the same."""
        settings = build(LeRobotParameters, parameters, _WHERE)
        match(read_features(Path(settings.checkpoint).expanduser()), contract, settings)
        _check_lerobot(settings)

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`."""
        self._policy.reset(task, seed)

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`."""
        return self._policy.infer(observation, context)

    def health(self) -> dict[str, Any]:
        """Figures of the connection to another environment, for diagnostics; none in this one."""
        health = getattr(self._policy, "health", None)
        return dict(health()) if callable(health) else {}

    def close(self) -> None:
        """Ends the process in the other environment, if there is one; the policy is of no use then."""
        close = getattr(self._policy, "close", None)
        if close is not None:
            close()


def _make(contract: Contract, parameters: LeRobotParameters) -> Policy:
    folder = Path(parameters.checkpoint).expanduser()
    features = read_features(folder)
    names = match(features, contract, parameters)
    if _is_elsewhere(parameters):
        from vla_ros.policies.in_environment import PolicyInEnvironment

        # There it is in its environment, so it needs no other.
        given = {**vars(parameters), "environment": "", "checkpoint": str(folder.resolve())}
        environment, times = _look_through(parameters), (parameters.start_timeout_s, parameters.deadline_s)
        return PolicyInEnvironment("lerobot", contract, given, environment, *times)
    _check_lerobot(parameters)
    from vla_ros.policies.lerobot_in_process import LeRobotInProcess

    return LeRobotInProcess(contract, parameters, features, names)


def _is_elsewhere(parameters: LeRobotParameters) -> bool:
    return bool(parameters.environment) and not is_this_environment(parameters.environment)


def _check_lerobot(parameters: LeRobotParameters) -> None:
    if _is_elsewhere(parameters):
        _look_through(parameters)
    elif importlib.util.find_spec("lerobot") is None:
        raise MissingDependencyError(
            "lerobot in this Python",
            "policies of kind lerobot without an environment of their own",
            f"{_MAKE} FOLDER, then `environment: FOLDER` in the policy's parameters",
        )


def _look_through(parameters: LeRobotParameters) -> Environment:
    where = parameters.environment
    return look_through(where, "policies of kind lerobot", _NEEDS, f"{_MAKE} {where}")
