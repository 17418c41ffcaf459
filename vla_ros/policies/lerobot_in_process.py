"""A policy that lerobot saved, with its own pre- and postprocessors, in this process. Imports torch and lerobot."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.contract import Contract
from vla_ros.errors import ConfigError, ContractError, InstructionError, MissingDependencyError
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.device import find_device
from vla_ros.policies.lerobot_features import (
    ACTION,
    PREPROCESSOR,
    FeatureMap,
    LeRobotParameters,
    PolicyFeatures,
    check_shapes,
)
from vla_ros.policies.torchvision_operators import import_torchvision
from vla_ros.types import ActionChunk, Observation

# Weights that lerobot would fetch before it reads the checkpoint's own over them.
_FETCHED = {"pretrained_backbone_weights": None, "load_vlm_weights": False}
_OBS_IMAGES, _OBS_IMAGE = "observation.images", "observation.image"
_SEED_END = 2**31


class LeRobotInProcess:
    """See the module.

    Its answer is `predict_action_chunk`, so the whole chunk, past ACT's own ensembler and the queue of actions. Queues
    of past observations are filled anew from the contract's history at every call, so that they hold what lay
    `history_spacing_s` apart and not what the last calls happened to see.

    Args:
        contract: what it is asked to see and emit.
        parameters: of its YAML.
        features: what the policy's folder says.
        names: which of them the contract's images and state items are.

    Raises:
        ConfigError: if lerobot can't load the policy, or there is no such device.
        MissingDependencyError: if lerobot, or what this policy needs besides, can't be imported.
    """

    def __init__(
        self, contract: Contract, parameters: LeRobotParameters, features: PolicyFeatures, names: FeatureMap
    ) -> None:
        self.contract = contract
        find_device(parameters.device, "policy lerobot: parameters: device")
        self._features, self._names, self._device = features, names, parameters.device
        if not parameters.downloads:
            # Read when huggingface_hub is imported, which lerobot does.
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        folder = Path(parameters.checkpoint).expanduser()
        self._policy, self._preprocess, self._postprocess = _load(folder, self._device)
        self._task: str | None = None
        self._seeds = np.random.default_rng(0)

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`. Policies without language take any task, but not none."""
        self._task = None
        if not task.strip():
            raise InstructionError(task, "is empty", "say what is to be done")
        self._task = task
        self._seeds = np.random.default_rng(seed)
        self._policy.reset()

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`. The actions are what lerobot's postprocessor gives: (horizon, action width).

        Raises:
            ContractError: if the observation's history or sizes aren't what the policy takes.
        """
        steps = self.contract.observation.history_steps
        if len(observation.history) != steps - 1:
            raise ContractError(
                f"the observation comes with {len(observation.history)} before it, contract {self.contract.name} says "
                f"{steps - 1} (history_steps {steps})"
            )
        if self._task is None:
            return ActionChunk(np.zeros((0, self._features.action_width)), is_idle=True, note="no task")
        with torch.inference_mode(), self._own_randomness(), self._precision():
            for past in observation.history:
                self._remember(self._batch(past))
            batch = self._batch(observation)
            self._remember(batch)
            # lerobot's own loop gives a postprocessor (batch, width), so a chunk's steps are its batch.
            actions = self._postprocess(self._policy.predict_action_chunk(batch)[0])
        return ActionChunk(actions.to("cpu", torch.float64).numpy(), note=self._task)

    def _batch(self, observation: Observation) -> dict[str, Any]:
        """One observation as lerobot's preprocessor leaves it."""
        gathered = self._names.gather(observation)
        check_shapes(self._features, gathered)
        raw: dict[str, Any] = {"task": self._task}
        for feature, value in gathered.items():
            tensor = torch.from_numpy(np.array(value))
            if feature in self._features.images:
                raw[feature] = (tensor.to(torch.float32) / 255).permute(2, 0, 1).contiguous()[None]
            else:
                raw[feature] = tensor.to(torch.float32)[None]
        batch: dict[str, Any] = self._preprocess(raw)
        batch.pop(ACTION, None)
        images = [batch[feature] for feature in self._policy.config.image_features if feature in batch]
        if _OBS_IMAGES in self._queues and images:
            batch[_OBS_IMAGES] = torch.stack(images, dim=-4)
        elif _OBS_IMAGE in self._queues and images:
            batch[_OBS_IMAGE] = images[0]
        return batch

    @property
    def _queues(self) -> dict[str, Any]:
        """lerobot's queues of past observations and of actions, for policies that have them."""
        return getattr(self._policy, "_queues", None) or {}

    def _remember(self, batch: dict[str, Any]) -> None:
        """Into lerobot's queues, each as long as the history, so that none of an earlier call's is left in them."""
        for key, queue in self._queues.items():
            if key != ACTION and key in batch:
                queue.append(batch[key])

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """torch's global stream, from which lerobot draws, started from this policy's own seeds and put back."""
        devices = [torch.device(self._device)] if self._device.startswith("cuda") else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(self._seeds.integers(_SEED_END)))
            yield

    def _precision(self) -> torch.autocast:
        kind = torch.device(self._device).type
        return torch.autocast(kind, enabled=kind == "cuda" and bool(self._policy.config.use_amp))


def _load(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """The policy, its preprocessor and its postprocessor, on a device, with nothing but what the folder holds."""
    try:
        import_torchvision()
        factory = importlib.import_module("lerobot.policies.factory")
        configs = importlib.import_module("lerobot.configs.policies")
    except ImportError as error:
        raise MissingDependencyError(
            getattr(error, "name", None) or "lerobot",
            "policies of kind lerobot in this Python",
            "scripts/make_lerobot_environment.sh FOLDER, then `environment: FOLDER` in the policy's YAML",
        ) from error
    where, mend = str(folder), "is it of the lerobot installed, or older; and does it want `downloads: true` once?"
    try:
        config = configs.PreTrainedConfig.from_pretrained(folder, local_files_only=True)
        if getattr(config, "use_peft", False):
            raise ConfigError(where, "is an adapter alone (use_peft)", "merge it into its policy and save that")
        config.device = device
        for key, value in _FETCHED.items():
            if hasattr(config, key):
                setattr(config, key, value)
        policy = factory.get_policy_class(config.type).from_pretrained(
            folder, config=config, local_files_only=True, strict=True
        )
        preprocess, postprocess = factory.make_pre_post_processors(
            config, pretrained_path=str(folder), preprocessor_overrides=_overrides(folder, device)
        )
    except ImportError as error:
        raise MissingDependencyError(
            error.name or str(error), f"the policy in {folder}", "python -m pip install it where lerobot is"
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(where, f"lerobot can't load it ({type(error).__name__}: {said})", mend) from error
    policy.eval()
    return policy, preprocess, postprocess


def _overrides(folder: Path, device: str) -> dict[str, dict[str, Any]]:
    """Settings of the saved preprocessor that are this machine's. lerobot refuses one for a step that isn't there."""
    saved = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
    steps = {step.get("registry_name") for step in saved["steps"]}
    # What is given has the policy's own names already, whatever the data it was trained on called them.
    wanted: dict[str, dict[str, Any]] = {
        "device_processor": {"device": device},
        "rename_observations_processor": {"rename_map": {}},
    }
    return {name: settings for name, settings in wanted.items() if name in steps}
