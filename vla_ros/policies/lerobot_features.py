"""What a LeRobot policy folder takes and gives, and whether a contract gives and takes the same. Without lerobot."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from vla_ros.contract import Contract, StateItem, action_width, item_width
from vla_ros.errors import ConfigError, ContractError
from vla_ros.policies.fit import differing_line, find_contract_differences, find_width_differences
from vla_ros.types import FloatArray, ImageArray, Observation

OBS_STATE, ACTION = "observation.state", "action"
# Their networks mask a camera that isn't there; the others of lerobot 0.4.4 fail.
_CAN_LACK_CAMERAS = frozenset({"pi0", "pi05", "pi0_fast", "smolvla", "xvla"})
_IMAGE_PREFIXES = ("observation.images.", "observation.image.", "observation.")
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"


@dataclass(frozen=True)
class LeRobotParameters:
    """What the YAML of a `lerobot` policy says.

    Attributes:
        checkpoint: folder of the policy, as lerobot's `save_pretrained` writes it (`.../pretrained_model`).
        device: torch's name of where it runs.
        environment: folder of an environment that has lerobot, or its Python; empty to run in this one.
        downloads: whether lerobot may fetch what the folder only names, such as a tokenizer of the hub; once will do.
        start_timeout_s: until a policy in another environment has to be loaded.
        deadline_s: longest wait for an answer from there.
        images: LeRobot feature -> the contract's image, null for a camera that the policy can do without. One that
            isn't named here goes with the contract's image of the same name: `observation.images.top` with `top`.
        state: LeRobot feature -> the contract's state items that make it up, in order. By default
            `observation.state` is the contract's whole state.
    """

    checkpoint: str
    device: str = "cpu"
    environment: str = ""
    downloads: bool = False
    start_timeout_s: float = 600.0
    deadline_s: float = 5.0
    images: dict[str, str | None] = field(default_factory=dict)
    state: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyFeatures:
    """What `config.json` of a LeRobot policy folder says.

    Attributes:
        kind: LeRobot's name of the architecture, as `act`.
        images: feature -> (channels, height, width).
        vectors: feature -> width, of the inputs that aren't images.
        action_width: entries of an action.
        observation_steps: `n_obs_steps`, observations that go into one answer.
    """

    kind: str
    images: Mapping[str, tuple[int, ...]]
    vectors: Mapping[str, int]
    action_width: int
    observation_steps: int


@dataclass(frozen=True)
class FeatureMap:
    """From the contract's names to LeRobot's.

    Attributes:
        images: feature -> the contract's image.
        vectors: feature -> the contract's state items, in order.
    """

    images: Mapping[str, str]
    vectors: Mapping[str, tuple[str, ...]]

    def gather(self, observation: Observation) -> dict[str, FloatArray | ImageArray]:
        """The features of one observation: images (h, w, 3) uint8, vectors (d,) float64."""
        gathered: dict[str, FloatArray | ImageArray] = {
            feature: observation.images[name].image for feature, name in self.images.items()
        }
        for feature, items in self.vectors.items():
            gathered[feature] = np.concatenate([observation.state[observation.state_layout[item]] for item in items])
        return gathered


def read_features(folder: Path) -> PolicyFeatures:
    """Reads `config.json` and sees that the processors are there.

    Raises:
        ConfigError: if the folder isn't a LeRobot policy's, or one from before its processors were files.
    """
    path = folder / "config.json"
    mend = "give the folder that lerobot saved a policy in (`.../pretrained_model`)"
    if not path.is_file():
        raise ConfigError(str(folder), "has no config.json", mend)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        inputs = {name: tuple(map(int, entry["shape"])) for name, entry in config["input_features"].items()}
        images = {name for name, entry in config["input_features"].items() if entry["type"] == "VISUAL"}
        features = PolicyFeatures(
            kind=str(config["type"]),
            images={name: shape for name, shape in inputs.items() if name in images},
            vectors={name: int(np.prod(shape)) for name, shape in inputs.items() if name not in images},
            action_width=int(config["output_features"][ACTION]["shape"][0]),
            observation_steps=int(config.get("n_obs_steps", 1)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        problem = f"isn't a LeRobot policy's ({type(error).__name__}: {error})"
        raise ConfigError(str(path), problem, mend) from error
    missing = [name for name in (PREPROCESSOR, POSTPROCESSOR) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            str(folder),
            f"has no {' and no '.join(missing)}: it was saved by lerobot older than 0.4",
            f"python -m lerobot.processor.migrate_policy_normalization --pretrained-path {folder}",
        )
    return features


def match(features: PolicyFeatures, contract: Contract, parameters: LeRobotParameters) -> FeatureMap:
    """Maps the features to the contract's images and state items.

    Args:
        features: of the policy folder.
        contract: what it is asked to see and emit.
        parameters: the mapping as far as it was given.

    Raises:
        ContractError: with every line in which the policy folder and the contract differ.
    """
    differing: list[str] = []
    images = _match_images(features, contract, parameters, differing)
    vectors = _match_vectors(features, contract, parameters, differing)
    steps = contract.observation.history_steps
    if features.observation_steps != steps:
        differing.append(
            differing_line("n_obs_steps", features.observation_steps, f"{steps} (observation.history_steps)")
        )
    _match_widths(features, contract, vectors, differing)
    differing += find_contract_differences(Path(parameters.checkpoint).expanduser(), contract)
    unknown = [*parameters.images.keys() - features.images.keys(), *parameters.state.keys() - features.vectors.keys()]
    differing += [differing_line(name, "doesn't take it", "named in the parameters") for name in sorted(unknown)]
    if differing:
        raise ContractError(
            f"contract {contract.name} doesn't fit the {features.kind} policy in {parameters.checkpoint}:\n"
            + "\n".join(differing)
        )
    return FeatureMap(images, vectors)


def _match_images(
    features: PolicyFeatures, contract: Contract, parameters: LeRobotParameters, differing: list[str]
) -> dict[str, str]:
    specs, images = contract.observation.images, {}
    for feature, shape in features.images.items():
        name = parameters.images.get(feature, _default_image(feature, contract))
        if name is None and (feature in parameters.images or "empty_camera" in feature):
            if features.kind not in _CAN_LACK_CAMERAS:
                differing.append(differing_line(feature, f"{_size(shape)}, always", "null"))
            continue
        if name not in specs:
            have = "no such image" if name is None else f"no image {name!r}"
            differing.append(differing_line(feature, _size(shape), f"{have}, has {', '.join(sorted(specs))}"))
            continue
        images[feature] = name
        spec = specs[name]
        # A side of 0 is the camera's own, which the first observation shows.
        given = (3, spec.height or shape[-2], spec.width or shape[-1])
        if given != shape:
            differing.append(differing_line(feature, _size(shape), f"{_size(given)} (image {name!r})"))
    return images


def _default_image(feature: str, contract: Contract) -> str | None:
    for prefix in _IMAGE_PREFIXES:
        if feature.removeprefix(prefix) in contract.observation.images:
            return feature.removeprefix(prefix)
    return None


def _match_vectors(
    features: PolicyFeatures, contract: Contract, parameters: LeRobotParameters, differing: list[str]
) -> dict[str, tuple[str, ...]]:
    items = [item.kind for item in contract.observation.state]
    vectors: dict[str, tuple[str, ...]] = {}
    for feature, width in features.vectors.items():
        wanted = parameters.state.get(feature, tuple(items) if feature == OBS_STATE else ())
        unknown = [name for name in wanted if name not in items]
        if unknown or not wanted:
            have = f"no state item {', '.join(unknown)}" if unknown else "nothing for it"
            differing.append(differing_line(feature, width, f"{have}, has {', '.join(items)}"))
        else:
            vectors[feature] = wanted
    return vectors


def _match_widths(
    features: PolicyFeatures, contract: Contract, vectors: Mapping[str, tuple[str, ...]], differing: list[str]
) -> None:
    items: dict[str, StateItem] = {item.kind: item for item in contract.observation.state}
    widths: dict[str, tuple[int, Callable[[int], int]]] = {
        ACTION: (features.action_width, partial(action_width, contract.action))
    }
    for feature, names in vectors.items():
        widths[feature] = (features.vectors[feature], partial(_total_width, [items[name] for name in names]))
    differing += find_width_differences(widths)


def _total_width(items: list[StateItem], joints: int) -> int:
    return sum(item_width(item, joints) for item in items)


def check_shapes(features: PolicyFeatures, gathered: Mapping[str, FloatArray | ImageArray]) -> None:
    """Compares an observation's features with the folder's, where a contract alone doesn't tell a size.

    Raises:
        ContractError: with every line in which they differ.
    """
    differing = []
    for feature, value in gathered.items():
        if feature in features.images:
            height, width, channels = value.shape
            if (channels, height, width) != features.images[feature]:
                differing.append(
                    differing_line(feature, _size(features.images[feature]), _size((channels, height, width)))
                )
        elif len(value) != features.vectors[feature]:
            differing.append(differing_line(feature, features.vectors[feature], len(value)))
    if differing:
        raise ContractError(f"the observation doesn't fit the {features.kind} policy:\n" + "\n".join(differing))


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
