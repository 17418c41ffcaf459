"""What tests share: a ROS domain of their own, processes that don't outlive them, and small checkpoints."""

from __future__ import annotations

import vla_ros.sim  # isort: skip # Settles MUJOCO_GL before anything imports mujoco.  # noqa: F401

import ctypes
import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla_ros.launching.environment import defaults_without_ros

CHECKOUT = Path(__file__).parents[1]
# For `import bags`: what tests of several folders share.
sys.path.append(str(Path(__file__).parent))
# Above Linux's ephemeral ports, where DDS has domains that people seldom use.
_DOMAINS = range(215, 233)
# Generous: a loaded machine starts a node in many seconds.
PATIENCE_S = 30.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What runs in real time, over DDS, fails on a shared machine that stands still at the wrong moment: such a test
    has a second attempt, and the summary tells which needed it. Without pytest-rerunfailures, which rosdep doesn't
    know, it has one."""
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))


class DomainPool:
    """Hands out ROS domains that no other test run on this machine uses at the same time."""

    def __init__(self) -> None:
        self._next = itertools.cycle(_DOMAINS)

    def take(self) -> tuple[int, socket.socket]:
        """A free domain, and the socket whose address reserves it until it is closed."""
        for domain in itertools.islice(self._next, len(_DOMAINS)):
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0vla_ros_test_domain_{domain}")
            except OSError:
                lock.close()
                continue
            return domain, lock
        raise RuntimeError(f"all ROS domains {_DOMAINS} are in use by tests")


@pytest.fixture(scope="session")
def domain_pool() -> DomainPool:
    return DomainPool()


@pytest.fixture(scope="module")
def module_domain(domain_pool: DomainPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One ROS domain for all tests of a module that share running nodes."""
    yield from _own_domain(domain_pool, tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def ros_domain(
    request: pytest.FixtureRequest, domain_pool: DomainPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int | None]:
    """A ROS domain for each test marked `ros`, its module's where that has one."""
    if "module_domain" in request.fixturenames:
        yield request.getfixturevalue("module_domain")
    elif request.node.get_closest_marker("ros"):
        yield from _own_domain(domain_pool, tmp_path_factory.mktemp("state"))
    else:
        yield None


def _own_domain(pool: DomainPool, state_folder: Path) -> Iterator[int]:
    domain, lock = pool.take()
    with lock, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        # Where a stop outlives the process that latched it: one that a test leaves behind is nobody else's.
        patch.setenv("XDG_STATE_HOME", str(state_folder))
        for key, value in defaults_without_ros(os.environ).items():
            patch.setenv(key, value)
        yield domain


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Waits for a condition and returns its value; fails with what was waited for."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.01)
    return value


_prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)


def _end_with_parent() -> None:
    """A test run that is killed leaves no node behind, which would talk into the next run."""
    pr_set_pdeathsig = 1
    _prctl(pr_set_pdeathsig, int(signal.SIGTERM), 0, 0, 0)


class Process(subprocess.Popen[bytes]):
    """A process with all that it prints in a file."""

    def __init__(self, words: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            super().__init__(
                words, stdout=file, stderr=subprocess.STDOUT, cwd=CHECKOUT, env=environ, preexec_fn=_end_with_parent
            )

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        """Asks it to end as Ctrl-C does, and returns its exit code."""
        if self.poll() is None:
            self.send_signal(signal.SIGINT)
        return self.wait(PATIENCE_S)


class Processes:
    """Starts processes, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Process] = []

    def start(self, *words: str, **environ: str) -> Process:
        """Starts a command in the checkout, with the environment of now and what is given beside."""
        log = self._folder / f"{len(self._started)}.log"
        process = Process(words, log, {**os.environ, "PYTHONUNBUFFERED": "1", **environ})
        self._started.append(process)
        return process

    def start_node(self, name: str, **parameters: Any) -> Process:
        """Starts one of our executables with parameters."""
        assignments = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
        return self.start(sys.executable, "-m", "vla_ros.nodes", name, "--ros-args", *assignments)

    def start_command(self, *words: str, **environ: str) -> Process:
        """Starts `vla-ros ...`."""
        return self.start(sys.executable, "-m", "vla_ros.cli", *words, **environ)

    def close(self) -> None:
        """Interrupts everything, and kills what doesn't listen: at the end, and of an attempt before."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._started:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def module_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes that live as long as a module's tests."""
    processes = Processes(tmp_path_factory.mktemp("processes"))
    yield processes
    processes.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes that live as long as a test."""
    folder = tmp_path / "processes"
    folder.mkdir()
    processes = Processes(folder)
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def patience() -> Callable[..., Any]:
    """`wait_until`."""
    return wait_until


class Peer:
    """A plain node with a DDS participant of its own, spun by a thread of its own.

    Args:
        name: of the node.
        namespace: of the node, with its slash.
    """

    def __init__(self, name: str, namespace: str = "") -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node(name, namespace=namespace, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._is_over = False
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._is_over:
            self._executor.spin_once(timeout_sec=0.1)

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def hear(self, kind: type, topic: str) -> list[Any]:
        """Subscribes; the list grows with every message."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, 1000)
        return heard

    def speak(self, kind: type, topic: str, is_latched: bool = False) -> Any:
        """A publisher; `matched` waits until somebody listens to it."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        durability = DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE
        return self.node.create_publisher(kind, topic, QoSProfile(depth=10, durability=durability))

    def matched(self, publisher: Any) -> Any:
        wait_until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {publisher.topic_name}")
        return publisher

    def call(self, kind: type, name: str, request: Any = None) -> Any:
        """Calls a service and returns its answer."""
        client = self.node.create_client(kind, name)
        wait_until(client.service_is_ready, f"service {name}")
        future = client.call_async(kind.Request() if request is None else request)
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def set_parameter(self, node: str, name: str, value: Any) -> Any:
        """Sets a parameter of another node and returns whether it was taken, and why not."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f"{node}/set_parameters", request).results[0]

    def close(self) -> None:
        """Leaves the graph."""
        if not self._is_over:
            self._is_over = True
            self._thread.join()
            self._executor.shutdown()
            self.node.destroy_node()
            self.context.shutdown()


def _peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(name: str, namespace: str = "") -> Peer:
        made.append(Peer(name, namespace))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def make_peer(ros_domain: int | None) -> Iterator[Callable[..., Peer]]:
    """Makes nodes for one test."""
    yield from _peers()


@pytest.fixture(scope="module")
def make_module_peer(module_domain: int) -> Iterator[Callable[..., Peer]]:
    """Makes nodes for all tests of a module."""
    yield from _peers()


class TinyCheckpoints:
    """Checkpoints of own networks with random weights, small enough to be made on the spot.

    Settings that networks share are made small; a new network needs no line here, but its defaults may cost seconds.
    """

    SETTINGS: Mapping[str, Any] = {
        "width": 16, "heads": 2, "mlp_width": 16, "layers": 1, "posterior_layers": 1, "encoder_layers": 1,
        "decoder_layers": 1, "latent_width": 4, "keypoints": 2, "channels": (8, 16), "steps": 2,
        "unet_channels": (8, 16), "transformer_layers": 1,
    }  # fmt: skip
    WORDS = ("block", "blue", "green", "left", "pick", "push", "reach", "red", "the", "up")
    SIZE, HORIZON = 32, 6

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[str, bool], Path] = {}

    def get(self, architecture: str, *, is_exported: bool = False) -> Path:
        """The folder of one, made once a session; not to be written to."""
        key = (architecture, is_exported)
        if key not in self._made:
            folder = self._folder / f"{architecture}{'_exported' * is_exported}"
            self.write(folder, architecture)
            if is_exported:
                self.export(folder)
            self._made[key] = folder
        return self._made[key]

    def write(self, folder: Path, architecture: str, *, seed: int = 0, **settings: Any) -> Path:
        """Writes one; settings come before the small ones."""
        torch = pytest.importorskip("torch")
        from vla_ros.policies.architectures.base import architecture_class
        from vla_ros.policies.architectures.spec import ModelSpec
        from vla_ros.policies.normalisation import Statistics
        from vla_ros.policies.statistics_file import CheckpointStatistics
        from vla_ros.policies.torch_model import save_policy

        spec = ModelSpec(("base", "wrist"), (self.SIZE, self.SIZE), 8, 7, self.HORIZON, self.WORDS, max_words=8)
        network = architecture_class(architecture)
        names = {field.name for field in dataclasses.fields(network.config_class)}
        chosen = {key: value for key, value in {**self.SETTINGS, **settings}.items() if key in names}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = network(spec, network.config_class(**chosen))
        rng = np.random.default_rng(seed)
        contract = self.contract()
        state, action = rng.standard_normal((50, 8)), 0.02 * rng.standard_normal((50, 7))
        statistics = CheckpointStatistics(
            Statistics.from_samples(state), Statistics.from_samples(action), "random", contract.interface_hash
        )
        save_policy(folder, model, contract, statistics)
        return folder

    def export(self, folder: Path) -> Path:
        """Exports one to ONNX."""
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
        from vla_ros.policies.export import export_onnx

        return export_onnx(folder)

    def contract(self) -> Any:
        """What they were trained under: two images, pose and gripper in; moves relative to the observation out."""
        from vla_ros import contract as c

        images = {name: c.ImageSpec(name, self.SIZE, self.SIZE) for name in ("base", "wrist")}
        return c.Contract(
            "tiny",
            c.ObservationSpec(images, (c.StateItem("tcp_pose"), c.StateItem("gripper")), "base"),
            c.ActionSpec("tool", "observation", 0.1, rotation="rotvec"),
            c.Normalisation(c.NormalisationSpec("mean_std"), c.NormalisationSpec("min_max")),
        )


@dataclasses.dataclass(frozen=True)
class LeRobotPolicies:
    """Small random policies made by lerobot (test/data/lerobot/reference.py), and the Python that has it."""

    folder: Path
    python: Path


@pytest.fixture(scope="session")
def lerobot_policies(tmp_path_factory: pytest.TempPathFactory) -> LeRobotPolicies:
    """Policies by name: `act`, `diffusion`, `smolvla`."""
    python = os.environ.get("VLA_ROS_LEROBOT_PYTHON")
    if not python:
        pytest.skip(
            "VLA_ROS_LEROBOT_PYTHON isn't set: scripts/make_lerobot_environment.sh FOLDER, then FOLDER/bin/python"
        )
    from vla_ros.policies.environment import child_environ

    folder = tmp_path_factory.mktemp("lerobot")
    program = CHECKOUT / "test" / "data" / "lerobot" / "reference.py"
    words = [python, str(program), str(folder)]
    done = subprocess.run(words, env=child_environ(CHECKOUT), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return LeRobotPolicies(folder, Path(python))


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoints:
    return TinyCheckpoints(tmp_path_factory.mktemp("checkpoints"))
