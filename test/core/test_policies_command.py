"""`vla-ros policies`: what it lists, what it says is wrong, and a package of one's own as docs/policies.md has it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_ros import cli
from vla_ros.commands.policies.examining import MARK, Finding, examine
from vla_ros.commands.policies.listing import describe, list_policies
from vla_ros.config import config_names, package_share
from vla_ros.errors import MissingDependencyError
from vla_ros.policies.registry import BUILT_IN, load_factory

DOCUMENT = package_share() / "docs" / "policies.md"


def blocks(language: str) -> list[str]:
    """The code blocks of the document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the document, installed by pip into a folder of its own, and beside it one that is broken."""
    target = tmp_path_factory.mktemp("target")
    sources = {"hover": (blocks("python")[0], blocks("toml")[0])}
    broken = sources["hover"][1].replace("hover:Hover", "shaky:Shaky").replace("hover", "shaky")
    sources["shaky"] = ("print('hello')\nraise RuntimeError('fell over')\n", broken)
    folders = []
    for name, (code, project) in sources.items():
        folders.append(tmp_path_factory.mktemp(name))
        (folders[-1] / f"{name}.py").write_text(code)
        (folders[-1] / "pyproject.toml").write_text(project)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", str(target), *map(str, folders)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (target / "hover.yaml").write_text(blocks("yaml")[0])
    return target


def run_with(target: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package_share()), str(target)])}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=target, env=environment, check=False
    )


CONFORM = """
import sys
import numpy as np
from vla_ros.geometry.se3 import make_pose
from vla_ros.actions.decode import decode_tool_chunk
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.registry import load_policy_config, make_policy
from vla_ros.types import CameraFrame, Observation

policy, contract = make_policy(load_policy_config("hover.yaml"))
assert isinstance(policy, Policy)
assert policy.contract is contract
assert "torch" not in sys.modules

def answer(seed, stamp_ns=10**9):
    policy.reset("reach the red block", seed)
    images = {name: CameraFrame(stamp_ns, np.zeros((48, 64, 3), np.uint8)) for name in contract.observation.images}
    T = make_pose(np.array([0.4, 0.0, 0.3]))
    observation = Observation(stamp_ns, images, np.zeros(8), {}, T, 1.0, "reach the red block")
    chunk = policy.infer(observation, InferenceContext())
    assert chunk.actions.dtype == np.float64
    assert np.isfinite(chunk.actions).all()
    return decode_tool_chunk(chunk, contract.action, stamp_ns, T, "hover")

one, other = answer(1), answer(1)
assert (one.transforms == other.transforms).all()
print(one.transforms[-1, 2, 3], one.openings[0], len(one.transforms))
"""


def test_the_documents_ten_lines_are_a_policy(hover: Path) -> None:
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 10
    reply = run_with(hover, "-c", CONFORM)
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.split() == ["0.02", "1.0", "8"]


def test_an_installed_kind_is_listed_and_a_broken_one_is_reported_beside_it(hover: Path) -> None:
    shaky = hover / "shaky.yaml"
    shaky.write_text(
        yaml.safe_dump({"name": "shaky", "kind": "shaky", "contract": "tool_delta_visual", "rate_hz": 5.0})
    )
    reply = run_with(
        hover, "-m", "vla_ros.cli", "policies", "list", "hover.yaml", "shaky.yaml", "scripted_visual", "--json"
    )
    assert reply.returncode == 0, reply.stderr
    found = json.loads(reply.stdout.splitlines()[-1])
    kinds = {item["name"]: item for item in found["kinds"]}
    assert kinds["hover"] | {"is_available": True, "origin": "vla-ros-hover 0.1"} == kinds["hover"]
    assert not kinds["shaky"]["is_available"]
    assert "RuntimeError: fell over" in kinds["shaky"]["problem"]
    assert "vla-ros-shaky 0.1" in kinds["shaky"]["problem"]
    assert kinds["scripted_visual"]["is_available"]
    available = {item["name"]: item["is_available"] for item in found["policies"]}
    assert available == {"hover": True, "shaky": False, "scripted_visual": True}


def test_all_policies_and_kinds_are_listed() -> None:
    found = list_policies()
    assert {item["name"] for item in found["policies"]} == set(config_names("policies"))
    assert BUILT_IN.keys() <= {item["name"] for item in found["kinds"]}
    text = describe(found)
    for name in (*BUILT_IN, *config_names("policies")):
        assert name in text


def write_learned(folder: Path, **changes: Any) -> str:
    data = {"name": "mine", "kind": "learned", "contract": "tool_delta_visual", "rate_hz": 5.0, "parameters": {}}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    return str(path)


def problem_of(path: str, kind: str = "learned") -> tuple[str, str]:
    _, found = examine(kind, [path], is_loading=False)
    return found[path].problem, found[path].mend


def test_a_missing_checkpoint_is_said(tmp_path: Path) -> None:
    problem, mend = problem_of(write_learned(tmp_path, parameters={"checkpoint": "nowhere"}))
    assert "checkpoint nowhere: no such folder" in problem
    assert "policy.json" in mend


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("lerobot", {"checkpoint": "nowhere"}, "has no config.json"),
        ("openvla", {"checkpoint": "nowhere"}, "no such folder"),
        ("pi0", {"checkpoint": "nowhere"}, "no such folder"),
        ("remote", {"url": "nowhere"}, "'nowhere' isn't one"),
    ],
)
def test_other_kinds_say_what_is_missing_too(tmp_path: Path, kind: str, parameters: dict[str, str], said: str) -> None:
    try:
        load_factory(kind)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    problem, mend = problem_of(write_learned(tmp_path, kind=kind, parameters=parameters), kind)
    assert problem.endswith(said)
    assert mend


def test_a_missing_contract_is_said(tmp_path: Path) -> None:
    problem, _ = problem_of(write_learned(tmp_path, contract="tool_delta"))
    assert "unknown contract 'tool_delta'; did you mean 'tool_delta_visual'?" in problem


def test_a_checkpoint_of_another_contract_is_said_with_the_lines(tmp_path: Path, tiny_checkpoints: Any) -> None:
    folder = tiny_checkpoints.get("bc")
    problem, _ = problem_of(write_learned(tmp_path, parameters={"checkpoint": str(folder)}))
    assert "observation.images.base.width: 32 != 0" in problem


def test_a_sound_checkpoint_is_available(tmp_path: Path, tiny_checkpoints: Any) -> None:
    folder = tiny_checkpoints.get("bc")
    path = write_learned(tmp_path, contract=str(folder / "contract.yaml"), parameters={"checkpoint": str(folder)})
    assert problem_of(path) == ("", "")
    assert examine("learned", [path], is_loading=True)[1][path] == Finding()


def test_a_stale_export_is_refused_with_the_command_that_mends_it(tmp_path: Path, tiny_checkpoints: Any) -> None:
    exported = tiny_checkpoints.get("bc", is_exported=True)
    folder = tiny_checkpoints.write(tmp_path / "trained on", "bc", seed=1)
    shutil.copy(exported / "model.onnx", folder)
    path = write_learned(tmp_path, contract=str(folder / "contract.yaml"), parameters={"checkpoint": str(folder)})
    problem, mend = problem_of(path)
    assert "model.onnx: is stale" in problem
    assert mend == f"vla-ros policies export '{folder}'"


def test_something_that_is_no_export_is_refused(tmp_path: Path, tiny_checkpoints: Any) -> None:
    pytest.importorskip("onnxruntime")
    folder = tiny_checkpoints.write(tmp_path / "checkpoint", "bc")
    (folder / "model.onnx").write_bytes(b"no protocol buffer")
    path = write_learned(tmp_path, contract=str(folder / "contract.yaml"), parameters={"checkpoint": str(folder)})
    assert "isn't an ONNX model that runs" in problem_of(path)[0]


def test_a_kind_that_dies_when_it_is_imported_takes_only_itself_along(hover: Path) -> None:
    (hover / "shaky.py").write_text("import os\nos._exit(3)\n")
    reply = run_with(hover, "-m", "vla_ros.cli", "policies", "--json")
    found = json.loads(reply.stdout.splitlines()[-1])
    kinds = {item["name"]: item for item in found["kinds"]}
    assert "importing it failed: exit code 3" in kinds["shaky"]["problem"]
    assert kinds["hover"]["is_available"]


def test_an_unreadable_file_and_an_unknown_kind_are_findings(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: [")
    unknown = write_learned(tmp_path, kind="lerned")
    found = list_policies([str(tmp_path / "broken.yaml"), unknown])
    problems = {item["name"]: item["problem"] for item in found["policies"]}
    assert "isn't YAML" in problems[str(tmp_path / "broken.yaml")]
    assert problems["mine"] == "unknown kind 'lerned'"


def test_the_answer_is_found_among_what_a_module_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from vla_ros.commands.policies.examining import main

    main(json.dumps({"kind": "scripted_visual", "names": ["scripted_visual"], "is_loading": True}))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(MARK)]
    answer = json.loads(line.removeprefix(MARK))
    assert answer["policies"] == {"scripted_visual": {"problem": "", "mend": ""}}


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch, tiny_checkpoints: Any) -> None:
    """Exporting gives what was exported before: torch takes seconds for it."""
    exported = tiny_checkpoints.get("bc", is_exported=True) / "model.onnx"
    from vla_ros.policies import export

    monkeypatch.setattr(export, "_write", lambda model, checkpoint, path: shutil.copy(exported, path))


@pytest.mark.usefixtures("quick_export")
def test_export_says_what_is_gained(tmp_path: Path, tiny_checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_checkpoints.write(tmp_path / "checkpoint", "bc")
    assert cli.main(["policies", "export", str(folder), "--calls", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(found["path"]) == folder / "model.onnx"
    assert found["ort_speedup"] > 0.0
    assert found["torch_ms"] > 0.0
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_half_precision_halves_both_files_and_only_rounds_the_weights(tmp_path: Path, tiny_checkpoints: Any) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from safetensors.torch import load_file

    from vla_ros.policies.checkpoint import read_checkpoint
    from vla_ros.policies.torch_model import load_model

    whole, half = tiny_checkpoints.get("bc", is_exported=True), tmp_path / "half"
    assert cli.main(["policies", "export", str(whole), "--half", str(half), "--calls", "3"]) == 0
    saved = [
        (whole / name).stat().st_size - (half / name).stat().st_size for name in ("model.safetensors", "model.onnx")
    ]
    assert min(saved) > 0.4 * (whole / "model.safetensors").stat().st_size
    before, after = load_file(whole / "model.safetensors"), load_file(half / "model.safetensors")
    assert all(torch.equal(after[name], tensor.half()) for name, tensor in before.items())
    # Read back, the network has the rounded weights, and its export answered as it does (or it wouldn't be there).
    model = load_model(read_checkpoint(half))
    assert all(torch.equal(tensor, before[name].half().float()) for name, tensor in model.state_dict().items())


@pytest.mark.usefixtures("quick_export")
def test_an_export_that_answers_otherwise_is_not_written(tmp_path: Path, tiny_checkpoints: Any) -> None:
    from vla_ros.policies import export

    folder = tiny_checkpoints.write(tmp_path / "checkpoint", "bc", seed=1)
    with pytest.raises(export.ExportError, match="answers otherwise than torch"):
        export.export_onnx(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "contract.yaml", "model.safetensors", "policy.json", "statistics.json",
    ]  # fmt: skip


@pytest.mark.usefixtures("quick_export")
def test_an_export_that_can_not_be_written_is_one_line(
    tmp_path: Path, tiny_checkpoints: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_checkpoints.write(tmp_path / "checkpoint", "bc")
    # What nobody can write over, whatever rights the test has.
    (folder / "model.onnx").mkdir()
    assert cli.main(["policies", "export", str(folder)]) == 2
    assert "model.onnx can't be written (Is a directory)" in capsys.readouterr().err
