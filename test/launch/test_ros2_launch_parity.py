"""The same files resolved by the packages of `ros2 launch` and by ours: same commands, parameters, remaps, environment.

Where our side refuses, the real one may accept: ours is a subset. Where ours accepts, both have to agree.
"""

import ast
import itertools
import os
import shutil
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.config import package_share
from vla_ros.errors import MissingDependencyError, VlaRosError
from vla_ros.launching import templates
from vla_ros.launching.graph import ParameterFile
from vla_ros.launching.parameters import command_line, parameter_steps, typed_value
from vla_ros.launching.resolve import declared_arguments, resolve
from vla_ros.launching.scope import Scope

REASON = "the ROS packages launch, launch_xml and launch_ros aren't installed: nothing to compare with"
launch_ros = pytest.importorskip("launch_ros.actions", reason=REASON)
pytest.importorskip("launch_xml", reason=REASON)
launch = pytest.importorskip("launch", reason=REASON)
frontend = pytest.importorskip("launch.frontend.parse_substitution", reason=REASON)
type_utils = pytest.importorskip("launch.utilities.type_utils", reason=REASON)
ParameterValue = pytest.importorskip("launch_ros.parameter_descriptions", reason=REASON).ParameterValue
perform_substitutions = pytest.importorskip("launch.utilities", reason=REASON).perform_substitutions

DATA = Path(__file__).parents[1] / "data" / "launch"
LAUNCH = Path(__file__).parents[2] / "launch"
# They include launch files of other packages that only ROS can read: see the test of what those are passed.
DRIVERS = {
    "driver_fr3": ("franka_bringup", "franka.launch.py"),
    "driver_ur": ("ur_robot_driver", "ur_control.launch.py"),
    "driver_ur5e": ("ur_robot_driver", "ur_control.launch.py"),
    "driver_ur10e": ("ur_robot_driver", "ur_control.launch.py"),
    "camera_realsense": ("realsense2_camera", "rs_launch.py"),
}
OURS = [path for path in sorted(LAUNCH.glob("*.launch.xml")) if path.name.removesuffix(".launch.xml") not in DRIVERS]
PROGRAM = "#!/bin/sh\n"


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An ament prefix with our own package and `fake_nodes`, before whatever ROS has in its path."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    for package in ("vla_ros", "fake_nodes"):
        (index / package).touch()
    (tmp_path / "share" / "vla_ros").symlink_to(package_share())
    (tmp_path / "share" / "fake_nodes").mkdir()
    shutil.copy(DATA / "more.yaml", tmp_path / "share" / "fake_nodes")
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(tmp_path), os.environ["AMENT_PREFIX_PATH"]]))
    return tmp_path


def add_programs(prefix, nodes):
    for node in nodes:
        (prefix / "share/ament_index/resource_index/packages" / node.package).touch()
        program = prefix / "lib" / node.package / node.executable
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PROGRAM)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def merged(words, prefix):
    """A command line with the content of written parameter files in place of their paths, neighbours merged."""
    result = []
    words = iter(words)
    for word in words:
        if word != "--params-file":
            result.append(word.replace(str(prefix / "share/vla_ros"), str(package_share())))
            continue
        path = next(words).replace(str(prefix / "share/vla_ros"), str(package_share()))
        if not Path(path).name.startswith("launch_params_"):
            result.append(("file", path))
            continue
        ((key, value),) = yaml.safe_load(Path(path).read_text()).items()
        add_values(result, key, value["ros__parameters"])
    return result


def add_values(result, key, values):
    # repr, since 1, 1.0 and True are equal to Python and different to ROS.
    values = {name: repr(list(value) if isinstance(value, tuple) else value) for name, value in values.items()}
    if result and isinstance(result[-1], tuple) and result[-1][0] == key:
        result[-1][1].update(values)
    else:
        result.append((key, values))


def real_nodes(path, given, prefix, monkeypatch):
    """What launch and launch_ros would execute."""
    found = []

    def record(self, context):
        self.prepare(context)
        description = self.process_description
        extra = description.additional_env or []
        env = {perform_substitutions(context, k): perform_substitutions(context, v) for k, v in extra}
        output = perform_substitutions(context, self.output) if isinstance(self.output, list) else self.output
        found.append((merged(description.final_cmd, prefix), env, output))

    monkeypatch.setattr(launch.actions.ExecuteLocal, "execute", record)
    context = launch.LaunchContext()
    source = launch.launch_description_sources.AnyLaunchDescriptionSource(str(path))
    include = launch.actions.IncludeLaunchDescription(source, launch_arguments=list(given.items()))
    launch.utilities.visit_all_entities_and_collect_futures(include, context)
    return found


def our_nodes(graph, prefix):
    found = []
    for node in graph.nodes:
        steps = parameter_steps(node)
        program = str(prefix / "lib" / node.package / node.executable)
        words = command_line(node, [program], [f"step {number}" for number in range(len(steps))])
        result = []
        words = iter(words)
        for word in words:
            if word != "--params-file":
                result.append(word)
                continue
            step = steps[int(next(words).split()[1])]
            if isinstance(step, ParameterFile):
                result.append(("file", str(step.path)))
            else:
                ((key, value),) = yaml.safe_load(step).items()
                add_values(result, key, value["ros__parameters"])
        found.append((result, dict(node.env), node.output))
    return found


def assert_same(path, given, prefix, monkeypatch):
    graph = resolve(path, given)
    add_programs(prefix, graph.nodes)
    with monkeypatch.context() as patch:
        assert our_nodes(graph, prefix) == real_nodes(path, given, prefix, patch)
    return graph


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
@pytest.mark.parametrize("hardware", ["sim", "mock"])
@pytest.mark.parametrize("has_view", ["true", "FALSE"])
def test_every_element_of_the_subset_means_what_it_means_to_ros(robot, hardware, has_view, prefix, monkeypatch):
    given = {"robot": robot, "hardware": hardware, "has_view": has_view}
    graph = assert_same(DATA / "cell.launch.xml", given, prefix, monkeypatch)
    assert len(graph.nodes) > 12


@pytest.mark.parametrize(
    "given", [{"prefix": "x y"}, {"label": "'7'"}, {"rate_hz": "3", "label": "-2"}, {"extra": "a b"}]
)
def test_argument_values_mean_what_they_mean_to_ros(given, prefix, monkeypatch):
    assert_same(DATA / "cell.launch.xml", given | {"hardware": "sim"}, prefix, monkeypatch)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_launch_files_mean_the_same_to_ros(path, prefix, monkeypatch):
    arguments = declared_arguments(path)
    of = {
        item.name: item.choices or (("true", "false") if item.default in ("true", "false") else ())
        for item in arguments
    }
    choices = [[None, *((name, choice) for choice in values)] for name, values in of.items() if values]
    names = {"robot": "panda", "camera": "wrist"}
    required = {
        item.name: (item.choices or (names.get(item.name, "10.0.0.1"),))[0]
        for item in arguments
        if item.default is None
    }
    compared = 0
    for combination in itertools.islice(itertools.product(*choices), 64):
        given = required | dict(filter(None, combination))
        try:
            assert_same(path, given, prefix, monkeypatch)
        except MissingDependencyError:
            continue  # a real driver's own files, which this machine doesn't have
        compared += 1
    assert compared > 0


FAKE_DRIVER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

NAMES = {names!r}


def nodes(context):
    told = {{name: context.launch_configurations.get(name, "") for name in NAMES}}
    return [Node(package="fake_nodes", executable="driver", parameters=[{{"told": repr(told)}}])]


def generate_launch_description():
    return LaunchDescription(
        [*(DeclareLaunchArgument(name, default_value="as it is") for name in NAMES), OpaqueFunction(function=nodes)]
    )
"""
RECORDED = yaml.safe_load((DATA.parent / "driver_arguments.yaml").read_text())


@pytest.mark.parametrize("distribution", ["humble", "jazzy", "kilted", "lyrical"])
@pytest.mark.parametrize("name", DRIVERS)
def test_drivers_are_told_by_ros2_launch_what_our_files_say(name, distribution, prefix, monkeypatch):
    """`ros2 launch` with launch files in the drivers' places that take the drivers' arguments and start a node."""
    package, file = DRIVERS[name]
    recorded = [e for e in RECORDED if e["driver"] == package and e["distribution"] == distribution]
    if not recorded:
        pytest.skip(f"{package} isn't there for {distribution}")
    for needed in (package, "ur_description"):
        (prefix / "share/ament_index/resource_index/packages" / needed).touch()
        (prefix / "share" / needed / "launch").mkdir(parents=True, exist_ok=True)
    names = list(recorded[0]["arguments"])
    (prefix / "share" / package / "launch" / file).write_text(FAKE_DRIVER.format(names=names))
    for other, programs in (("controller_manager", ["spawner"]), ("fake_nodes", ["driver"])):
        (prefix / "share/ament_index/resource_index/packages" / other).touch()
        for program in programs:
            path = prefix / "lib" / other / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PROGRAM)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("ROS_DISTRO", distribution)
    given = {"robot_ip": "10.0.0.1", "prefix": "left_" if name == "driver_ur5e" else "", "ur_type": "ur3e"}
    given = {"camera": "wrist"} if name == "camera_realsense" else given
    found = real_nodes(LAUNCH / f"{name}.launch.xml", given, prefix, monkeypatch)
    (driver,) = [node for node in found if Path(node[0][0]).name == "driver"]
    told = ast.literal_eval(
        ast.literal_eval(dict(word for word in driver[0] if isinstance(word, tuple))["/**"]["told"])
    )
    expected = {
        "franka_bringup": {
            "robot_ip": "10.0.0.1",
            "robot_type": "fr3",
            "namespace": "",
            "load_gripper": "true",
            "controllers_yaml": str(prefix / "share/vla_ros/config/controllers/franka.yaml"),
        },
        "ur_robot_driver": {
            "robot_ip": "10.0.0.1",
            "ur_type": {"driver_ur": "ur3e"}.get(name, name.removeprefix("driver_")),
            "tf_prefix": given.get("prefix"),
            "activate_joint_controller": "false",
            "launch_rviz": "false",
            "headless_mode": "false",
        },
        "realsense2_camera": {"camera_name": "wrist", "camera_namespace": "camera", "serial_no": "''"},
    }[package]
    assert {key: told[key] for key in expected} == expected
    # What isn't passed is left as the driver has it.
    for key in ("use_fake_hardware", "use_mock_hardware", "controllers_file", "initial_joint_controller"):
        assert key not in told or told[key] in ("as it is", "false")
    words = [word for node in found if Path(node[0][0]).name == "spawner" for word in node[0]]
    if package == "ur_robot_driver":
        wanted = f"controllers/{'ur_humble' if distribution == 'humble' else 'ur'}.yaml"
        # Behind a prefix its joints have other names than the file's.
        assert [Path(str(word)).is_file() for word in words if str(word).endswith(wanted)] == [True] * (
            not given["prefix"]
        )
    if package == "franka_bringup":
        assert "--inactive" in words
    if package == "realsense2_camera":
        assert "~/color/image_raw:=wrist/image" in driver[0]


TEMPLATE_PIECES = st.sampled_from(
    [*("$(var x)", "$(var $(var y))", "$(env NOT_SET_HERE ", "$(var nope "), *")'\"\\$( a/", "b c", "[1, "]
)


@settings(max_examples=600, deadline=None)
@given(text=st.lists(TEMPLATE_PIECES, max_size=9).map("".join))
def test_substitutions_we_accept_yield_what_ros_yields(text):
    variables = {"x": "X 1", "y": "x"}
    try:
        ours = Scope(variables, {}).text(text, "here")
    except VlaRosError:
        return
    context = launch.LaunchContext()
    context.launch_configurations.update(variables)
    assert ours == perform_substitutions(context, frontend.parse_substitution(text))


VALUE_PIECES = st.sampled_from(
    [*("$(var number)", "$(var text)", "$(var list)"), *("-2", "1.5", "true", "no", ", ", "e3"), *"1a []':~{"]
)
TYPES = {"str": str, "bool": bool, "int": int, "float": float, None: None, "yaml": None}


@settings(max_examples=1500, deadline=None)
@given(text=st.lists(VALUE_PIECES, max_size=6).map("".join), type_name=st.sampled_from(list(TYPES)))
def test_parameter_values_we_accept_have_the_type_ros_gives_them(text, type_name):
    variables = {"number": "5", "text": "b c", "list": "[1.0, 2.0]"}
    scope = Scope(variables, {})
    try:
        ours = typed_value(text, type_name, lambda template: scope.substitute(template, "here"), "here")
    except VlaRosError:
        return
    context = launch.LaunchContext()
    context.launch_configurations.update(variables)
    parsed = frontend.parse_if_substitutions(type_utils.get_typed_value(text, TYPES[type_name], can_be_str=True))
    real = ParameterValue(parsed, value_type=TYPES[type_name]).evaluate(context)
    assert repr(ours) == repr(real)


def test_templates_name_no_substitution_that_ros_lacks():
    launch.frontend.Parser.load_launch_extensions()
    known = pytest.importorskip("launch.frontend.expose").substitution_parse_methods
    assert set(templates.KNOWN) <= set(known)
