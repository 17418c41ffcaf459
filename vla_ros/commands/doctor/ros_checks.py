"""Checks of ROS. All of it is imported in processes of their own."""

from __future__ import annotations

import os
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

from vla_ros.commands.doctor.finding import Check, Finding
from vla_ros.commands.doctor.probe import PIP, answer, ask, start
from vla_ros.evaluation.versions import installed_version

DISTRIBUTIONS = ("humble", "jazzy", "kilted", "lyrical")
OPT_ROS = Path("/opt/ros")
WHEELS = "'ros-rclpy[fastrtps]>=9.1.2,<10' 'ros-common-interfaces>=5.5.1,<6'"
EXCHANGE_S = 5.0

_MESSAGES = """
import importlib
absent = []
for package in {packages!r}:
    try:
        importlib.import_module(package + (".srv" if package == "std_srvs" else ".msg"))
    except ImportError as error:
        absent.append(f"{{package}} ({{error}})")
if absent:
    raise SystemExit("; ".join(absent))
"""

# They end in order, when they have heard or are told to by SIGTERM: killed ones leave segments in /dev/shm.
_NODE = """
import signal, time, rclpy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node("vla_ros_doctor_{role}_{number}")
topic, heard = "vla_ros_doctor_{number}", []
end_s = time.monotonic() + {seconds}
"""
_PUBLISH = """
publisher = node.create_publisher(String, topic, 10)
while not signals and time.monotonic() < end_s:
    publisher.publish(String(data="{number}"))
    time.sleep(0.05)
"""
_SUBSCRIBE = """
node.create_subscription(String, topic, lambda message: heard.append(message.data), 10)
while not heard and time.monotonic() < end_s:
    rclpy.spin_once(node, timeout_sec=0.1)
if heard[:1] != ["{number}"]:
    print("nothing was heard within {seconds:g} s")
"""
_END = """
node.destroy_node()
rclpy.try_shutdown()
"""


def check_ros() -> Finding:
    """Which ROS there is: a sourced distribution, or the wheels from PyPI."""
    sourced, wheel = os.environ.get("ROS_DISTRO"), installed_version("ros-rclpy")
    if sourced in DISTRIBUTIONS:
        return Finding("ros", "ok", f"{sourced} is sourced")
    if sourced:
        detail = f"{sourced} is sourced; vla_ros is made for {', '.join(DISTRIBUTIONS)}"
        return Finding("ros", "optional", detail, "source one of those")
    if wheel:
        return Finding("ros", "ok", f"wheels from PyPI, ros-rclpy {wheel}")
    installed = sorted(path.name for path in OPT_ROS.glob("*") if (path / "setup.bash").is_file())
    if installed:
        found = f"{', '.join(installed)} in {OPT_ROS}, not sourced"
        return Finding("ros", "missing", found, f"source {OPT_ROS}/{installed[-1]}/setup.bash")
    return Finding("ros", "missing", "neither a distribution nor the wheels", f"{PIP} {WHEELS}")


def check_rclpy() -> Finding:
    """Whether rclpy imports, which loads ROS's libraries."""
    reply = ask("import rclpy; print(rclpy.__file__)")
    if reply.is_ok:
        return Finding("rclpy", "ok", str(Path(reply.text.splitlines()[-1]).parent))
    return Finding("rclpy", "missing", reply.text, _mend_for("rclpy"))


def message_packages() -> list[str]:
    """The message packages that package.xml depends on, without tf2_msgs."""
    from vla_ros.config import package_share

    package = xml.etree.ElementTree.parse(package_share() / "package.xml").getroot()
    names = [depend.text or "" for depend in package.findall("depend")]
    return [name for name in names if name.endswith(("_msgs", "_interfaces", "_srvs")) and name != "tf2_msgs"]


def check_messages() -> Finding:
    """Whether the message packages import."""
    packages = message_packages()
    reply = ask(_MESSAGES.format(packages=packages))
    if reply.is_ok:
        return Finding("messages", "ok", f"{len(packages)} packages")
    return Finding("messages", "missing", reply.text, _mend_for("common-interfaces"))


def check_tf2_msgs() -> Finding:
    """Whether tf2_msgs imports; PyPI doesn't have it."""
    reply = ask("from tf2_msgs.msg import TFMessage; TFMessage()")
    if reply.is_ok:
        return Finding("tf2_msgs", "ok", f"{installed_version('vla-ros-interfaces') or 'from the distribution'}")
    return Finding("tf2_msgs", "missing", reply.text, _mend_for("tf2-msgs"))


def check_rmw() -> Finding:
    """Which middleware rclpy loads."""
    reply = ask("from rclpy.utilities import get_rmw_implementation_identifier as name; print(name())")
    if reply.is_ok:
        return Finding("rmw", "ok", reply.text.splitlines()[-1])
    chosen = os.environ.get("RMW_IMPLEMENTATION")
    if chosen:
        return Finding("rmw", "missing", f"RMW_IMPLEMENTATION={chosen}: {reply.text}", "unset RMW_IMPLEMENTATION")
    return Finding("rmw", "missing", reply.text, _mend_for("rmw-fastrtps-cpp"))


def check_dds() -> Finding:
    """Whether a message gets from one process to another."""
    number = os.getpid()
    code = {
        role: (_NODE + body + _END).format(role=role, number=number, seconds=EXCHANGE_S)
        for role, body in (("publisher", _PUBLISH), ("subscriber", _SUBSCRIBE))
    }
    begin_s = time.monotonic()
    publisher, subscriber = start(code["publisher"]), start(code["subscriber"])
    try:
        heard = answer(subscriber, timeout_s=3.0 * EXCHANGE_S)
    finally:
        took_s = time.monotonic() - begin_s
        publisher.terminate()
        said = answer(publisher, timeout_s=EXCHANGE_S)
    if heard.is_ok and not heard.text:
        return Finding("dds", "ok", f"a message passed between two processes, {took_s:.1f} s from their start")
    detail = heard.text if said.is_ok else f"{heard.text} (publisher: {said.text})"
    mend = "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST; then look at a firewall on loopback, and at /dev/shm"
    return Finding("dds", "missing", detail, mend)


def _mend_for(package: str) -> str:
    """The command that installs a ROS package here; `package` is its name with dashes."""
    sourced = os.environ.get("ROS_DISTRO")
    if sourced:
        return f"sudo apt-get install ros-{sourced}-{package}"
    if package == "tf2-msgs":
        return f"{PIP} {_interfaces()}"
    return f"{PIP} {WHEELS}"


def _interfaces() -> Path:
    """The checkout's folder, or its name below a checkout where this isn't one."""
    from vla_ros.config import package_share

    folder = package_share() / "interfaces"
    return folder if folder.is_dir() else Path("interfaces")


def check_environment() -> Finding:
    """The variables that decide who hears whom, and whether they fit each other."""
    names = (
        "ROS_DOMAIN_ID",
        "RMW_IMPLEMENTATION",
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "ROS_LOCALHOST_ONLY",
        "FASTDDS_BUILTIN_TRANSPORTS",
    )
    found = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ) or "no ROS variable is set"
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    if not (domain.isascii() and domain.isdigit() and int(domain) <= 232):
        return Finding("environment", "missing", f"{found}: not a domain, 0 to 232", "export ROS_DOMAIN_ID=0")
    if "ROS_LOCALHOST_ONLY" in os.environ and "ROS_AUTOMATIC_DISCOVERY_RANGE" in os.environ:
        return Finding("environment", "optional", f"{found}: the old one overrules", "unset ROS_LOCALHOST_ONLY")
    transports = os.environ.get("FASTDDS_BUILTIN_TRANSPORTS")
    if transports != "LARGE_DATA" and (transports or "ROS_DISTRO" in os.environ):
        mend = "export FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA (Jazzy and later)"
        return Finding("environment", "optional", f"{found}: Fast DDS loses large images", mend)
    return Finding("environment", "ok", found)


def check_bootstrap() -> Finding:
    """Whether the wheels' two variables are passed on together."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    is_marked = bool(os.environ.get("_ROS_WHEELS_BOOTSTRAP_COMPLETE"))
    if is_marked and str(Path(sys.prefix, "lib")) not in libraries:
        detail = f"_ROS_WHEELS_BOOTSTRAP_COMPLETE is set, but LD_LIBRARY_PATH lacks {sys.prefix}/lib"
        return Finding("bootstrap", "missing", detail, "unset _ROS_WHEELS_BOOTSTRAP_COMPLETE")
    return Finding("bootstrap", "ok", "the wheels' libraries are on LD_LIBRARY_PATH" if is_marked else "not in use")


ROS_CHECKS: tuple[Check, ...] = (
    check_ros,
    check_rclpy,
    check_messages,
    check_tf2_msgs,
    check_rmw,
    check_environment,
    check_bootstrap,
)
DEEP_CHECKS: tuple[Check, ...] = (check_dds,)
