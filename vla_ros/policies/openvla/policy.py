"""The policy `openvla`: an image and an instruction in, one action out, through a checkpoint of OpenVLA's structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.config import build
from vla_ros.contract import Contract, NormalisationSpec
from vla_ros.errors import (
    ChunkError,
    ConfigError,
    ContractError,
    MissingDependencyError,
    UnknownNameError,
    VlaRosError,
)
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.normalisation import Normaliser, Statistics
from vla_ros.policies.openvla.parameters import OpenVLAParameters, check_contract
from vla_ros.policies.representations.bins import VocabularyBins
from vla_ros.types import ActionChunk, Observation

try:
    import torch

    from vla_ros.policies.device import find_device
    from vla_ros.policies.openvla.adapters import Adapters
    from vla_ros.policies.openvla.checkpoint import Checkpoint, find_dtype, load_model, read_checkpoint, read_json
    from vla_ros.policies.openvla.fine_tuned import check_meaning, follow_card, read_norm_stats
    from vla_ros.policies.openvla.lora import find_weights, read_settings
    from vla_ros.policies.openvla.preprocessing import ImagePreprocessor, PromptEncoder, parse_preprocessor
    from vla_ros.policies.openvla.quantisation import find_scheme, quantise
except ImportError as error:
    raise MissingDependencyError(error.name or str(error), "policy openvla", "pip install 'vla_ros[learn]'") from error

_WHERE = "policy openvla: parameters"
# Position, rotation and gripper.
ACTION_WIDTH = 7


class OpenVLAPolicy:
    """See the module. Deterministic: the likeliest token each time, whatever the seed.

    Args:
        contract: what it is asked to see and emit.
        parameters: checkpoint and options.
        on_progress: called while weights are loaded, with the part that is done.

    Raises:
        ConfigError: for a checkpoint or adapter that can't be loaded.
        UnknownNameError: for an unknown dataset, adapter or quantisation.
        ContractError: if the contract isn't what the dataset's actions mean, or lacks the image.
    """

    def __init__(
        self,
        contract: Contract,
        parameters: OpenVLAParameters,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        self.contract = contract
        parameters = follow_card(parameters)
        known = _read(contract, parameters)
        checkpoint, self._image, self._normalisers = known.checkpoint, known.image, known.normalisers
        self._encoder, self._preprocess = known.encoder, known.preprocess
        self._bins = VocabularyBins(checkpoint.config.action_vocabulary)
        self._longest = checkpoint.config.language.max_positions - checkpoint.config.patches - ACTION_WIDTH
        self._model = load_model(checkpoint, parameters.dtype, parameters.device, on_progress)
        self._adapters = Adapters(self._model)
        for name, folder in parameters.adapters.items():
            self._adapters.load(name, folder)
        if parameters.quantisation != "none":
            quantise(self._model, parameters.quantisation)
        self.use_adapter(parameters.adapter or None)
        self._ids: torch.Tensor | None = None

    @classmethod
    def from_parameters(cls, contract: Contract, parameters: dict[str, Any]) -> OpenVLAPolicy:
        """Makes it from the `parameters` of its YAML. Raises as the constructor does."""
        return cls(contract, build(OpenVLAParameters, parameters, _WHERE))

    @staticmethod
    def check_parameters(contract: Contract, parameters: dict[str, Any]) -> None:
        """Finds what `from_parameters` would refuse, short of the weights themselves. Raises the same."""
        _read(contract, follow_card(build(OpenVLAParameters, parameters, _WHERE)))

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters."""
        return self._adapters.names

    def use_adapter(self, name: str | None) -> None:
        """Switches to an adapter, or with None to the base, without loading anything.

        Raises:
            UnknownNameError: for a name that isn't loaded.
            VlaRosError: for one, or the base, of whose actions it isn't known what they mean; the text says why.
        """
        if name is not None and name not in self._adapters.names:
            raise UnknownNameError("adapter", name, self._adapters.names)
        normaliser = self._normalisers[name]
        if isinstance(normaliser, VlaRosError):
            raise normaliser
        self._adapters.use(name)
        self._normaliser = normaliser

    def reset(self, task: str, seed: int) -> None:
        """See Policy.reset. The instruction is put into OpenVLA's prompt; nothing else is remembered."""
        self._ids = None
        self._ids = torch.tensor([self._encoder.encode(task, self._longest)], device=self._model.device)

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See Policy.infer: one step.

        Raises:
            ChunkError: if the model says something that is no action.
        """
        if self._ids is None:
            return ActionChunk(np.zeros((0, ACTION_WIDTH)), is_idle=True, note="no task")
        pixels = torch.from_numpy(self._preprocess(observation.images[self._image].image)).to(self._model.device)
        tokens = self._model.generate(pixels[None], self._ids, ACTION_WIDTH)[0].cpu().numpy()
        try:
            actions = self._normaliser.unnormalise(self._bins.decode(tokens))
        except ChunkError as error:
            raise ChunkError(f"policy openvla: {error}") from error
        return ActionChunk(actions[None], note=self._adapters.active or "")


@dataclass(frozen=True)
class _Known:
    """What is known of a policy before its weights are read."""

    checkpoint: Checkpoint
    image: str
    normalisers: dict[str | None, Normaliser | VlaRosError]
    encoder: PromptEncoder
    preprocess: ImagePreprocessor


def _read(contract: Contract, parameters: OpenVLAParameters) -> _Known:
    """Reads all but the weights, and refuses what can be refused without them."""
    find_device(parameters.device, f"{_WHERE}: device")
    if parameters.quantisation != "none":
        find_scheme(parameters.quantisation)
    checkpoint = read_checkpoint(parameters.checkpoint)
    find_dtype(checkpoint, parameters.dtype)
    image = parameters.image or contract.observation.reference
    if image not in contract.observation.images:
        known = sorted(contract.observation.images)
        raise ContractError(f"contract {contract.name} has no image {image!r}; its images are {known}")
    for folder in parameters.adapters.values():
        read_settings(folder)
        find_weights(folder)
    normalisers = _find_normalisers(checkpoint, contract, parameters)
    encoder = PromptEncoder(checkpoint.folder / "tokenizer.json")
    path = checkpoint.folder / "preprocessor_config.json"
    edges_px = tuple(tower.image_px for tower in checkpoint.config.towers)
    preprocess = parse_preprocessor(read_json(path), edges_px, str(path), parameters.centre_area or 1.0)
    return _Known(checkpoint, image, normalisers, encoder, preprocess)


def _find_normalisers(
    checkpoint: Checkpoint, contract: Contract, parameters: OpenVLAParameters
) -> dict[str | None, Normaliser | VlaRosError]:
    """How the actions of the base (None) and of each adapter are read, or why they can't be.

    An adapter that was fine-tuned here has its own statistics and contract; any other one has the base's.

    Raises:
        VlaRosError: if it can't be for the one that is used first, or an adapter is of another contract.
    """
    found: dict[str | None, Normaliser | VlaRosError] = {}
    folders: dict[str | None, Path] = {None: checkpoint.folder}
    folders |= {name: Path(folder).expanduser() for name, folder in parameters.adapters.items()}
    for name, folder in folders.items():
        own = checkpoint if name is None else replace(checkpoint, folder=folder, norm_stats=read_norm_stats(folder))
        if not own.norm_stats and name is not None:
            found[name] = found[None]
            continue
        try:
            convention = parameters.convention
            if check_meaning(own.folder, contract) and convention == "auto":
                convention = "contract"
            # A name among several is asked for; an adapter has its own.
            key = parameters.unnorm_key
            dataset = choose_dataset(own, key if name is None or key in own.norm_stats else "")
            check_contract(contract, convention, dataset)
            found[name] = action_normaliser(own, dataset, contract)
        except (ConfigError, ContractError, UnknownNameError) as error:
            if name is not None:
                raise
            found[name] = error
    used = found[parameters.adapter or None]
    if isinstance(used, VlaRosError):
        raise used
    return found


def choose_dataset(checkpoint: Checkpoint, unnorm_key: str) -> str:
    """The dataset whose statistics are used.

    Raises:
        ConfigError: if the checkpoint has none, or several and none is named.
        UnknownNameError: if it hasn't the one that is named.
    """
    names = sorted(checkpoint.norm_stats)
    where = f"{checkpoint.folder}: norm_stats"
    if not names:
        raise ConfigError(where, "has no dataset", "put the run's dataset_statistics.json into the folder")
    if unnorm_key:
        if unnorm_key not in names:
            raise UnknownNameError("unnorm_key", unnorm_key, names)
        return unnorm_key
    if len(names) > 1:
        raise ConfigError(where, f"has {len(names)} datasets ({', '.join(names)})", "choose one by `unnorm_key`")
    return names[0]


def action_normaliser(checkpoint: Checkpoint, dataset: str, contract: Contract) -> Normaliser:
    """OpenVLA's formula with a dataset's statistics: `0.5 (a + 1) (q99 - q01) + q01` where their mask says so.

    Raises:
        ConfigError: if the statistics aren't those of seven entries, with quantiles.
        ContractError: if the contract asks for another formula or mask.
    """
    where = f"{checkpoint.folder}: norm_stats.{dataset}.action"
    spec = NormalisationSpec(formula="quantile")
    try:
        action = Statistics.from_json(checkpoint.norm_stats[dataset]["action"])
        normaliser = Normaliser(spec, action)
    except (ContractError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(where, f"can't be used ({error})", "give those of the training run") from error
    if action.width != ACTION_WIDTH:
        raise ConfigError(where, f"has {action.width} entries", f"only {ACTION_WIDTH} are supported")
    asked = contract.normalisation.action
    mask = tuple(np.ones(ACTION_WIDTH, bool) if action.mask is None else action.mask)
    if asked.formula != "none" and asked not in (spec, replace(spec, mask=mask)):
        raise ContractError(
            f"contract {contract.name} asks for actions normalised by {asked}, the checkpoint's are by {spec} with "
            f"mask {[bool(entry) for entry in mask]}; mend the contract's normalisation.action, or leave it out"
        )
    return normaliser
