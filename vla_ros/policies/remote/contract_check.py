"""Whether a server acts under the contract in force, by what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla_ros.contract import Contract, describe
from vla_ros.errors import ContractError
from vla_ros.policies.remote.observation_wire import OWN, PROTOCOL

_MOST_LINES = 200


def contract_metadata(contract: Contract) -> dict[str, Any]:
    """What a server says of its contract: `contract`, the interface hash, and `contract_lines`."""
    return {"contract": contract.interface_hash, "contract_lines": contract_lines(contract)}


def contract_lines(contract: Contract) -> list[str]:
    """What the interface hash covers, line by line."""
    return [line for line in describe(contract).splitlines() if line.startswith(("observation.", "action."))]


def check_metadata(metadata: Mapping[Any, Any], contract: Contract, url: str) -> None:
    """Refuses a server whose contract is another; one that doesn't say is taken at its user's word.

    Raises:
        ContractError: with the lines that differ.
    """
    own = metadata.get(OWN)
    if not isinstance(own, dict):
        return
    if own.get("protocol") != PROTOCOL:
        raise ContractError(
            f"{url} speaks version {str(own.get('protocol'))[:20]} of our protocol, this is {PROTOCOL}; "
            "install the same vla_ros on both sides"
        )
    if own.get("contract") == contract.interface_hash:
        return
    lines = own.get("contract_lines")
    theirs = {str(line)[:200] for line in lines[:_MOST_LINES]} if isinstance(lines, list) else set()
    ours = set(contract_lines(contract))
    differences = [f"its {line}" for line in sorted(theirs - ours)] + [f"ours {line}" for line in sorted(ours - theirs)]
    raise ContractError(
        f"{url} has contract {str(own.get('contract'))[:40]}, {contract.name} is {contract.interface_hash}: "
        f"{'; '.join(differences) or 'it does not say where'}"
    )
