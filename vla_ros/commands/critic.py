"""`vla-ros critic`: how good every example was, from episodes that went well and others that failed."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from vla_ros.commands.progress import Progress, tell_stop
from vla_ros.config import build, load_yaml, plain
from vla_ros.policies.packages import packages_for
from vla_ros.stopping import stop_signals

_EPILOG = """\
Episodes have to be labelled success or failure, some of each. The critic learns how far each frame is from success;
scores.npz then holds a weight for every example, and where each failed episode failed. docs/training_options.md says
how a training uses it.

example:
  vla-ros critic --dataset datasets/rollouts --out runs/critic
  vla-ros train --dataset datasets/rollouts --policy bc --set options.weighting.scores=runs/critic/scores.npz
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `critic` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "critic",
        help="score the examples of datasets by a progress critic",
        description="Trains a progress critic on datasets and scores their examples.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dataset", action="append", default=[], type=Path, metavar="DIR", help="may be given several times"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, see docs/training_options.md")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run and the scores")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="e.g. loop.steps=500"
    )
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if the scores are written, 1 if the training was stopped before its end.

    Raises:
        VlaRosError: for settings or data that can't be used.
    """
    with packages_for("vla-ros critic"):
        from vla_ros.training.config import change_settings
        from vla_ros.training.critic import load_critic
        from vla_ros.training.critic_run import CriticRun, prepare_critic
        from vla_ros.training.outcome import Watch
        from vla_ros.training.run_folder import CONFIG
        from vla_ros.training.scoring import score
        from vla_ros.training.trainer import Trainer

    written = args.out / CONFIG
    file = written if args.resume and args.config is None and written.is_file() else args.config
    settings = load_yaml(file) if file else {}
    change_settings(settings, args.changes)
    progress = Progress()
    learner, batches, config = prepare_critic(build(CriticRun, settings, str(file or "critic")), args.dataset, progress)
    with stop_signals(tell_stop) as should_stop:
        report = Trainer(
            learner,
            batches,
            config.loop,
            args.out,
            settings=plain(dataclasses.asdict(config)),
            watch=Watch(progress, should_stop),
            is_resumed=args.resume,
        ).run()
    if not report.is_complete:
        progress.end()
        print(f"stopped before its end; go on with: vla-ros critic --resume --out {args.out}")
        return 1
    scores = score(load_critic(report.last), batches, config.scoring, lambda share: progress("scores", share, ""))
    progress.end()
    path = args.out / "scores.npz"
    scores.save(path)
    examples, failing = batches.examples, {}
    for episode, row in zip(examples.episodes, scores.failing_row.tolist(), strict=True):
        # Episodes of several datasets may have one name.
        where = f"{examples.parts[episode.part].path}, " if len(examples.parts) > 1 else ""
        if row >= 0:
            failing[f"{where}{episode.name}"] = row - episode.first
    left_out = int((scores.weight[examples.rows] == 0.0).sum())
    if args.is_json:
        said = {"scores": str(path), "critic": str(report.last), "examples": len(batches), "left_out": left_out}
        print(json.dumps({**said, "failing_steps": failing, "losses": report.losses}))
        return 0
    for name, step in failing.items():
        print(f"{name}: fails at step {step}")
    print(f"{path}: scores of {len(batches)} examples, {left_out} of which weigh nothing")
    return 0
