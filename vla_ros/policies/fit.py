"""Whether a checkpoint from elsewhere fits a contract: by widths, and by the contract that lies beside it, if any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vla_ros.config import load
from vla_ros.contract import Contract, find_differences

CONTRACT_FILE = "contract.yaml"


def find_contract_differences(folder: Path, contract: Contract) -> list[str]:
    """Lines in which a contract differs from the one that lies in the checkpoint's folder; none where there is none.

    Widths alone can't tell a tcp frame from a base frame, so whoever knows what a checkpoint means puts its
    `contract.yaml` beside it.

    Raises:
        ConfigError: for a file there that isn't a contract.
    """
    path = folder / CONTRACT_FILE
    if not path.is_file():
        return []
    own = load(Contract, path)
    return [] if own.interface_hash == contract.interface_hash else [f"  {x}" for x in find_differences(own, contract)]


def find_width_differences(vectors: Mapping[str, tuple[int, Callable[[int], int]]]) -> list[str]:
    """Where no number of joints makes the contract's vectors as wide as the checkpoint's, or not the same number.

    A contract doesn't say how many joints the arm has.

    Args:
        vectors: name -> the checkpoint's width, and the contract's for a number of joints (linear in it).

    Returns:
        A line each, empty if they fit.
    """
    differing: list[str] = []
    joints: dict[str, int] = {}
    for name, (width, of_contract) in vectors.items():
        fixed, each = of_contract(0), of_contract(1) - of_contract(0)
        count, rest = divmod(width - fixed, each) if each else (0, width - fixed)
        if rest or (each and count < 1):
            differing.append(differing_line(name, width, f"{fixed} and {each} for each joint" if each else fixed))
        elif each:
            joints[name] = count
    if len(set(joints.values())) > 1:
        differing += [differing_line(name, f"has {count} joints", "one arm") for name, count in joints.items()]
    return differing


def differing_line(name: str, checkpoint: object, contract: object) -> str:
    """A line of what a ContractError lists."""
    return f"  {name}: checkpoint {checkpoint}, contract {contract}"
