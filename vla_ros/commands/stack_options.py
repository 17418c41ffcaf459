"""Options of commands that join a running stack: which one, and what its launch file was told of the arm."""

from __future__ import annotations

import argparse
import json


def add_stack_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--namespace`, `--hardware` and `--prefix`."""
    parser.add_argument("--namespace", default="", metavar="NS", help="the stack's namespace (default none)")
    parser.add_argument(
        "--hardware", choices=("sim", "mock", "real"), default="sim", help="the launch file's (default %(default)s)"
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="the launch file's, if it was given")


def stack_words(args: argparse.Namespace) -> list[str]:
    """The same as ROS arguments of a node: a namespace, and the parameters `hardware` and `prefix`."""
    # JSON's quotes keep text text, whatever it looks like.
    words = ["-p", f"hardware:={json.dumps(args.hardware)}"]
    words += ["-p", f"prefix:={json.dumps(args.prefix)}"] if args.prefix else []
    if args.namespace.strip("/"):
        words += ["-r", f"__ns:=/{args.namespace.strip('/')}"]
    return words
