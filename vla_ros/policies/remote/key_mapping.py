"""An observation in the words of a foreign server, and the actions out of its reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vla_ros.contract import Contract
from vla_ros.errors import ConfigError
from vla_ros.policies.remote.errors import RemoteReplyError, WireError
from vla_ros.policies.remote.fields import take
from vla_ros.policies.remote.wire_arrays import AnyArray
from vla_ros.types import Observation

Protocol = Literal["openpi", "openvla", "openvla_oft", "gr00t"]


@dataclass(frozen=True)
class KeyMapping:
    """Under which keys a server expects the parts of an observation and puts its actions.

    Attributes:
        images: the contract's image name -> key.
        state: key of the whole state vector; empty: it isn't sent.
        state_items: item of the state layout -> key, for servers that take the parts apart.
        instruction: key of the task.
        actions: keys of the reply whose arrays stand side by side in the contract's action; empty: the reply is the
            array itself.
        separator: where a key is a path into mappings, what stands between its parts.
        leading_axes: axes of length 1 (batch, time) before those of images and state, and lists around the instruction.
        image_layout: `hwc`, or `chw` with the channels first.
        extras: constant entries, e.g. `unnorm_key`.
        envelope: key under which the whole goes; empty: none.
    """

    images: dict[str, str]
    state: str = ""
    state_items: dict[str, str] = field(default_factory=dict)
    instruction: str = "prompt"
    actions: tuple[str, ...] = ("actions",)
    separator: str = ""
    leading_axes: int = 0
    image_layout: Literal["hwc", "chw"] = "hwc"
    extras: dict[str, Any] = field(default_factory=dict)
    envelope: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.leading_axes <= 2:
            raise ValueError(f"leading_axes {self.leading_axes} isn't 0, 1 or 2")

    def check(self, contract: Contract, where: str) -> None:
        """Raises ConfigError for an image that the contract hasn't, or one of its images that goes nowhere."""
        known = set(contract.observation.images)
        if set(self.images) != known:
            raise ConfigError(
                f"{where}: keys.images",
                f"names {sorted(self.images)}, the contract {contract.name} has {sorted(known)}",
                "give each of the contract's images a key",
            )

    def request(self, observation: Observation) -> dict[str, Any]:
        """The observation as the server expects it: images uint8, state float32."""
        found: dict[str, Any] = {}
        for name, key in self.images.items():
            image: AnyArray = observation.images[name].image
            self._put(found, key, self._wrap(image.transpose(2, 0, 1) if self.image_layout == "chw" else image))
        if self.state:
            self._put(found, self.state, self._wrap(observation.state.astype(np.float32)))
        for item, key in self.state_items.items():
            if item not in observation.state_layout:
                raise WireError("missing_key", f"the observation's state has no {item!r}; it has "
                                f"{sorted(observation.state_layout)}")  # fmt: skip
            part = observation.state[observation.state_layout[item]]
            self._put(found, key, self._wrap(part.astype(np.float32)))
        text: Any = observation.instruction
        for _ in range(self.leading_axes):
            text = [text]
        self._put(found, self.instruction, text)
        for key, value in self.extras.items():
            self._put(found, key, value)
        return {self.envelope: found, "options": None} if self.envelope else found

    def actions_of(self, reply: Any) -> AnyArray:
        """The (steps, width) actions in a reply: its arrays side by side, leading axes of length 1 taken off.

        Raises:
            RemoteReplyError: for what isn't there or isn't an array of two axes.
        """
        if isinstance(reply, list) and self.envelope and reply and isinstance(reply[0], dict):
            reply = reply[0]  # GR00T N1.6 answers with (action, info).
        if not self.actions:
            return _as_steps(reply, "the reply")
        if not isinstance(reply, dict):
            raise RemoteReplyError("type", f"the reply is a {type(reply).__name__}, not a mapping")
        parts = [self._part(reply, key) for key in self.actions]
        if len({len(part) for part in parts}) != 1:
            lengths = dict(zip(self.actions, map(len, parts), strict=True))
            raise RemoteReplyError("shape", f"parts of the reply have different numbers of steps: {lengths}")
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _part(self, reply: Mapping[Any, Any], key: str) -> AnyArray:
        try:
            value: Any = reply if key not in reply and self.separator else take(reply, key)
            if value is reply:
                for word in key.split(self.separator):
                    value = take(value if isinstance(value, dict) else {}, word)
        except WireError as error:
            raise RemoteReplyError(error.fault, f"reply without actions: {error}") from error
        if isinstance(value, np.ndarray):
            for _ in range(self.leading_axes):
                if value.ndim > 2 and value.shape[0] == 1:
                    value = value[0]
            if self.leading_axes and value.ndim == 1:
                value = value[:, None]  # GR00T leaves out the axis of a part that is one number wide.
        return _as_steps(value, repr(key))

    def _wrap(self, array: AnyArray) -> AnyArray:
        return array.reshape((1,) * self.leading_axes + array.shape)

    def _put(self, found: dict[str, Any], key: str, value: Any) -> None:
        *folders, name = key.split(self.separator) if self.separator else [key]
        for folder in folders:
            found = found.setdefault(folder, {})
        found[name] = value


def _as_steps(value: Any, name: str) -> AnyArray:
    """(steps, width) of an array, of one step (OpenVLA), or of a list of steps (OpenVLA-OFT)."""
    if isinstance(value, list):
        rows = [np.asarray(row) if _is_row(row) else None for row in value]
        widths = {None if row is None else row.shape for row in rows}
        if len(widths) != 1 or None in widths:
            raise RemoteReplyError("shape", f"{name} is a list of {len(value)} whose entries aren't steps of one width")
        value = np.stack([row for row in rows if row is not None])
    elif isinstance(value, np.ndarray) and value.ndim == 1 and name == "the reply":
        value = value[None]
    if not isinstance(value, np.ndarray):
        raise RemoteReplyError("type", f"{name} is a {type(value).__name__}, not an array")
    if value.ndim != 2:
        raise RemoteReplyError("shape", f"{name} has shape {value.shape}, needs (steps, width)")
    return value


def _is_row(row: Any) -> bool:
    if isinstance(row, np.ndarray):
        return row.ndim == 1
    return isinstance(row, list) and all(isinstance(item, int | float) and not isinstance(item, bool) for item in row)


def default_keys(protocol: Protocol, contract: Contract) -> dict[str, Any]:
    """The keys that a protocol's own examples use, as YAML has them; what a policy's `keys` doesn't say."""
    names, reference = list(contract.observation.images), contract.observation.reference
    if protocol == "openvla":
        return {"images": {reference: "image"}, "instruction": "instruction", "actions": []}
    if protocol == "openvla_oft":
        images = {name: "full_image" if name == reference else f"{name}_image" for name in names}
        return {"images": images, "state": "state", "instruction": "instruction", "actions": []}
    if protocol == "gr00t":
        return {
            "images": {name: f"video.{name}" for name in names},
            "state_items": {item.kind: f"state.{item.kind}" for item in contract.observation.state},
            "instruction": "annotation.human.task_description",
            "leading_axes": 1,
        }
    return {"images": {name: f"observation/{name}" for name in names}, "state": "observation/state"}
