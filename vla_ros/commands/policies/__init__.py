"""`vla-ros policies`: what can be run here and why something can't, and what is made of checkpoints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vla_ros.commands.policies.listing import describe, list_policies
from vla_ros.commands.progress import Progress

_EPILOG = """\
Every kind and every policy is looked at in a process of its own, so that one that fails to import breaks no other.
`list` returns 0 whatever it finds. `export` writes model.onnx into a checkpoint's folder; from then on it is taken by
itself. `merge` writes a whole OpenVLA out of its base and an adapter.

example:
  vla-ros policies
  vla-ros policies list --json my_policy.yaml
  vla-ros policies export checkpoints/reach
  vla-ros policies merge runs/cups/checkpoints/step-001000 checkpoints/openvla_cups
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `policies` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "policies",
        help="say which policies can be run here and why others can't; export checkpoints",
        description="Says which policies can be run here and why others can't, and exports checkpoints to ONNX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run_list, names=[], is_loading=False)
    actions = parser.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", help="what can be run here and why something can't (default)")
    listing.add_argument("names", nargs="*", metavar="POLICY", help="names or YAML files (default: all)")
    listing.add_argument("--load", dest="is_loading", action="store_true", help="also load each, weights and all")
    _add_json(listing)
    listing.set_defaults(run=run_list)
    export = actions.add_parser("export", help="write a checkpoint's network as ONNX, and say what is gained")
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder with policy.json")
    export.add_argument("--calls", type=int, default=30, metavar="N", help="timed calls of each (default %(default)s)")
    export.add_argument(
        "--half", type=Path, metavar="DIR", help="export a copy there, weights rounded to float16: half the size"
    )
    _add_json(export)
    export.set_defaults(run=run_export)
    merge = actions.add_parser("merge", help="write an OpenVLA into which an adapter was merged")
    merge.add_argument("adapter", type=Path, metavar="ADAPTER", help="folder with adapter_config.json")
    merge.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    merge.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="the base (default: the one it was trained on)"
    )
    _add_json(merge)
    merge.set_defaults(run=run_merge)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    # Suppressed: else its default would overwrite what was said before the action.
    parser.add_argument(
        "--json", dest="is_json", action="store_true", default=argparse.SUPPRESS, help="one JSON object, last"
    )


def run_list(args: argparse.Namespace) -> int:
    """Runs `list`; 0."""
    progress = Progress()
    progress("asking kinds", 0.0)
    found = list_policies(
        args.names, is_loading=args.is_loading, on_kind=lambda done, kinds: progress("asking kinds", done / kinds)
    )
    progress.end()
    print(json.dumps(found) if args.is_json else describe(found))
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Runs `export`; 0 if the file was written and answers as torch does.

    Raises:
        VlaRosError: what can't be exported, and why.
    """
    from vla_ros.commands.policies.exporting import export

    found = export(args.checkpoint, args.calls, args.half)
    if args.is_json:
        print(json.dumps(found))
    else:
        print(
            f"{found['path']}: {found['size_mb']:.1f} MB; on one thread {found['torch_ms']:.2f} ms with torch, "
            f"{found['onnx_ms']:.2f} ms with ONNX Runtime, {found['ort_speedup']:.2f} times as fast"
        )
    return 0


def run_merge(args: argparse.Namespace) -> int:
    """Runs `merge`; 0 if the checkpoint was written.

    Raises:
        VlaRosError: if the adapter isn't one of the base's, or the folder has something in it.
    """
    from vla_ros.commands.policies.merging import merge

    found = merge(args.adapter, args.out, args.checkpoint)
    if args.is_json:
        print(json.dumps(found))
    else:
        print(
            f"{found['path']}: {found['size_mb']:.1f} MB"
            + (f"; its policy is {found['policy']}" if found["policy"] else "")
        )
    return 0
