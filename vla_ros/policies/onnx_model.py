"""An exported network, run by ONNX Runtime: no torch needed."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vla_ros.errors import ConfigError
from vla_ros.policies.checkpoint import ONNX, Checkpoint
from vla_ros.policies.model_runtime import Float32Array, ModelInputs, ModelPrefix, PrefixWay

# Keys of the file's metadata.
MODEL_HASH, SUPPORTS_PREFIX = "vla_ros.model_hash", "vla_ros.supports_prefix"
_SEVERE = 3  # Of ONNX Runtime's levels: errors only. Its warnings about constants are for whoever exports.


def model_hash(checkpoint: Checkpoint) -> str:
    """What an exported model has to agree with: the weights, the network's configuration and its sizes."""
    text = json.dumps({"weights": checkpoint.card.weights_hash, **checkpoint.description}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class OnnxModel:
    """See the module.

    Args:
        path: of the exported file.
        threads: for one inference; 0 for as many as there are cores.
        prefix: `auto`, `trained` or `none`, as in a learned policy's parameters.

    Raises:
        ConfigError: if the file isn't one that was exported here, or can't do what `prefix` asks for.
    """

    name = "onnx"

    def __init__(self, path: Path, threads: int, prefix: str = "auto") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _SEVERE
        # Threads that wait for the next inference by spinning would take their cores from the control loops.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # Its exceptions have no base of their own.
            raise ConfigError(str(path), f"isn't an ONNX model that runs ({error})", _export(path.parent)) from error
        self._metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._wanted = {item.name for item in self._session.get_inputs()}
        if MODEL_HASH not in self._metadata:
            raise ConfigError(str(path), f"has no {MODEL_HASH} in its metadata", _export(path.parent))
        supports = self._metadata.get(SUPPORTS_PREFIX) == "true"
        if prefix == "trained" and not supports:
            raise ConfigError(str(path), "prefix is trained, and this network wasn't trained for it", "use prefix auto")
        self.prefix_way: PrefixWay = "trained" if supports and prefix != "none" else "none"

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, threads: int, prefix: str = "auto") -> OnnxModel:
        """The exported model of a checkpoint.

        Raises:
            ConfigError: if there is none, or it was exported from other weights or another configuration.
        """
        if checkpoint.onnx is None:
            raise ConfigError(f"checkpoint {checkpoint.folder}", f"{ONNX} is missing", _export(checkpoint.folder))
        model = cls(checkpoint.onnx, threads, prefix)
        if model._metadata[MODEL_HASH] != model_hash(checkpoint):
            problem = "is stale: it was exported from other weights or another configuration"
            raise ConfigError(str(checkpoint.onnx), problem, _export(checkpoint.folder))
        return model

    def sample(self, inputs: ModelInputs, noise: Float32Array, prefix: ModelPrefix | None) -> Float32Array:
        """See `ModelRuntime.sample`."""
        given: dict[str, Any] = {
            "images": inputs.images,
            "state": inputs.state,
            "words": inputs.words,
            "noise": noise,
            "prefix_actions": np.zeros_like(noise) if prefix is None else prefix.actions,
            "prefix_count": np.array([0 if prefix is None else prefix.count], dtype=np.int64),
        }
        # What a network doesn't look at isn't among its inputs.
        (actions,) = self._session.run(None, {name: given[name] for name in self._wanted})
        return np.asarray(actions, dtype=np.float32)


def _export(folder: Path) -> str:
    return f"vla-ros policies export {shlex.quote(str(folder))}"
