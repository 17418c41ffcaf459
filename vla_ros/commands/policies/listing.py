"""What there is and whether it runs: one process a kind asks, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from vla_ros.commands.doctor.probe import ask
from vla_ros.commands.policies.examining import MARK, Finding
from vla_ros.config import config_names
from vla_ros.errors import VlaRosError
from vla_ros.policies.registry import PolicyConfig, load_policy_config, policy_kinds

# Loading a large model from a cold disk takes minutes.
_TIMEOUT_S, _LOADING_TIMEOUT_S = 60.0, 600.0


def list_policies(
    names: Sequence[str] = (), *, is_loading: bool = False, on_kind: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Every kind and every policy, what is available and, if not, why.

    Args:
        names: policies by name or YAML file; none for all of `config/policies`.
        is_loading: whether to load each, weights and all.
        on_kind: called with how many kinds have been asked, and how many there are.

    Returns:
        `kinds` and `policies`, each a list of plain objects with `name`, `is_available`, `problem` and `mend`.
    """
    kinds = policy_kinds()
    configs: dict[str, PolicyConfig] = {}
    findings: dict[str, Finding] = {}
    for name in names or config_names("policies"):
        try:
            configs[name] = load_policy_config(name)
        except VlaRosError as error:
            findings[name] = Finding.of_error(error)
    wanted = {kind: [name for name, config in configs.items() if config.kind == kind] for kind in kinds}
    for name, config in configs.items():
        if config.kind not in kinds:
            known = ", ".join(sorted(kinds))
            findings[name] = Finding(f"unknown kind {config.kind!r}", f"install what has it, or use one of: {known}")
    with ThreadPoolExecutor(max_workers=max(2, len(os.sched_getaffinity(0)))) as threads:
        answers = {}
        replies = threads.map(lambda kind: _ask(kind, wanted[kind], is_loading), kinds)
        for kind, answer in zip(kinds, replies, strict=True):
            answers[kind] = answer
            findings |= answer.policies
            if on_kind is not None:
                on_kind(len(answers), len(kinds))
    return {
        "kinds": [
            {"name": name, "origin": kind.origin or "built in", **_plain(answers[name].kind)}
            for name, kind in sorted(kinds.items())
        ],
        "policies": [
            {
                "name": configs[name].name if name in configs else name,
                "kind": configs[name].kind if name in configs else None,
                "contract": configs[name].contract if name in configs else None,
                **_plain(finding),
            }
            for name, finding in sorted(findings.items())
        ],
    }


def describe(found: dict[str, Any]) -> str:
    """The listing for a person."""
    lines = []
    for title in ("kinds", "policies"):
        lines.append(f"{title}:")
        width = max((len(item["name"]) for item in found[title]), default=0)
        for item in found[title]:
            about = item["origin"] if title == "kinds" else f"{item['kind'] or '-'}, {item['contract'] or '-'}"
            status = "ok" if item["is_available"] else "no"
            lines.append(f"  {status}  {item['name']:<{width}}  {about}")
            if not item["is_available"]:
                lines.append(f"      {item['problem']}" + (f"; {item['mend']}" if item["mend"] else ""))
    return "\n".join(lines)


class _Answers:
    """What one process found: of its kind, and of that kind's policies."""

    def __init__(self, kind: Finding, policies: dict[str, Finding]) -> None:
        self.kind, self.policies = kind, policies


def _ask(kind: str, names: list[str], is_loading: bool) -> _Answers:
    request = json.dumps({"kind": kind, "names": names, "is_loading": is_loading})
    code = f"from vla_ros.commands.policies.examining import main; main({request!r})"
    answer = ask(code, _LOADING_TIMEOUT_S if is_loading else _TIMEOUT_S)
    # A module that is imported may print what it likes.
    reply = next((line for line in reversed(answer.text.splitlines()) if line.startswith(MARK)), None)
    if reply is None or not answer.is_ok:
        lost = Finding(
            f"importing it failed: {answer.text or 'it ended without an answer'}", "mend or uninstall what has it"
        )
        return _Answers(lost, dict.fromkeys(names, lost))
    data = json.loads(reply.removeprefix(MARK))
    return _Answers(Finding(**data["kind"]), {name: Finding(**item) for name, item in data["policies"].items()})


def _plain(finding: Finding) -> dict[str, Any]:
    return {"is_available": finding.is_available, **asdict(finding)}
