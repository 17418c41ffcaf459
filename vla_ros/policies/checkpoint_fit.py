"""Whether a contract, a network's sizes and its statistics belong together."""

from __future__ import annotations

from vla_ros.contract import Contract, action_width, state_width
from vla_ros.errors import ContractError
from vla_ros.policies.checkpoint import Checkpoint


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
    if contract.observation.state:
        widths = (state_width(contract.observation, 0), state_width(contract.observation, 1))
        _check_width(wrong, "the state", spec.state_width, widths)
    elif spec.state_width != 1:
        wrong.append(
            f"there is no state, for which a network takes a single zero, and this one {spec.state_width} numbers"
        )
    _check_width(
        wrong, "an action", spec.action_width, (action_width(contract.action, 0), action_width(contract.action, 1))
    )
    # Normalised with the contract of the training data: the one in force may say otherwise, and it isn't its business.
    wrong += checkpoint.statistics.find_mismatches(checkpoint.contract)
    for name, width in (("state", spec.state_width), ("action", spec.action_width)):
        found = getattr(checkpoint.statistics, name)
        if found is not None and found.width != width:
            wrong.append(f"statistics of {name} are of {found.width} numbers, the network's {name} has {width}")
    if wrong:
        what = f"contract {contract.name} and checkpoint {checkpoint.folder}"
        raise ContractError(f"{what} don't fit: {'; '.join(wrong)}")


def _check_width(wrong: list[str], name: str, found: int, widths: tuple[int, int]) -> None:
    """Holds a network's width against the contract's with no joint and with one: their number isn't known here."""
    without, a_joint = widths[0], widths[1] - widths[0]
    fits = found == without if a_joint == 0 else found > without and (found - without) % a_joint == 0
    if not fits:
        meant = f"{without} numbers" if a_joint == 0 else f"{without} numbers and {a_joint} for each joint"
        wrong.append(f"{name} has {meant}, the network's {found}")
