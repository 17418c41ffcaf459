"""What our client and server cost over a bare WebSocket: a round trip with two images, and one of the same bytes.

The policy does nothing, so that what is left is packing, checking, threads and the wire. Server and floors live in a
process of their own, since one interpreter's lock would make client and server wait for each other; requests take turns
in random order, and the floor is measured twice, against itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import Spread, is_void, ratio_of_medians
from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.errors import MissingDependencyError
from vla_ros.policies.base import InferenceContext
from vla_ros.types import ActionChunk, CameraFrame, FloatArray, Observation

_SIZE_PX, _STEPS, _WIDTH = 224, 50, 7
_STARTING_S = 60.0
_REPLY_PATH = "/reply"
_CONTRACT: dict[str, Any] = {
    "name": "bench_remote",
    "observation": {
        "images": {"base": {"camera": "base"}, "wrist": {"camera": "wrist"}},
        "state": [{"kind": "tcp_pose", "rotation": "rotvec"}, {"kind": "gripper"}],
        "reference": "base",
    },
    "action": {"space": "tool", "rotation": "rotvec", "relative_to": "observation", "period_s": 0.02},
}


class TrivialPolicy:
    """Answers the same chunk at once.

    Args:
        contract: of the observations.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._chunk = ActionChunk(np.zeros((_STEPS, _WIDTH)))

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`."""

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`."""
        return self._chunk


def run(options: Options) -> Result:
    """Measures `remote_over_echo`, in wall time: a round trip is waiting as much as computing."""
    try:
        from websockets.sync.client import connect

        from vla_ros.policies.remote.codec import pack
        from vla_ros.policies.remote.observation_wire import encode_chunk, encode_observation
        from vla_ros.policies.remote.policy import RemotePolicy
    except ImportError as error:
        mend = "python -m pip install 'vla_ros[remote]'"
        raise MissingDependencyError("websockets", "remote_over_echo", mend) from error
    trips = options.count(400, 4000)
    rng = np.random.default_rng(options.seed)
    contract = build(Contract, _CONTRACT, "bench remote")
    observation = _observe(rng)
    message = pack(encode_observation(observation, InferenceContext()))
    reply = pack(encode_chunk(TrivialPolicy(contract).infer(observation, InferenceContext())))
    with _servers(reply) as (our_port, floor_port), contextlib.ExitStack() as lines:
        policy = RemotePolicy.from_parameters(contract, {"url": f"ws://127.0.0.1:{our_port}", "deadline_s": 30.0})
        lines.callback(policy.close)
        policy.reset("bench", options.seed)

        def line(path: str) -> Callable[[], object]:
            url = f"ws://127.0.0.1:{floor_port}{path}"
            socket = lines.enter_context(connect(url, compression=None, max_size=None))

            def trip() -> object:
                socket.send(message)
                return socket.recv()

            return trip

        calls = {
            "remote": lambda: policy.infer(observation, InferenceContext()),
            "echo": line("/"),
            "echo_again": line("/"),
            "same_reply": line(_REPLY_PATH),
        }
        times_s = _time(calls, trips, rng, options)
        health = policy.health()
    ratio = ratio_of_medians(times_s["remote"], times_s["echo"])
    control = ratio_of_medians(times_s["echo_again"], times_s["echo"])
    problems: tuple[str, ...] = ()
    if is_void(control.median):
        problems = (f"remote_over_echo is void: the A/A control was {control.median:.2f}; end what else runs",)
    details = {
        "trips": trips,
        "request_bytes": len(message),
        "reply_bytes": len(reply),
        "a_a": control.as_json(),
        "remote_over_echo": ratio.as_json(),
        "remote_over_same_reply": ratio_of_medians(times_s["remote"], times_s["same_reply"]).as_json(),
        "ms": {name: _milliseconds(values).as_json() for name, values in times_s.items()},
        "p99_ms": {name: 1e3 * float(np.percentile(values, 99.0)) for name, values in times_s.items()},
        "faults": health["faults"],
    }
    series = {"times_ms": {name: 1e3 * values for name, values in times_s.items()}}
    return Result({"remote_over_echo": None if problems else ratio.median}, details, series, problems)


def _observe(rng: np.random.Generator) -> Observation:
    """Two images of noise, which nothing on the way could make smaller."""
    shape = (_SIZE_PX, _SIZE_PX, 3)
    images = {name: CameraFrame(0, rng.integers(0, 256, shape, dtype=np.uint8)) for name in ("base", "wrist")}
    layout = {"tcp_pose": slice(0, 6), "gripper": slice(6, 7)}
    return Observation(0, images, np.zeros(7), layout, np.eye(4), 0.0, "bench")


def _time(
    calls: dict[str, Callable[[], object]], trips: int, rng: np.random.Generator, options: Options
) -> dict[str, FloatArray]:
    """(trips,) seconds of each call, in an order drawn anew each time.

    Each is called twice and the second counts: the floors are three calls of the same code, which would find it in the
    caches where ours doesn't.
    """
    names = list(calls)
    spent_s = {name: np.empty(trips) for name in names}
    for name in names * 10:
        calls[name]()
    for trip in range(trips):
        for name in rng.permutation(names):
            calls[name]()
            begin_s = time.perf_counter()
            calls[name]()
            spent_s[name][trip] = time.perf_counter() - begin_s
        if trip % 50 == 0:
            options.progress("remote", trip / trips)
    return spent_s


def _milliseconds(values_s: FloatArray) -> Spread:
    low, median, high = 1e3 * np.percentile(values_s, [25.0, 50.0, 75.0])
    return Spread(float(median), float(low), float(high))


@contextlib.contextmanager
def _servers(reply: bytes) -> Iterator[tuple[int, int]]:
    """Ports of our server and of the floors', in a process that ends with the context."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, reply), daemon=True)
    process.start()
    try:
        if not here.poll(_STARTING_S):
            raise TimeoutError(f"the benchmark's servers didn't start in {_STARTING_S:g} s")
        yield here.recv()
    finally:
        here.send("end")
        process.join(10.0)
        if process.is_alive():
            process.kill()


def _serve(pipe: Connection, reply: bytes) -> None:
    """The other process: both servers, on loops of their own."""
    from vla_ros.policies.remote.access import Access
    from vla_ros.policies.remote.hosting import HostedPolicy
    from vla_ros.policies.remote.server import PolicyServer

    contract = build(Contract, _CONTRACT, "bench remote")
    server = PolicyServer(
        [HostedPolicy("trivial", lambda: (TrivialPolicy(contract), contract))], "trivial", Access(port=0)
    )
    with server.running() as port:
        asyncio.run(_serve_floors(pipe, port, reply))
    server.close()


async def _serve_floors(pipe: Connection, our_port: int, reply: bytes) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(line: ServerConnection) -> None:
        path = "/" if line.request is None else line.request.path
        async for message in line:
            await line.send(reply if path == _REPLY_PATH else message)

    async with serve(echo, "127.0.0.1", 0, compression=None, max_size=None) as floors:
        pipe.send((our_port, next(iter(floors.sockets)).getsockname()[1]))
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
