"""`vla-ros train`: from datasets to a policy."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_ros.commands.progress import Progress, tell_stop
from vla_ros.config import config_names
from vla_ros.errors import ConfigError, MissingDependencyError, VlaRosError
from vla_ros.policies.packages import packages_for
from vla_ros.stopping import stop_signals

if TYPE_CHECKING:
    from vla_ros.training.outcome import TrainingReport
    from vla_ros.training.recipe import Recipe

_EPILOG = """\
Settings come from config/training/NAME.yaml, or from --config, and --set changes single ones. Ctrl-C ends with a
checkpoint; --resume goes on from the newest one with the settings in the folder, also after a kill. Several GPUs:
`accelerate launch -m vla_ros.cli train ...`. What comes out is in docs/training.md.

examples:
  vla-ros train --dataset datasets/reach --policy flow_vla --out runs/reach --minutes 30
  vla-ros train --dataset datasets/reach --policy bc --set loop.learning_rate=3e-4 --set architecture.width=128
  vla-ros train --dataset datasets/cups --policy openvla --checkpoint ~/checkpoints/openvla-7b --lora 32 --out runs/cups
  vla-ros train --resume --out runs/reach
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `train` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a policy on datasets",
        description="Trains a policy on datasets, into a folder of checkpoints.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(config_names("training"))
    parser.add_argument("--policy", default="", metavar="NAME", help=f"what to train: {names}")
    parser.add_argument(
        "--dataset", action="append", default=[], type=Path, metavar="DIR", help="may be given several times"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in the place of config/training's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default out/train-NAME-TIME)")
    parser.add_argument("--steps", type=int, metavar="N", help="of gradient descent (default: the settings')")
    parser.add_argument("--minutes", type=float, metavar="M", help="after which it ends, however many steps were taken")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="e.g. loop.batch_size=32"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="the OpenVLA that is fine-tuned")
    parser.add_argument(
        "--lora", nargs="?", const=True, type=int, metavar="RANK", help="fine-tune OpenVLA by an adapter (of that rank)"
    )
    parser.add_argument("--no-export", action="store_true", help="leave out the ONNX file of the last checkpoint")
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if the training is complete, 1 if it was stopped before its end.

    Raises:
        VlaRosError: for settings or data that can't be used, or a training that can't go on.
    """
    with packages_for("vla-ros train"):
        from accelerate import PartialState

        from vla_ros.training.config import put, read_settings
        from vla_ros.training.recipe import prepare
        from vla_ros.training.run_folder import CONFIG
        from vla_ros.training.trainer import Trainer

    changes = list(args.changes)
    for name, value in (("steps", args.steps), ("minutes", args.minutes)):
        if value is not None:
            if not 0 < value < math.inf:
                raise VlaRosError(f"--{name} {value:g}: above 0, and finite")
            changes.append(f"loop.{name}={value!r}")
    if args.checkpoint is not None:
        changes.append(f"openvla.checkpoint={json.dumps(str(args.checkpoint.expanduser().absolute()))}")
    if args.lora is not None and args.lora is not True:
        changes.append(f"openvla.lora.rank={args.lora}")
    if args.resume and args.out is None:
        raise VlaRosError("--resume needs --out, the folder of the run to go on with")
    written = args.out / CONFIG if args.resume else None
    is_written = written is not None and written.is_file() and args.config is None
    file = written if is_written else args.config
    if file is None and not args.policy:
        if args.resume:
            problem = "holds no training to go on with"
            raise ConfigError(str(args.out), problem, "name another --out, or begin one with --policy and --dataset")
        raise VlaRosError(f"--policy is missing: {', '.join(config_names('training'))}")
    settings, where = read_settings(args.policy, file, changes)
    if is_written and args.policy:
        # The name of settings needn't be that of the network which they train.
        asked = read_settings(args.policy, None, ())[0].get("policy", args.policy)
        if asked != settings.get("policy"):
            problem, mend = f"--policy {args.policy}, and it trains {settings.get('policy')}", "leave --policy out"
            raise ConfigError(where, problem, mend)
    elif args.config is not None and args.policy:
        put(settings, "policy", args.policy, "--policy")
    _check_openvla(args, settings)
    processes = PartialState()
    progress = Progress()
    with processes.main_process_first():
        recipe = prepare(settings, where, args.dataset, progress)
    progress.end()
    is_main = bool(processes.is_main_process)
    out = args.out or Path("out") / time.strftime(f"train-{settings['policy']}-%Y%m%d-%H%M%S")
    if is_main:
        print(recipe.summary, file=sys.stderr)
        _check_tensorboard()
    with stop_signals(tell_stop) as should_stop:
        trainer = Trainer(
            recipe.learner,
            recipe.batches,
            recipe.loop,
            out,
            settings=recipe.settings,
            examine=recipe.examine,
            watch=_watch(progress if is_main else None, should_stop),
            is_resumed=args.resume,
        )
        report = trainer.run()
    progress.end()
    if is_main:
        _finish(report, recipe, args)
    return 0 if report.is_complete else 1


def _check_openvla(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    for name, value in (("checkpoint", args.checkpoint), ("lora", args.lora)):
        if value is not None and settings.get("policy") != "openvla":
            problem = f"is for OpenVLA, and {settings.get('policy')} is to be trained"
            raise ConfigError(f"--{name}", problem, "leave it out, or take --policy openvla")


def _watch(progress: Progress | None, should_stop: Any) -> Any:
    from vla_ros.training.outcome import Watch

    return Watch(should_stop=should_stop) if progress is None else Watch(progress, should_stop)


def _check_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        mend = f"{shlex.quote(sys.executable)} -m pip install tensorboard"
        print(f"TensorBoard isn't installed, so log.csv is all there will be ({mend})", file=sys.stderr)


def _finish(report: TrainingReport, recipe: Recipe, args: argparse.Namespace) -> None:
    exported, note = None, ""
    if report.is_complete and recipe.can_export and not args.no_export:
        exported, note = _export(report.last)
    policy = _write_policy(report, recipe)
    if args.is_json:
        said = {
            "out": str(report.folder),
            "step": report.step,
            "seconds": round(report.seconds, 2),
            "is_complete": report.is_complete,
            "last": str(report.last),
            "best": str(report.best),
            "losses": report.losses,
            "open_loop": report.open_loop,
            "samples_per_s": round(report.samples_per_s, 2),
            "onnx": None if exported is None else str(exported),
            "note": note,
            "policy": str(policy),
        }
        print(json.dumps(said))
        return
    from vla_ros.training.open_loop import describe_open_loop

    print(f"{report.step} steps in {report.seconds / 60.0:.1f} minutes, {report.samples_per_s:.0f} samples/s")
    if report.open_loop:
        print(f"on held-out episodes: {describe_open_loop(report.open_loop)}")
    if note:
        print(f"no ONNX file: {note}")
    if not report.is_complete:
        print(f"stopped before its end; go on with: vla-ros train --resume --out {report.folder}")
    print(f'{report.folder} is the run; try it with: vla-ros demo --policy {policy} --task "..."')


def _export(checkpoint: Path) -> tuple[Path | None, str]:
    """The ONNX file, or why there is none."""
    try:
        with packages_for("the export to ONNX"):
            from vla_ros.policies.export import ExportError, export_onnx
    except MissingDependencyError as error:
        return None, str(error)
    try:
        return export_onnx(checkpoint), ""
    except ExportError as error:
        return None, str(error)


def _write_policy(report: TrainingReport, recipe: Recipe) -> Path:
    """A policy's YAML beside the checkpoints, with which everything that takes a policy takes the newest one."""
    import yaml

    from vla_ros.files import whole_file

    checkpoint = os.path.relpath(report.last, report.folder)
    name = "".join(letter if letter.isalnum() else "_" for letter in report.folder.resolve().name)
    config = {
        "name": name if name[:1].isalpha() and name.isascii() else "trained",
        "kind": recipe.kind,
        "contract": f"{checkpoint}/contract.yaml",
        "rate_hz": recipe.rate_hz,
        "parameters": {"checkpoint": checkpoint, **recipe.parameters},
    }
    path = report.folder / "policy.yaml"
    with whole_file(path) as partial:
        partial.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
