"""`vla-ros doctor`: what it says of this machine, and of machines where something is missing."""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vla_ros.config
from vla_ros.commands import doctor
from vla_ros.commands.doctor import machine_checks, probe, python_checks, ros_checks
from vla_ros.commands.doctor.finding import Finding, examine
from vla_ros.commands.doctor.probe import PIP, ask

ROOT = Path(doctor.__file__).parents[3]
ALONE = """
import sys
from vla_ros.cli import main
code = main(["doctor", "--json"])
heavy = {"rclpy", "std_msgs", "mujoco", "cv2", "pinocchio", "av", "torch"} & sys.modules.keys()
if heavy:
    raise SystemExit(f"imported in the doctor's own process: {heavy}")
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ROS_DISTRO",
        "ROS_DOMAIN_ID",
        "RMW_IMPLEMENTATION",
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "ROS_LOCALHOST_ONLY",
        "FASTDDS_BUILTIN_TRANSPORTS",
    ):
        monkeypatch.delenv(name, raising=False)


def test_doctor_examines_this_machine_without_importing_what_could_crash() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    findings = {check["name"]: check for check in report["checks"]}
    assert len(findings) == len(report["checks"]), "a name is there twice"
    assert {"python", "ros", "rclpy", "tf2_msgs", "rmw", "rendering", "configs", "leftovers"} <= findings.keys()
    missing = [name for name, check in findings.items() if check["status"] == "missing"]
    assert report["missing"] == missing
    assert report["ok"] == (done.returncode == 0) == (not missing)
    for name, check in findings.items():
        assert check["status"] in ("ok", "missing", "optional"), name
        assert check["detail"], name
        assert "\n" not in check["detail"] + check["mend"], name
        assert (check["status"] == "ok") == (check["mend"] == ""), name
    for name in ("python", "numpy", "scipy", "yaml", "opencv", "share", "configs"):  # Without these, no test runs.
        assert findings[name]["status"] == "ok", findings[name]


def run_doctor(monkeypatch: pytest.MonkeyPatch, findings: list[Finding], *words: str) -> int:
    checks = tuple((lambda finding=finding: finding) for finding in findings)
    monkeypatch.setattr(doctor, "PYTHON_CHECKS", checks)
    monkeypatch.setattr(doctor, "ROS_CHECKS", ())
    monkeypatch.setattr(doctor, "MACHINE_CHECKS", ())
    monkeypatch.setattr(doctor, "DEEP_CHECKS", (lambda: Finding("dds", "missing", "nothing was heard", "mend it"),))
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    args = parser.parse_args(["doctor", *words])
    return int(args.run(args))


GOOD, OPTIONAL = Finding("a", "ok", "1.0"), Finding("b", "optional", "not there", "pip install b")
BAD = Finding("c", "missing", "not there", "pip install c")


def test_only_what_is_missing_makes_the_exit_code_1(monkeypatch, capsys) -> None:
    assert run_doctor(monkeypatch, [GOOD, OPTIONAL]) == 0
    assert run_doctor(monkeypatch, [GOOD, OPTIONAL, BAD]) == 1
    assert run_doctor(monkeypatch, [GOOD], "--deep") == 1
    assert "missing: dds" in capsys.readouterr().out


def test_a_line_says_status_name_detail_and_mend(monkeypatch, capsys) -> None:
    run_doctor(monkeypatch, [GOOD, BAD])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["ok", "a", "1.0"],
        ["missing", "c", "not", "there;", "mend:", "pip", "install", "c"],
    ]
    assert lines[2:] == ["missing: c"]


def test_findings_come_in_order_and_a_check_that_fails_is_one() -> None:
    def check_slow() -> Finding:
        time.sleep(0.1)
        return GOOD

    def check_broken() -> Finding:
        raise RuntimeError("two\nlines")

    first, second, third = examine([check_slow, check_broken, lambda: BAD])
    assert (first, third) == (GOOD, BAD)
    assert (second.name, second.status, second.detail) == ("broken", "missing", "RuntimeError: two lines")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os.abort()", "the process died of SIGABRT"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("raise SystemExit('first\\nsecond')", "second"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
)
def test_a_probe_that_fails_says_why(code: str, text: str) -> None:
    answer = ask(code, timeout_s=0.5 if "sleep" in code else 30.0)
    assert not answer.is_ok
    assert answer.text == text


def test_probes_import_this_vla_ros() -> None:
    assert ask("import vla_ros; print(vla_ros.__file__)").text == str(ROOT / "vla_ros" / "__init__.py")


def test_a_library_that_is_not_there_is_missing_with_its_command() -> None:
    check = python_checks.library_check("thing", "not_there_at_all", "thing-on-pypi", "nothing")
    expected = "ModuleNotFoundError: No module named 'not_there_at_all' (for nothing)"
    assert check() == Finding("thing", "missing", expected, f"{PIP} thing-on-pypi")
    optional = python_checks.library_check("thing", "not_there_at_all", "thing", is_required=False)
    assert optional().status == "optional"


def test_a_library_that_is_there_shows_its_version() -> None:
    import numpy

    assert python_checks.library_check("numpy", "numpy", "numpy")() == Finding("numpy", "ok", numpy.__version__)


@pytest.mark.parametrize(
    ("version", "status"), [((3, 9), "missing"), ((3, 10), "ok"), ((3, 12), "ok"), ((3, 13), "missing")]
)
def test_python_has_to_be_one_that_is_supported(monkeypatch, version: tuple[int, int], status: str) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 1))
    assert python_checks.check_python().status == status


def answering(text: str, is_ok: bool = True) -> Callable[..., probe.Answer]:
    return lambda *_args, **_options: probe.Answer(is_ok, text)


def test_without_opengl_the_package_to_install_is_named(monkeypatch) -> None:
    monkeypatch.setattr(python_checks, "ask", answering(""))
    assert python_checks.check_opengl().status == "missing"
    assert python_checks.check_opengl().mend == "sudo apt-get install libosmesa6"
    monkeypatch.setattr(python_checks, "ask", answering("egl"))
    assert python_checks.check_opengl().status == "ok"


def test_rendering_that_is_switched_off_is_missing(monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    finding = python_checks.check_rendering()
    assert finding.status == "missing"
    assert "MUJOCO_GL=disable" in finding.detail
    assert "libosmesa6" in finding.mend


@pytest.mark.sim
def test_rendering_draws_what_it_should() -> None:
    pytest.importorskip("mujoco")
    assert ask(python_checks._RENDER).text.endswith("drew 32x32 pixels")
    wrong = ask(python_checks._RENDER.replace("1 0 0 1", "0 0 1 1"))
    assert "a red ball came out as" in wrong.text


def test_av_without_x264_is_optional(monkeypatch) -> None:
    monkeypatch.setattr(python_checks, "ask", answering(""))
    assert python_checks.check_codec().status == "optional"
    monkeypatch.setattr(python_checks, "ask", answering("no av", is_ok=False))
    assert python_checks.check_codec().status == "missing"


def test_cuda_is_never_missing(monkeypatch) -> None:
    for answer, status in (
        (answering("GPU, CUDA 13"), "ok"),
        (answering(""), "optional"),
        (answering("x", False), "optional"),
    ):
        monkeypatch.setattr(python_checks, "ask", answer)
        assert python_checks.check_cuda().status == status


def test_a_config_that_cannot_be_read_is_named(monkeypatch, tmp_path: Path) -> None:
    shutil.copytree(vla_ros.config.package_share() / "config", tmp_path / "config")
    monkeypatch.setattr(vla_ros.config, "package_share", lambda: tmp_path)
    assert python_checks.check_configs().status == "ok"
    for name in ("robots/panda.yaml", "rigs/ur5e_table.yaml", "policies/scripted_visual.yaml", "safety.yaml"):
        path = tmp_path / "config" / name
        text = path.read_text()
        path.write_text(text + "\nsurprise: 1\n")
        finding = python_checks.check_configs()
        assert finding.status == "missing", name
        assert f"{path}: unknown key 'surprise'" in finding.detail
        path.write_text(text)
    assert python_checks.check_share().status == "missing"
    assert "launch, urdf" in python_checks.check_share().detail


def test_ros_is_a_sourced_distribution_or_the_wheels(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ros_checks, "OPT_ROS", tmp_path)
    monkeypatch.setattr(ros_checks, "installed_version", lambda name: None)
    nothing = ros_checks.check_ros()
    assert nothing.status == "missing"
    assert "ros-rclpy[fastrtps]" in nothing.mend

    (tmp_path / "jazzy").mkdir()
    (tmp_path / "jazzy" / "setup.bash").write_text("")
    not_sourced = ros_checks.check_ros()
    assert (not_sourced.status, not_sourced.mend) == ("missing", f"source {tmp_path}/jazzy/setup.bash")

    monkeypatch.setattr(ros_checks, "installed_version", lambda name: {"ros-rclpy": "9.1.2"}[name])
    assert ros_checks.check_ros() == Finding("ros", "ok", "wheels from PyPI, ros-rclpy 9.1.2")
    monkeypatch.setenv("ROS_DISTRO", "humble")
    assert ros_checks.check_ros() == Finding("ros", "ok", "humble is sourced")
    monkeypatch.setenv("ROS_DISTRO", "foxy")
    assert ros_checks.check_ros().status == "optional"


def test_message_packages_are_those_of_package_xml() -> None:
    packages = ros_checks.message_packages()
    assert {"sensor_msgs", "trajectory_msgs", "std_srvs", "builtin_interfaces"} <= set(packages)
    assert not {"rclpy", "tf2_msgs"} & set(packages)


def test_a_message_package_that_is_not_there_is_named(monkeypatch) -> None:
    monkeypatch.setattr(ros_checks, "message_packages", lambda: ["not_there_msgs"])
    finding = ros_checks.check_messages()
    assert finding.status == "missing"
    assert "not_there_msgs (No module named 'not_there_msgs')" in finding.detail


def test_ros_packages_are_mended_by_apt_where_ros_is_sourced_and_by_pip_elsewhere(monkeypatch) -> None:
    monkeypatch.setattr(ros_checks, "ask", answering("gone", is_ok=False))
    assert ros_checks.check_tf2_msgs().mend == f"{PIP} {ROOT / 'interfaces'}"
    assert ros_checks.check_rclpy().mend == f"{PIP} {ros_checks.WHEELS}"
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert ros_checks.check_tf2_msgs().mend == "sudo apt-get install ros-jazzy-tf2-msgs"
    assert ros_checks.check_messages().mend == "sudo apt-get install ros-jazzy-common-interfaces"


@pytest.mark.ros
def test_a_middleware_that_is_not_there_is_missing(monkeypatch) -> None:
    pytest.importorskip("rclpy")
    assert ros_checks.check_rmw().status == "ok"
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_not_there_cpp")
    finding = ros_checks.check_rmw()
    assert (finding.status, finding.mend) == ("missing", "unset RMW_IMPLEMENTATION")
    assert "rmw_not_there_cpp" in finding.detail


@pytest.mark.ros
def test_a_message_passes_between_two_processes(monkeypatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
    finding = ros_checks.check_dds()
    assert finding.status == "ok", finding


@pytest.mark.ros
def test_silence_between_two_processes_is_found(monkeypatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setattr(ros_checks, "EXCHANGE_S", 0.5)
    monkeypatch.setattr(ros_checks, "_PUBLISH", "")
    finding = ros_checks.check_dds()
    assert (finding.status, finding.detail) == ("missing", "nothing was heard within 0.5 s")


@pytest.mark.parametrize(
    ("variables", "status", "text"),
    [
        ({}, "ok", "no ROS variable"),
        ({"ROS_DOMAIN_ID": "42"}, "ok", "ROS_DOMAIN_ID=42"),
        ({"ROS_DOMAIN_ID": "233"}, "missing", "export ROS_DOMAIN_ID=0"),
        ({"ROS_DOMAIN_ID": "lab"}, "missing", "export ROS_DOMAIN_ID=0"),
        (
            {"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"},
            "optional",
            "unset ROS_LOCALHOST_ONLY",
        ),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, "optional", "LARGE_DATA"),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, "ok", "LARGE_DATA"),
        ({"ROS_DISTRO": "jazzy"}, "optional", "export FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA"),
    ],
)
def test_variables_that_do_not_fit_are_told(monkeypatch, variables: dict[str, str], status: str, text: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    finding = ros_checks.check_environment()
    assert finding.status == status
    assert text in finding.detail + finding.mend


@pytest.mark.parametrize(
    ("mark", "libraries", "status"),
    [("", "", "ok"), ("1", f"/x:{sys.prefix}/lib", "ok"), ("1", "", "missing"), ("1", "/other/lib", "missing")],
)
def test_the_wheels_variables_have_to_come_together(monkeypatch, mark: str, libraries: str, status: str) -> None:
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", mark)
    monkeypatch.setenv("LD_LIBRARY_PATH", libraries)
    assert ros_checks.check_bootstrap().status == status


def test_one_core_is_told(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert machine_checks.check_cores().status == "optional"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert machine_checks.check_cores().status == "ok"


def test_a_priority_that_cannot_be_raised_is_told(monkeypatch) -> None:
    assert machine_checks.check_priority().status in ("ok", "optional")
    monkeypatch.setattr(machine_checks, "ask", answering("PermissionError", is_ok=False))
    finding = machine_checks.check_priority()
    assert finding.status == "optional"
    assert "nice -10" in finding.mend
    assert os.getpriority(os.PRIO_PROCESS, 0) >= 0, "the doctor's own priority was changed"


def test_leftovers_are_segments_of_fast_dds_that_nobody_uses(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_checks, "SHARED_MEMORY", tmp_path)
    assert machine_checks.check_leftovers().status == "ok"
    for name in ("fastrtps_0123", "sem.fastdds_port7000_mutex", "fast_datasharing_1", "somebody_elses"):
        (tmp_path / name).write_bytes(bytes(4096))
    finding = machine_checks.check_leftovers()
    assert finding.status == "optional"
    assert finding.detail.startswith("3 segments")
    assert "rm -f" in finding.mend


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm to write to")
def test_segments_in_use_are_not_leftovers() -> None:
    path = Path(f"/dev/shm/fastrtps_test_{os.getpid()}")
    try:
        with path.open("w+b") as file:
            file.truncate(4096)
            assert path.name in machine_checks._mapped_segments()
            memory = mmap.mmap(file.fileno(), 4096)
        assert path.name in machine_checks._mapped_segments()
        memory.close()
        assert path.name not in machine_checks._mapped_segments()
    finally:
        path.unlink()
