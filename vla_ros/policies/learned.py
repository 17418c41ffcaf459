"""The policy kind `learned`: a network of our own, from a checkpoint, run by torch or by ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.actions.encode import encode_joint_chunk, encode_tool_chunk
from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.errors import ChunkError, ContractError, InstructionError
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.checkpoint import Checkpoint, read_checkpoint
from vla_ros.policies.checkpoint_fit import check_fit
from vla_ros.policies.learned_parameters import WHERE, LearnedParameters, load_runtime, runs_onnx
from vla_ros.policies.model_runtime import Float32Array, ModelInputs, ModelPrefix, ModelRuntime
from vla_ros.policies.representations.committed import committed_prefix
from vla_ros.types import ActionChunk, FloatArray, JointChunk, Observation, ToolChunk

_ANCHORS_KEPT = 64


class LearnedPolicy:
    """See the module.

    Args:
        contract: what it is asked to see and emit.
        checkpoint: whose sizes, statistics and contract hold.
        model: its network.
        added_words: see `LearnedParameters`.

    Raises:
        ContractError: if the contract isn't the checkpoint's, or the network's sizes don't fit it.
    """

    def __init__(self, contract: Contract, checkpoint: Checkpoint, model: ModelRuntime, added_words: str = "") -> None:
        check_fit(contract, checkpoint)
        self.contract = contract
        self._spec = checkpoint.card.spec
        self._model = model
        # By the formulas of the training, whatever the contract in force says of what happens inside.
        self._state = checkpoint.statistics.state_normaliser(checkpoint.contract)
        self._action = checkpoint.statistics.action_normaliser(checkpoint.contract)
        self._added_words = added_words
        self._words: Any = None
        self._note = ""
        self._rng = np.random.default_rng(0)
        # Where the tool was at the last observations: chunks that answer them are relative to it.
        self._anchors: OrderedDict[int, FloatArray] = OrderedDict()
        # A network that was trained with prefixes up to some length knows none that are longer.
        self._longest_prefix = int(checkpoint.card.config.get("prefix_steps", self._spec.horizon))

    @classmethod
    def from_parameters(cls, contract: Contract, parameters: dict[str, Any]) -> LearnedPolicy:
        """Made from the parameters of a policy's YAML; loads the network.

        Raises:
            ConfigError: for a parameter that isn't known, or a checkpoint that isn't whole.
            ContractError: if the contract isn't the one it was trained under.
            MissingDependencyError: if what is to run the network isn't installed.
        """
        settings = build(LearnedParameters, parameters, WHERE)
        checkpoint = read_checkpoint(Path(settings.checkpoint).expanduser())
        check_fit(contract, checkpoint)
        return cls(contract, checkpoint, load_runtime(checkpoint, settings), settings.added_words)

    @staticmethod
    def check_parameters(contract: Contract, parameters: dict[str, Any]) -> None:
        """Finds what `from_parameters` would refuse, short of the weights themselves. Raises the same."""
        settings = build(LearnedParameters, parameters, WHERE)
        checkpoint = read_checkpoint(Path(settings.checkpoint).expanduser(), with_weights=False)
        check_fit(contract, checkpoint)
        if runs_onnx(checkpoint, settings) or importlib.util.find_spec("torch") is None:
            load_runtime(checkpoint, settings)

    @property
    def runtime(self) -> str:
        """`torch` or `onnx`: what runs the network."""
        return self._model.name

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`. The same seed draws the same noise, whatever runs the network."""
        self._words = None
        if not task.strip():
            raise InstructionError(task, "is empty", "say what to do")
        self._words = np.array([self._spec.word_ids(f"{task} {self._added_words}")], dtype=np.int64)
        self._note = task if self._spec.takes_language else "does its one task, whatever it is told"
        self._rng = np.random.default_rng(seed)
        self._anchors.clear()

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`.

        Raises:
            ContractError: if the observation isn't what the network takes.
        """
        if self._words is None:
            return ActionChunk(np.zeros((0, self._spec.action_width)), is_idle=True, note="no task")
        inputs = ModelInputs(self._images(observation), self._normalised_state(observation), self._words)
        shape = (1, self._spec.horizon, self._spec.action_width)
        noise = self._rng.standard_normal(shape, dtype=np.float32)
        prefix = self._prefix(observation, context)
        answer = np.asarray(self._model.sample(inputs, noise, prefix)[0], dtype=np.float64)
        return ActionChunk(np.asarray(self._action.unnormalise(answer), dtype=np.float64), note=self._note)

    def _images(self, observation: Observation) -> Float32Array:
        height, width = self._spec.image_size
        images = np.empty((1, len(self._spec.images), 3, height, width), dtype=np.float32)
        for index, name in enumerate(self._spec.images):
            image = observation.images[name].image
            if image.shape != (height, width, 3):
                raise ContractError(
                    f"image {name!r} is {image.shape[1]}x{image.shape[0]}, the network takes {width}x{height}; "
                    f"give the contract's image that width and height"
                )
            np.multiply(image.transpose(2, 0, 1), np.float32(1.0 / 255.0), out=images[0, index])
        return images

    def _normalised_state(self, observation: Observation) -> Float32Array:
        if not self.contract.observation.state:
            return np.zeros((1, self._spec.state_width), dtype=np.float32)
        if observation.state.shape != (self._spec.state_width,):
            raise ContractError(
                f"the state has {observation.state.shape[0]} numbers, the network takes {self._spec.state_width}; "
                "is this the arm that it was trained for?"
            )
        return np.asarray(self._state.normalise(observation.state), dtype=np.float32)[None]

    def _prefix(self, observation: Observation, context: InferenceContext) -> ModelPrefix | None:
        """How the answer begins: as the chunk being executed goes on, where that is known and the network can."""
        self._anchors[observation.stamp_ns] = observation.T_base_tcp
        while len(self._anchors) > _ANCHORS_KEPT:
            self._anchors.popitem(last=False)
        if self._model.prefix_way == "none":
            return None
        try:
            found = committed_prefix(
                self._anchored(context.committed),
                observation.stamp_ns,
                context.expected_delay_s,
                self.contract.action,
                self._spec.horizon,
                lambda chunk: self._encode(chunk, observation),
                self._action.normalise,
                observation.gripper_opening,
            )
        except ChunkError:  # It can't be written in the contract's form about this observation: begin anew.
            return None
        if found is None:
            return None
        weights = found.weights(context.execution_horizon_steps).astype(np.float32)
        return ModelPrefix(found.actions[None].astype(np.float32), min(found.count, self._longest_prefix), weights)

    def _anchored(self, committed: ToolChunk | JointChunk | None) -> ToolChunk | JointChunk | None:
        """The chunk with its anchor: the tool's pose at the observation that it answered."""
        is_lacking = isinstance(committed, ToolChunk) and committed.frame != "absolute"
        if not isinstance(committed, ToolChunk) or not is_lacking or committed.T_base_anchor is not None:
            return committed
        anchor = self._anchors.get(committed.stamp_ns)
        return None if anchor is None else replace(committed, T_base_anchor=anchor)

    def _encode(self, chunk: ToolChunk | JointChunk, observation: Observation) -> FloatArray:
        spec = self.contract.action
        if isinstance(chunk, ToolChunk):
            return encode_tool_chunk(chunk, spec, observation.T_base_tcp).actions
        place = observation.state_layout.get("joint_positions")
        if place is None and spec.relative_to != "nothing":
            raise ChunkError("the observation has no joint positions to which actions could be relative")
        positions = chunk.positions[0] if place is None else observation.state[place]
        return encode_joint_chunk(chunk, spec, positions).actions
