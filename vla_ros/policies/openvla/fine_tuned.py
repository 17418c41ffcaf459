"""What lies beside weights that were fine-tuned here: what their actions mean, and how a policy is made of them.

An adapter's folder, as a merged checkpoint's, has beside peft's or the hub's files

    contract.yaml             what was observed and what an action means
    dataset_statistics.json   the actions' statistics under the dataset's name, as OpenVLA's own fine-tuning writes them
    fine_tuned.json           the base, how its weights were quantised, and what of the image was shown
    policy.yaml               a policy of kind openvla, ready to be run
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_ros import __version__
from vla_ros.config import build, plain
from vla_ros.contract import Contract, save_contract
from vla_ros.errors import ContractError
from vla_ros.policies.checkpoint import git_version
from vla_ros.policies.fit import CONTRACT_FILE, find_contract_differences
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.openvla.checkpoint import STATISTICS_FILE, read_json
from vla_ros.policies.openvla.lora import CONFIG_FILE
from vla_ros.policies.openvla.parameters import OpenVLAParameters
from vla_ros.policies.registry import PolicyConfig

CARD_FILE, POLICY_FILE = "fine_tuned.json", "policy.yaml"


@dataclass(frozen=True)
class FineTunedCard:
    """What `fine_tuned.json` says.

    Attributes:
        base: folder of the checkpoint that was fine-tuned.
        adapter: the adapter's name.
        dataset: name of its statistics.
        quantisation: of the base's weights while it was trained, `none` or a name of `quantisation.SCHEMES`.
        centre_area: part of the image's area that the policy has to be shown.
        image: the contract's image that it saw.
        rate_hz: how often the policy is asked.
        vla_ros: version that wrote it.
        git: commit that wrote it; null where that isn't known.
    """

    base: str
    adapter: str
    dataset: str
    quantisation: str = "none"
    centre_area: float = 1.0
    image: str = ""
    rate_hz: float = 5.0
    vla_ros: str = __version__
    git: str | None = None


def read_card(folder: Path | str) -> FineTunedCard | None:
    """The card of a folder, None for one that comes from elsewhere. Raises ConfigError if it can't be read."""
    path = Path(folder).expanduser() / CARD_FILE
    return build(FineTunedCard, read_json(path), str(path)) if path.is_file() else None


def follow_card(parameters: OpenVLAParameters) -> OpenVLAParameters:
    """Parameters whose checkpoint is a folder that was fine-tuned here, filled up with what its card says.

    The base, the adapter and how the base was quantised, where it is an adapter's folder; the part of the image, where
    the parameters leave that open; anything else is as it was.

    Raises:
        ConfigError: for a card that can't be read.
    """
    folder = Path(parameters.checkpoint).expanduser()
    card = read_card(folder)
    if card is None:
        return parameters
    area = card.centre_area if parameters.centre_area is None else parameters.centre_area
    filled = dataclasses.replace(parameters, centre_area=area, image=parameters.image or card.image)
    if not (folder / CONFIG_FILE).is_file():
        return filled
    quantisation = card.quantisation if filled.quantisation == "none" else filled.quantisation
    return dataclasses.replace(
        filled,
        checkpoint=card.base,
        adapters={card.adapter: str(folder), **filled.adapters},
        adapter=filled.adapter or card.adapter,
        quantisation=quantisation,
    )


def read_norm_stats(folder: Path | str) -> dict[str, Any]:
    """The statistics by dataset that lie in an adapter's folder, none if there is no such file."""
    path = Path(folder).expanduser() / STATISTICS_FILE
    return read_json(path) if path.is_file() else {}


def check_meaning(folder: Path | str, contract: Contract) -> bool:
    """Whether the folder says what its actions mean, which is then the contract's.

    Raises:
        ContractError: if it says something else, with every line that differs.
    """
    folder = Path(folder).expanduser()
    differing = find_contract_differences(folder, contract)
    if differing:
        lines = "\n".join(differing)
        raise ContractError(
            f"contract {contract.name} isn't the one that {folder} was fine-tuned under; use {folder / CONTRACT_FILE}. "
            f"Where they differ, the folder's first:\n{lines}"
        )
    return (folder / CONTRACT_FILE).is_file()


def write_meaning(folder: Path, card: FineTunedCard, contract: Contract, action: Statistics) -> None:
    """Writes all four files beside an adapter's weights.

    Args:
        folder: the adapter's, which is there already.
        card: what is known; version and commit are filled in.
        contract: of the data.
        action: statistics of the actions as the contract has them, with the mask of those that are normalised.
    """
    named = {"minimum": "min", "maximum": "max"}
    numbers = {named.get(key, key): value for key, value in action.to_json().items() if key != "count"}
    statistics = {card.dataset: {"action": numbers, "num_transitions": action.count}}
    (folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=1) + "\n", encoding="utf-8")
    save_contract(contract, folder / CONTRACT_FILE)
    _write_card(folder, dataclasses.replace(card, vla_ros=__version__, git=git_version()))
    _write_policy(folder, card)


def copy_meaning(adapter: Path, target: Path) -> None:
    """Gives a merged checkpoint what its adapter says of its actions; nothing if that one comes from elsewhere.

    Args:
        adapter: folder of the adapter.
        target: folder of the merged checkpoint.
    """
    for file in (STATISTICS_FILE, CONTRACT_FILE):
        if (adapter / file).is_file():
            shutil.copy2(adapter / file, target / file)
    card = read_card(adapter)
    if card is not None:
        _write_card(target, card)
        _write_policy(target, card)


def _write_card(folder: Path, card: FineTunedCard) -> None:
    (folder / CARD_FILE).write_text(json.dumps(dataclasses.asdict(card), indent=1) + "\n", encoding="utf-8")


def _write_policy(folder: Path, card: FineTunedCard) -> None:
    name = re.sub(r"\W", "_", card.adapter, flags=re.ASCII)
    name = name if re.match(r"[A-Za-z]", name) else f"openvla_{name}"
    config = PolicyConfig(name, "openvla", CONTRACT_FILE, card.rate_hz, 0, {"checkpoint": "."})
    text = yaml.safe_dump(plain(dataclasses.asdict(config)), sort_keys=False)
    (folder / POLICY_FILE).write_text(text, encoding="utf-8")
