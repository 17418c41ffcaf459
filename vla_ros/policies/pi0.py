"""The policy kind `pi0`: a pi0 checkpoint through transformers' own model, from a local folder. Imports torch.

The folder is what `PI0ForConditionalGeneration.save_pretrained` writes (config.json, safetensors), with its tokenizer,
and with `statistics.json` of the state vector and the action beside them.

Source: Black et al. 2024, "pi0: A Vision-Language-Action Flow Model for General Robot Control", arXiv 2410.24164. As in
openpi, and unlike in the paper, time runs from 1 (noise) to 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.config import build
from vla_ros.contract import Contract, ImageSpec
from vla_ros.errors import ConfigError, ContractError, InstructionError, MissingDependencyError
from vla_ros.observation.image import prepare_frame
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.device import find_device
from vla_ros.policies.normalisation import Normaliser
from vla_ros.policies.pi0_checkpoint import Pi0Parameters, read_checkpoint
from vla_ros.types import ActionChunk, CameraFrame, ImageArray, Observation

try:
    from transformers import AutoTokenizer, PI0ForConditionalGeneration
except ImportError as error:
    raise MissingDependencyError(
        "transformers 5.23 or newer", "policies of kind pi0", "python -m pip install 'vla_ros[learn]'"
    ) from error

_WHERE = "policy pi0: parameters"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Pi0Policy:
    """See the module.

    Args:
        contract: what it is asked to see and emit; its normalisation says by which formulas.
        parameters: folder and settings.

    Raises:
        ContractError: if the contract's widths or images aren't what the checkpoint takes, naming each.
        ConfigError: if the folder isn't a whole pi0 checkpoint.
    """

    def __init__(self, contract: Contract, parameters: Pi0Parameters) -> None:
        find_device(parameters.device, f"{_WHERE}: device")
        checkpoint = read_checkpoint(contract, parameters)
        self.contract = contract
        self._parameters = parameters
        self._images = checkpoint.images
        self._state = Normaliser(contract.normalisation.state, checkpoint.state)
        self._action = Normaliser(contract.normalisation.action, checkpoint.action)
        self._state_width, self._action_width = checkpoint.state.width, checkpoint.action.width
        tokenizer = _load_tokenizer(checkpoint.folder)
        self._model = _load_model(checkpoint.folder, parameters)
        self._prompt = _PromptEncoder(tokenizer, self._model.config, parameters.longest_prompt)
        self._task: str | None = None
        self._ids: list[int] = []
        self._generator = torch.Generator()

    @classmethod
    def from_parameters(cls, contract: Contract, parameters: dict[str, Any]) -> Pi0Policy:
        """Made from the parameters of a policy's YAML. Raises ConfigError for one that isn't known."""
        return cls(contract, build(Pi0Parameters, parameters, _WHERE))

    @staticmethod
    def check_parameters(contract: Contract, parameters: dict[str, Any]) -> None:
        """Finds what `from_parameters` would refuse, short of the weights themselves. Raises the same."""
        settings = build(Pi0Parameters, parameters, _WHERE)
        find_device(settings.device, f"{_WHERE}: device")
        _load_tokenizer(read_checkpoint(contract, settings).folder)

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`. The noise is drawn from the seed, on the CPU, so that it is the same on every device."""
        self._task = None
        self._ids = self._prompt.encode(task, len(self._images))
        self._task = task
        self._generator.manual_seed(seed)

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`. The actions are (chunk_size, action width), in the contract's own units.

        Raises:
            ContractError: if the state vector isn't as long as the statistics'.
        """
        if self._task is None:
            return ActionChunk(np.zeros((0, self._action_width)), is_idle=True, note="no task")
        inputs = self.prepare(observation)
        config = self._model.config
        shape = (1, config.chunk_size, config.max_action_dim)
        noise = torch.randn(shape, generator=self._generator).to(inputs["state"])
        # From noise at time 1 to actions at time 0, past the images and words once: x <- x - v(x, t) / steps.
        sample = self._model.sample_actions(**inputs, noise=noise, num_steps=self._parameters.steps)
        actions = sample[0, :, : self._action_width].to("cpu", torch.float64).numpy()
        return ActionChunk(np.asarray(self._action.unnormalise(actions), np.float64), note=self._task)

    def prepare(self, observation: Observation) -> dict[str, torch.Tensor]:
        """The model's inputs for one observation under the task in force, a batch of one.

        Returns:
            state (1, max_state_dim), normalised and padded by zeros; input_ids (1, tokens), the images' places first;
            attention_mask (1, tokens); pixel_values (1, cameras, 3, side, side) in [-1, 1]; pixel_attention_mask
            (1, cameras).
        """
        config, dtype = self._model.config, _DTYPES[self._parameters.dtype]
        width = self._state_width
        if len(observation.state) != width:
            raise ContractError(
                f"the state vector has {len(observation.state)} entries, the statistics of pi0's checkpoint {width}"
            )
        state = np.zeros(config.max_state_dim)
        state[:width] = self._state.normalise(observation.state)
        side = int(config.vlm_config.vision_config.image_size)
        pixels = np.stack([_fit_in(observation.images[name], side) for name in self._images])
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        ids = torch.tensor([self._ids])
        inputs = {
            "state": torch.from_numpy(state).to(dtype)[None],
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": values.to(dtype)[None],
            "pixel_attention_mask": torch.ones((1, len(self._images)), dtype=torch.bool),
        }
        return {name: tensor.to(self._parameters.device) for name, tensor in inputs.items()}


def _fit_in(frame: CameraFrame, side: int) -> ImageArray:
    """(side, side, 3) with black bars on both sides, as openpi does; transformers' own processor puts them on one."""
    is_larger = max(frame.image.shape[:2]) > side
    spec = ImageSpec("", side, side, resize="pad", interpolation="area" if is_larger else "linear")
    return prepare_frame(frame, spec).image


class _PromptEncoder:
    """Token ids: the places of the images, then the beginning of a text, the instruction and a line's end."""

    def __init__(self, tokenizer: Any, config: Any, longest: int) -> None:
        self._tokenizer = tokenizer
        vision = config.vlm_config.vision_config
        self._image_ids = [config.vlm_config.image_token_id] * (vision.image_size // vision.patch_size) ** 2
        self._vocabulary_size = int(config.vlm_config.text_config.vocab_size)
        self._longest = longest

    def encode(self, task: str, cameras: int) -> list[int]:
        """Raises InstructionError for an instruction that is empty, too long, or outside of the vocabulary."""
        # As openpi's tokenizer does: https://github.com/Physical-Intelligence/openpi, models/tokenizer.py.
        text = task.strip().replace("_", " ").replace("\n", " ")
        if not text:
            raise InstructionError(task, "is empty", "say what is to be done")
        ids: list[int] = [
            self._tokenizer.bos_token_id,
            *self._tokenizer(text + "\n", add_special_tokens=False).input_ids,
        ]
        if len(ids) > self._longest:
            raise InstructionError(
                task[:40] + " ...", f"takes {len(ids)} tokens (limit {self._longest}, longest_prompt)", "shorten it"
            )
        if max(ids) >= self._vocabulary_size:
            raise InstructionError(
                task,
                f"has token {max(ids)}, the model knows {self._vocabulary_size}",
                "is the tokenizer the model's own?",
            )
        return [*self._image_ids * cameras, *ids]


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        problem = f"has no tokenizer that loads ({' '.join(str(error).split())[:200]})"
        raise ConfigError(str(folder), problem, "save the checkpoint's tokenizer into it (save_pretrained)") from error


def _load_model(folder: Path, parameters: Pi0Parameters) -> Any:
    try:
        # With `output_loading_info` it returns two things, which its annotation doesn't know.
        load: Any = PI0ForConditionalGeneration.from_pretrained
        model, report = load(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=_DTYPES[parameters.dtype],
            output_loading_info=True,
        )
        model.to(parameters.device)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            str(folder), f"pi0 doesn't load from it ({said})", "copy the checkpoint again, whole"
        ) from error
    # transformers fills what is missing with random numbers, and warns.
    wrong = [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report.get(key, ())]
    if wrong:
        raise ConfigError(
            str(folder),
            f"{len(wrong)} weights aren't pi0's or are missing, the first {sorted(map(str, wrong))[0]}",
            "convert it for transformers, or copy it again",
        )
    return model.eval()
