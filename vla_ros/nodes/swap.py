"""Another policy takes over, by the stack's public parameters alone: the arm holds until the new one's first chunk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from std_msgs.msg import String

from vla_ros.errors import VlaRosError
from vla_ros.nodes.runtime import RELIABLE
from vla_ros.nodes.stack_client import StackClient, StackError, client_of
from vla_ros.policies.registry import listed_policies, policy_name

_POLL_S = 0.2


def swap(wanted: str, timeout_s: float, namespace: str = "", is_taken: bool = False) -> dict[str, Any]:
    """Makes a policy of the running stack the one that moves the arm.

    One that isn't resident is loaded first, while the other goes on. Teleoperation, or whoever else was selected, is
    taken over from only where that is asked for: else the policy only becomes the one that is active.

    Args:
        wanted: name of the policy, or its YAML file.
        timeout_s: how long it may take to load.
        namespace: of the stack; empty for none.
        is_taken: whether to take the arm from whoever has it. An operator who leads it then has it back at once.

    Returns:
        `from`, `to`, `was_loaded` (or on its way), `source` (who may move the arm now), `took_s` of the change itself.

    Raises:
        StackError: if the stack isn't there or refuses; the arm is as it was.
        VlaRosError: if there is no such policy.
    """
    # The stack runs in another folder than this command.
    wanted = str(Path(wanted).expanduser().resolve()) if Path(wanted).expanduser().is_file() else wanted
    with client_of(_Client, namespace) as client:
        return client.swap(wanted, timeout_s, is_taken)


class _Client(StackClient):
    def __init__(self) -> None:
        super().__init__("swap", ("policy_node", "safety_node"))
        self._refusals: dict[str, str] = {}
        self.create_subscription(String, "episode/event", self._on_event, RELIABLE)

    def swap(self, wanted: str, timeout_s: float, is_taken: bool) -> dict[str, Any]:
        name = policy_name(wanted)
        if not name:
            raise StackError("no policy is named; give a name from config/policies, or a YAML file")
        before, resident = self.texts("policy_node", ["policy", "resident"])
        source = self.texts("safety_node", ["source"])[0]
        active = _name_there(before)
        is_selected = is_taken or source == active
        loaded = {_name_there(word): word for word in (*listed_policies(resident), before)}
        was_loaded = name in loaded
        if name != active:
            # What is to be resident may be on its way yet. The one that was active stays: the next change may be back.
            self._load(name, wanted, list((loaded | {name: wanted}).values()), timeout_s)
        begin_s = time.monotonic()
        # The source first: from here on the arm holds, and the first chunk that comes is the new policy's.
        if is_selected and name != source:
            self.change("safety_node", "source", name)
        try:
            self.change("policy_node", "policy", wanted)
        except StackError:
            if is_selected and name != source:
                self.change("safety_node", "source", source)
            raise
        now = name if is_selected else source
        took_s = time.monotonic() - begin_s
        return {"from": active, "to": name, "was_loaded": was_loaded, "source": now, "took_s": took_s}

    def _load(self, name: str, wanted: str, resident: list[str], timeout_s: float) -> None:
        """Has policy_node keep these loaded, and waits until there are topics for the wanted one's chunks."""
        self._refusals.clear()
        self.change("policy_node", "resident", ",".join(resident))
        topic = f"policies/{name}/action_chunk"
        deadline_s = time.monotonic() + timeout_s
        while not self.count_publishers(topic):
            if wanted in self._refusals:
                raise StackError(f"policy {wanted!r} can't be loaded: {self._refusals[wanted]}")
            if time.monotonic() > deadline_s:
                mend = "its log says how far it is; --timeout waits longer"
                raise StackError(f"policy_node hasn't loaded {wanted!r} within {timeout_s:g} s; {mend}")
            self.spin_once(_POLL_S)

    def _on_event(self, message: String) -> None:
        try:
            event = json.loads(message.data)
        except ValueError:
            return  # Others may publish there, too.
        if isinstance(event, dict) and event.get("event") == "policy_refused":
            self._refusals[str(event.get("policy"))] = str(event.get("reason"))


def _name_there(word: str) -> str:
    """The name of a policy that the stack has, whose file may be relative to the folder that it was started in."""
    try:
        return policy_name(word)
    except VlaRosError:
        return Path(word).stem
