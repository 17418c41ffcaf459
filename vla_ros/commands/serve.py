"""`vla-ros serve`: policies for other processes and machines, over openpi's protocol."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from vla_ros.config import build, load_yaml
from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.policies.registry import load_policy_config

_EPILOG = """\
A robot elsewhere runs the policy `remote` with this server's URL; openpi's own clients are answered, too. Without
more, only this machine can reach it. Past loopback it needs an API key (`Authorization: Api-Key KEY`) and TLS.

examples:
  vla-ros serve scripted_visual
  vla-ros serve one two --default two --port 8000
  vla-ros serve my_act --in-env ~/environments/lerobot
  export VLA_ROS_KEY=$(openssl rand -hex 32)
  vla-ros serve one --host 0.0.0.0 --api-key-env VLA_ROS_KEY --tls-cert cert.pem --tls-key key.pem
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `serve` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="serve policies to other machines",
        description="Loads policies and serves them over openpi's WebSocket protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("policies", nargs="+", metavar="POLICY", help="name of a policy, or its YAML file")
    parser.add_argument("--default", metavar="NAME", help="for clients that name none (default: the first)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default %(default)s)")
    parser.add_argument("--api-key-env", default="", metavar="NAME", help="environment variable that holds the key")
    parser.add_argument("--tls-cert", default="", metavar="FILE", help="certificate, PEM")
    parser.add_argument("--tls-key", default="", metavar="FILE", help="its key, PEM")
    parser.add_argument("--insecure", action="store_true", help="past loopback without TLS, as inside a tunnel")
    parser.add_argument("--max-mb", type=float, default=16.0, metavar="MB", help="largest request (%(default)s)")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="YAML: keys under which plain openpi clients send (images, ...)",
    )
    parser.add_argument(
        "--in-env", default="", metavar="PATH", help="run by another environment's Python: its folder, or the Python"
    )
    parser.add_argument("--json", dest="is_json", action="store_true", help="say where it listens as one JSON object")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand until it is interrupted.

    Raises:
        VlaRosError: for what can't be served so.
    """
    from vla_ros.policies.environment import is_this_environment
    from vla_ros.policies.served_process import serve_in

    if args.in_env and not is_this_environment(args.in_env):
        return serve_in(args.in_env, _words(args), lambda line: print(line, flush=True))
    from vla_ros.policies.remote.access import Access
    from vla_ros.policies.remote.hosting import HostedPolicy
    from vla_ros.policies.remote.key_mapping import KeyMapping
    from vla_ros.policies.remote.server import PolicyServer

    key = os.environ.get(args.api_key_env, "") if args.api_key_env else ""
    if args.api_key_env and not key:
        raise ConfigError("--api-key-env", f"the environment has no {args.api_key_env}", "export it")
    if not 0.0 < args.max_mb <= 1024.0:
        raise ConfigError(f"--max-mb {args.max_mb:g}", "isn't in (0, 1024]", "choose another")
    access = Access(args.host, args.port, key, args.tls_cert, args.tls_key, args.insecure, round(args.max_mb * 2**20))
    access.check()
    access.ssl_context()  # Refused now, and not after minutes of loading.
    keys = build(KeyMapping, load_yaml(args.keys), str(args.keys)) if args.keys else None
    configs = [load_policy_config(name) for name in args.policies]
    names = [config.name for config in configs]
    if len(set(names)) != len(names):
        raise ConfigError("serve", f"{names}: a name twice", "leave one out")
    if args.default and args.default not in names:
        raise UnknownNameError("policy", args.default, names)
    with contextlib.ExitStack() as loaded:
        hosted = []
        for config in configs:
            print(f"loading {config.name} ({config.kind})", file=sys.stderr, flush=True)
            hosted.append(HostedPolicy.load(config, keys))
            loaded.callback(hosted[-1].close)
        asyncio.run(_serve(PolicyServer(hosted, args.default or hosted[0].name, access), args))
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    """The same command, for the other environment's Python."""
    words = ["serve", *args.policies, "--host", args.host, "--port", str(args.port), "--max-mb", str(args.max_mb)]
    options = ("default", "api_key_env", "tls_cert", "tls_key", "keys")
    for option in options:
        value = getattr(args, option)
        words += [f"--{option.replace('_', '-')}", str(value)] if value else []
    return words + ["--insecure"] * args.insecure + ["--json"] * args.is_json


async def _serve(server: Any, args: argparse.Namespace) -> None:
    listening = await server.start()
    port = next(iter(listening.sockets)).getsockname()[1]
    host = f"[{args.host}]" if ":" in args.host else args.host
    said = {"url": f"{'wss' if args.tls_cert else 'ws'}://{host}:{port}", "policies": server.names}
    print(json.dumps(said) if args.is_json else f"serving {', '.join(server.names)} on {said['url']}", flush=True)
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, listening.close)
    await listening.wait_closed()
