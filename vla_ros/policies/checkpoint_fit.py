"""Whether a contract, a network's sizes and its statistics belong together."""

from __future__ import annotations

from collections.abc import Callable

from vla_ros.contract import Contract, action_width, state_width
from vla_ros.errors import ContractError
from vla_ros.policies.checkpoint import Checkpoint
from vla_ros.policies.fit import find_width_differences


def check_fit(contract: Contract, checkpoint: Checkpoint) -> None:
    """Holds a contract against a checkpoint: its own contract, and the network's sizes.

    Raises:
        ContractError: naming everything that doesn't fit.
    """
    checkpoint.check_contract(contract)
    spec, wrong = checkpoint.card.spec, []
    if contract.observation.history_steps != 1:
        wrong.append(f"observation.history_steps is {contract.observation.history_steps}, the network takes 1")
    if set(contract.observation.images) != set(spec.images):
        wrong.append(f"images are {sorted(contract.observation.images)}, the network takes {sorted(spec.images)}")
    height, width = spec.image_size
    for name, image in contract.observation.images.items():
        if (image.width or width, image.height or height) != (width, height):
            wrong.append(f"image {name!r} is {image.width}x{image.height}, the network takes {width}x{height}")
    vectors: dict[str, tuple[int, Callable[[int], int]]] = {
        "action": (spec.action_width, lambda joints: action_width(contract.action, joints))
    }
    if contract.observation.state:
        vectors["state"] = (spec.state_width, lambda joints: state_width(contract.observation, joints))
    elif spec.state_width != 1:
        wrong.append(
            f"there is no state, for which a network takes a single zero, and this one {spec.state_width} numbers"
        )
    wrong += [line.strip() for line in find_width_differences(vectors)]
    # Normalised with the contract of the training data: the one in force may say otherwise, and it isn't its business.
    wrong += checkpoint.statistics.find_mismatches(checkpoint.contract)
    for name, width in (("state", spec.state_width), ("action", spec.action_width)):
        found = getattr(checkpoint.statistics, name)
        if found is not None and found.width != width:
            wrong.append(f"statistics of {name} are of {found.width} numbers, the network's {name} has {width}")
    if wrong:
        what = f"contract {contract.name} and checkpoint {checkpoint.folder}"
        raise ContractError(f"{what} don't fit: {'; '.join(wrong)}")
