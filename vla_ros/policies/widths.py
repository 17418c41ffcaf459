"""Widths of a checkpoint's vectors against a contract's, which doesn't say how many joints the arm has."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def find_width_differences(vectors: Mapping[str, tuple[int, Callable[[int], int]]]) -> list[str]:
    """Where no number of joints makes the contract's vectors as wide as the checkpoint's, or not the same number.

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
