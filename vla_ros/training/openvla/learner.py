"""OpenVLA with an adapter that is trained: a `vla_ros.training.learner.Learner`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_ros.contract import Contract
from vla_ros.errors import ContractError
from vla_ros.files import whole_folder
from vla_ros.policies.normalisation import Normaliser, Statistics
from vla_ros.policies.openvla.adapters import Adapters
from vla_ros.policies.openvla.checkpoint import load_model, read_checkpoint, read_json
from vla_ros.policies.openvla.fine_tuned import FineTunedCard, write_meaning
from vla_ros.policies.openvla.lora import write_adapter
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.parameters import check_contract
from vla_ros.policies.openvla.policy import action_normaliser
from vla_ros.policies.openvla.preprocessing import PromptEncoder, parse_preprocessor
from vla_ros.policies.openvla.quantisation import quantise
from vla_ros.policies.representations.bins import VocabularyBins
from vla_ros.training.examples import ExampleSet
from vla_ros.training.openvla.augmentation import NO_VARIATION
from vla_ros.training.openvla.batches import OpenVLABatches
from vla_ros.training.openvla.image_text import read_image_text
from vla_ros.training.openvla.losses import SpokenTokens, speak, token_losses
from vla_ros.training.openvla.mixture import Mixture
from vla_ros.training.openvla.settings import FineTuning
from vla_ros.training.openvla.tokens import TokenBatch, TokenMaker


class OpenVLALearner:
    """See the module. Only the adapter's weights are trained, kept for going on, and saved.

    Attributes:
        module: the model, as `model` too.
        adapters: of it.
        normaliser: of actions, as the policy will have it.
        bins: that actions are said in.

    Args:
        settings: what is fine-tuned, and how.
        examples: whose contract and statistics the adapter is for. Chunks are of one step.
        seed: of a new adapter's weights.
        device: as torch names it.

    Raises:
        ConfigError: for a checkpoint or an adapter that can't be loaded, or targets that are no layers.
        ContractError: for a contract whose actions OpenVLA can't say.
    """

    module: nn.Module

    def __init__(self, settings: FineTuning, examples: ExampleSet, seed: int = 0, device: str = "cpu") -> None:
        self.settings, self._contract = settings, examples.contract
        self._examples = examples
        self._checkpoint = read_checkpoint(settings.checkpoint)
        self._image = find_image(settings, examples.contract)
        self._dataset = settings.dataset or _name(examples)
        check_contract(self._contract, "contract", self._dataset)
        self._statistics = action_statistics(examples)
        self.normaliser = self._find_normaliser()
        self.bins = VocabularyBins(self._checkpoint.config.action_vocabulary)
        self.model: OpenVLA = load_model(self._checkpoint, settings.dtype, device)
        self.module = self.model
        self.adapters = Adapters(self.model)
        for name, folder in settings.adapters.items():
            self.adapters.load(name, folder)
        if settings.adapter not in settings.adapters:
            self.adapters.add(settings.adapter, settings.lora, seed)
        if settings.quantisation != "none":
            quantise(self.model, settings.quantisation)
        if settings.checkpointing:
            _recompute_activations(self.model)
        self.choose(settings.adapter)

    def choose(self, name: str) -> None:
        """Makes another of the loaded adapters the one that is trained and saved.

        Raises:
            UnknownNameError: for a name that isn't loaded.
        """
        self.adapters.train(name)
        self._name = name

    def batches(
        self, examples: ExampleSet | None = None, seed: int = 0, weights: Sequence[float] | None = None
    ) -> OpenVLABatches:
        """Batches of these or other examples, as the settings say: varied images, questions between.

        Args:
            examples: None for those that it was made for.
            seed: see `OpenVLABatches`.
            weights: likewise.
        """
        folder = self._checkpoint.folder
        config = self._checkpoint.config
        path = folder / "preprocessor_config.json"
        edges_px = tuple(tower.image_px for tower in config.towers)
        return OpenVLABatches(
            self._examples if examples is None else examples,
            self._image,
            TokenMaker(config, PromptEncoder(folder / "tokenizer.json"), self.normaliser, self.settings.learn_stop),
            parse_preprocessor(read_json(path), edges_px, str(path)),
            seed,
            self.settings.variation or NO_VARIATION,
            read_image_text(self.settings.questions) if self.settings.questions else (),
            Mixture(self.settings.share),
            weights,
        )

    def losses(self, batch: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """See Learner.losses and `token_losses`; without questions there is no term `answer`."""
        losses = token_losses(self.speak(batch), batch.is_action)
        if not self.settings.questions:
            del losses["answer"]
        return losses

    def speak(self, batch: TokenBatch) -> SpokenTokens:
        """What the model says at the tokens that count."""
        return speak(self.model, batch)

    def save(self, folder: Path) -> None:
        """Writes the adapter's folder; a policy of the kind openvla is made of its policy.yaml."""
        adapter = self.adapters.read(self._name)
        base = str(self._checkpoint.folder.resolve())
        card = FineTunedCard(
            base=base,
            adapter=self._name,
            dataset=self._dataset,
            quantisation=self.settings.quantisation,
            centre_area=self.settings.area,
            image=self._image,
            rate_hz=1.0 / self._contract.action.period_s,
        )
        with whole_folder(folder) as partial:
            write_adapter(partial, adapter, base, self.settings.lora.dropout)
            write_meaning(partial, card, self._contract, self._statistics)

    def describe(self) -> dict[str, Any]:
        """See Learner.describe."""
        adapter = self.adapters.read(self._name)
        return {
            "name": "openvla",
            "checkpoint": str(self._checkpoint.folder),
            "adapter": self._name,
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "layers": len(adapter.layers),
            "trained_parameters": sum(change.A.numel() + change.B.numel() for change in adapter.layers.values()),
            "quantisation": self.settings.quantisation,
            "dataset": self._dataset,
            "interface_hash": self._contract.interface_hash,
            "stats_hash": self._statistics.stats_hash(),
        }

    def _find_normaliser(self) -> Normaliser:
        """As the policy will have it, so that what it would refuse is refused before training."""
        known = {self._dataset: {"action": self._statistics.to_json()}}
        return action_normaliser(replace(self._checkpoint, norm_stats=known), self._dataset, self._contract)


def _recompute_activations(model: OpenVLA) -> None:
    """In training, of each block only what goes in is kept."""
    for part in (model.vision_backbone.featurizer, model.vision_backbone.fused_featurizer, model.language_model):
        # Its name up to transformers 5.22.
        old: Any = getattr(part, "gradient_checkpointing_enable", None)
        getattr(part, "activation_checkpointing_enable", old)({"use_reentrant": False})


def find_image(settings: FineTuning, contract: Contract) -> str:
    """The contract's image that is shown. Raises ContractError if it has none of that name."""
    image = settings.image or contract.observation.reference
    if image not in contract.observation.images:
        known = sorted(contract.observation.images)
        raise ContractError(f"contract {contract.name} has no image {image!r}; its images are {known}")
    return image


def action_statistics(examples: ExampleSet) -> Statistics:
    """Of the actions, with the mask of the contract; without one all but the gripper are normalised, as in OpenVLA."""
    statistics = examples.statistics().action
    if statistics is None:
        raise ContractError(f"examples of contract {examples.contract.name} have no actions")
    asked = examples.contract.normalisation.action.mask
    mask = np.array(asked if asked is not None else [True] * 6 + [False], dtype=bool)
    return replace(statistics, mask=mask[: statistics.width] if asked is None else mask)


def _name(examples: ExampleSet) -> str:
    """Of the datasets together, as a key."""
    return re.sub(r"\W+", "_", "_".join(part.path.resolve().name for part in examples.parts), flags=re.ASCII)
