"""Requests of clients that speak plain openpi: images, state and prompt, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_ros.contract import ROTATION_WIDTH, Contract
from vla_ros.geometry import rotations
from vla_ros.geometry.se3 import make_pose
from vla_ros.policies.remote.errors import WireError
from vla_ros.policies.remote.fields import take_array, take_image, take_text
from vla_ros.policies.remote.key_mapping import KeyMapping
from vla_ros.policies.remote.observation_wire import IMAGES, PROMPT, STATE
from vla_ros.types import CameraFrame, Observation


def own_keys(contract: Contract) -> KeyMapping:
    """The keys of our own form, under which a plain client may send, too."""
    return KeyMapping({name: IMAGES + name for name in contract.observation.images}, STATE, instruction=PROMPT)


def decode_plain(message: Mapping[Any, Any], contract: Contract, stamp_ns: int, keys: KeyMapping) -> Observation:
    """The observation in a plain client's request.

    Args:
        message: as it arrived.
        contract: of the policy that is to answer.
        stamp_ns: when it arrived, for want of better.
        keys: where the parts are; images are (height, width, 3), whatever `image_layout` says.

    Returns:
        The observation. The tcp's pose is taken from the state where the contract has it there, else it isn't a number,
        and what a policy computes from it will be refused. No camera is known.

    Raises:
        WireError: for what is missing, or has another type or shape.
    """
    frames = {
        name: CameraFrame(stamp_ns, take_image(message, keys.images[name])) for name in contract.observation.images
    }
    parts = [take_array(message, key, (None,)) for key in ([keys.state] if keys.state else keys.state_items.values())]
    state = np.concatenate([np.zeros(0), *parts])
    layout = state_layout(contract, len(state))
    T_base_tcp = np.full((4, 4), np.nan)
    for item in contract.observation.state:
        if item.kind == "tcp_pose":
            pose = state[layout["tcp_pose"]]
            try:
                T_base_tcp = make_pose(pose[:3], getattr(rotations, f"{item.rotation}_to_matrix")(pose[3:]))
            except ValueError as error:
                raise WireError("magnitude", f"the state's tcp_pose is no pose: {error}") from error
    opening = float(state[layout["gripper"]][0]) if "gripper" in layout else None
    return Observation(stamp_ns, frames, state, layout, T_base_tcp, opening, take_text(message, keys.instruction))


def state_layout(contract: Contract, width: int) -> dict[str, slice]:
    """Where each item of a contract's state is, in a vector whose joints are however many are left over.

    Raises:
        WireError: if the items don't fill the vector.
    """
    items = contract.observation.state
    widths = {item.kind: {"tcp_pose": 3 + ROTATION_WIDTH[item.rotation], "gripper": 1}.get(item.kind) for item in items}
    rest = width - sum(known for known in widths.values() if known is not None)
    unknown = [kind for kind, known in widths.items() if known is None]
    if rest < 0 or len(unknown) > 1 or bool(rest) != bool(unknown):
        raise WireError("shape", f"the state has {width} numbers, the contract means {[item.kind for item in items]}")
    layout, start = {}, 0
    for kind, known in widths.items():
        length = rest if known is None else known
        layout[str(kind)] = slice(start, start + length)
        start += length
    return layout
