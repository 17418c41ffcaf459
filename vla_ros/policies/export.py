"""A checkpoint's network as one ONNX file beside its weights, so that it runs faster on a CPU, and without torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxscript  # noqa: F401 - torch's exporter imports it late, and says less when it is missing.
import torch

from vla_ros.errors import VlaRosError
from vla_ros.files import whole_file
from vla_ros.policies.architectures.base import EXPORT_OUTPUTS, Architecture, SampleModule, export_inputs
from vla_ros.policies.checkpoint import ONNX, Checkpoint, read_checkpoint
from vla_ros.policies.model_runtime import Float32Array, ModelInputs, ModelPrefix
from vla_ros.policies.onnx_model import MODEL_HASH, SUPPORTS_PREFIX, OnnxModel, model_hash
from vla_ros.policies.torch_model import TorchModel, load_model

_OPSET = 20
# Normalised actions are of size 1 and are computed in float32 in another order; a fault would be far larger.
TOLERANCE = 1e-3
_CHECKS = 4
_LEAST_HALVED = 64


class ExportError(VlaRosError):
    """A network that can't be exported, or whose export doesn't answer as it does."""


@dataclass(frozen=True)
class Example:
    """Something to ask a network."""

    inputs: ModelInputs
    noise: Float32Array
    prefix: ModelPrefix | None


def export_onnx(folder: Path) -> Path:
    """Exports the network of a checkpoint; the policy kind `learned` then takes the export by itself.

    The file is written once its answers to seeded inputs are those of torch, and is there whole or not at all.

    Args:
        folder: the checkpoint's.

    Returns:
        The file's path, `model.onnx` in that folder.

    Raises:
        ConfigError: if the checkpoint isn't whole.
        ExportError: if torch can't export it, the export answers otherwise, or the folder can't be written to.
    """
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    try:
        with whole_file(folder / ONNX) as partial:
            _write(model, checkpoint, partial)
            _check(TorchModel(model, "cpu", threads=0), OnnxModel(partial, threads=1), examples(model), folder)
    except OSError as error:
        raise ExportError(
            f"{folder / ONNX} can't be written ({error.strerror or error}); export a copy elsewhere"
        ) from error
    return folder / ONNX


def examples(model: Architecture, count: int = _CHECKS, seed: int = 0) -> list[Example]:
    """Seeded questions of the right shapes, every second with a prefix where the network takes one."""
    spec, rng = model.spec, np.random.default_rng(seed)
    chunk = (1, spec.horizon, spec.action_width)
    found = []
    for index in range(count):
        inputs = ModelInputs(
            rng.random((1, len(spec.images), 3, *spec.image_size), dtype=np.float32),
            rng.standard_normal((1, spec.state_width), dtype=np.float32),
            rng.integers(0, len(spec.vocabulary) + 1, (1, spec.max_words)),
        )
        if spec.vocabulary:
            # An instruction has a word at least.
            inputs.words[0, 0] = 1 + index % len(spec.vocabulary)
        prefix = None
        if model.supports_prefix and index % 2:
            begun = int(rng.integers(1, spec.horizon + 1))
            weights = np.ones(spec.horizon, dtype=np.float32)
            prefix = ModelPrefix(rng.standard_normal(chunk, dtype=np.float32), begun, weights)
        found.append(Example(inputs, rng.standard_normal(chunk, dtype=np.float32), prefix))
    return found


def _write(model: Architecture, checkpoint: Checkpoint, path: Path) -> None:
    example = export_inputs(model)
    try:
        program = _program(SampleModule(model).eval(), example)
    except Exception as error:  # Whatever torch raises here, the user needs to know which network.
        cause = " ".join(str(error).split())[:400]
        raise ExportError(
            f"{checkpoint.card.architecture} of {checkpoint.folder} can't be exported by torch {torch.__version__} "
            f"({type(error).__name__}: {cause}); run it with runtime: torch"
        ) from error
    metadata = {MODEL_HASH: model_hash(checkpoint), SUPPORTS_PREFIX: str(model.supports_prefix).lower()}
    for key, value in metadata.items():
        entry = program.metadata_props.add()
        entry.key, entry.value = key, value
    _make_small(program.graph)
    onnx.save_model(program, path)


def _make_small(graph: onnx.GraphProto) -> None:
    """Constants that float16 holds exactly are stored so and widened as the model is loaded; remarks are left out."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _LEAST_HALVED or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.widen", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    for node in nodes:
        # Where in torch each came from: more than a small network's weights.
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del graph.node[:]
    graph.node.extend(nodes)


def _program(module: SampleModule, example: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                module,
                tuple(example.values()),
                input_names=list(example),
                output_names=list(EXPORT_OUTPUTS),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
                optimize=True,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    if exported is None:
        raise ExportError("torch gave no program")
    return exported.model_proto


def _check(ours: TorchModel, exported: OnnxModel, asked: list[Example], folder: Path) -> None:
    """Holds the export's answers against torch's.

    Raises:
        ExportError: if one differs by more than `TOLERANCE` of the answer's size.
    """
    for index, example in enumerate(asked):
        wanted = ours.sample(example.inputs, example.noise, example.prefix)
        found = exported.sample(example.inputs, example.noise, example.prefix)
        size = 1.0 + float(np.abs(wanted).max())
        error = float(np.abs(found - wanted).max()) / size if found.shape == wanted.shape else np.inf
        if not error <= TOLERANCE:
            raise ExportError(
                f"the export of {folder} answers otherwise than torch: check {index} differs by {error:.2g} of its "
                f"size (limit {TOLERANCE:g}); run it with runtime: torch"
            )
