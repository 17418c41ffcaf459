"""`vla-ros replay EPISODE --policy NAME --open-loop`: a policy's answers beside what was done."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from vla_ros.commands.progress import Progress
from vla_ros.commands.replay.episodes import model_of, read_bag
from vla_ros.errors import VlaRosError
from vla_ros.files import whole_file
from vla_ros.policies.packages import packages_for
from vla_ros.policies.registry import load_policy_config, make_policy


def run_open_loop(args: argparse.Namespace) -> int:
    """Compares and writes `open_loop.json` and `open_loop.png` into a folder; 0.

    Raises:
        VlaRosError: if episode or policy can't be used, or nothing can be compared.
    """
    if args.dataset is not None:
        raise VlaRosError("--open-loop needs what a bag has (poses of the cameras, states between frames), not --from")
    if args.where is not None:
        raise VlaRosError(f"--open-loop moves nothing: leave out --in {args.where}")
    config = load_policy_config(args.policy)
    episode = read_bag(args.episode, args.folder, args.rig)
    with packages_for("vla-ros replay --open-loop"):
        from vla_ros.evaluation.open_loop import plot_open_loop
        from vla_ros.evaluation.open_loop import run_open_loop as compare_open_loop
    progress = Progress()
    progress("loading policy", 0.0)
    policy, contract = make_policy(config)
    try:
        model = model_of(episode)
        result = compare_open_loop(
            episode, policy, config, contract, model, lambda fraction: progress("asking", fraction)
        )
    finally:
        close = getattr(policy, "close", None)
        if callable(close):
            close()
        progress.end()
    out = args.out or Path("out") / time.strftime("replay-%Y%m%d-%H%M%S")
    values = {
        "episode": episode.info.name,
        "policy": config.name,
        "contract": contract.name,
        "interface_hash": contract.interface_hash,
        **result.comparison.summary(),
        "idle_answers": result.idle,
        "unseen": {"count": result.unseen[0], "first": result.unseen[1]},
        "out": str(out),
    }
    with whole_file(out / "open_loop.json") as path:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    plot_open_loop(result, f"{episode.info.name}: {config.name} beside what was done", out / "open_loop.png")
    print(json.dumps(values) if args.is_json else _describe(values))
    return 0


def _describe(values: dict[str, Any]) -> str:
    answers = f"{values['observations']} answers of {values['policy']}"
    lines = [f"{values['episode']}: {answers} beside what was done, mean error (and of who stays where it is):"]
    for name, error in values["overall"].items():
        stay = values["overall_of_staying"][name]
        told = "nothing to compare with" if error is None else f"{error:.4g} ({stay:.4g})"
        lines.append(f"  {name:24} {told}")
    unseen = values["unseen"]
    if unseen["count"]:
        lines.append(f"{unseen['count']} moments couldn't be observed; the first: {unseen['first']}")
    if values["idle_answers"]:
        lines.append(f"{values['idle_answers']} answers said to stay")
    lines.append(f"open_loop.json and open_loop.png in {values['out']}")
    return "\n".join(lines)
