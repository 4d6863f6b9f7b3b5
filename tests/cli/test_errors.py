"""Whatever is wrong with what a command is given, it ends with one paragraph and its documented exit code."""

from __future__ import annotations

import builtins
import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Command, check_refusal

from edgedet.errors import UsageError
from edgedet.registry import install_command

# Commands that take a bundle or a file first, with what else they need.
OPENERS = {
    "inspect": (),
    "detect": ("picture.jpg",),
    "evaluate": ("--data", "builtin", "--split", "test"),
    "parity": ("--data", "builtin", "--split", "test"),
    "benchmark": ("--runtimes", "ort"),
    "recommend": ("--data", "builtin", "--split", "test"),
}


@pytest.fixture
def damaged(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.mark.parametrize("command", OPENERS)
def test_a_missing_path_is_named(edgedet: Command, command: str, tmp_path: Path) -> None:
    check_refusal(edgedet(command, tmp_path / "nowhere", *OPENERS[command]), 2, "nowhere", "no such path")


@pytest.mark.parametrize("command", OPENERS)
def test_a_folder_that_is_no_bundle_is_refused(edgedet: Command, command: str, tmp_path: Path) -> None:
    check_refusal(edgedet(command, tmp_path, *OPENERS[command]), 2, "bundle.json")


@pytest.mark.parametrize("command", OPENERS)
def test_a_file_that_is_no_artifact_is_refused(edgedet: Command, command: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    check_refusal(edgedet(command, tmp_path / "notes.txt", *OPENERS[command]), 2, "notes.txt")


@pytest.mark.parametrize("command", OPENERS)
@pytest.mark.parametrize(
    ("text", "word"), [("{", "bundle.json"), ('{"schema_version": 99}', "schema"), ("\0\1", "bundle.json")]
)
def test_a_manifest_that_cannot_be_read_is_refused(
    edgedet: Command, command: str, damaged: Path, text: str, word: str
) -> None:
    (damaged / "bundle.json").write_text(text)
    check_refusal(edgedet(command, damaged, *OPENERS[command]), 2, word)


@pytest.mark.parametrize("command", OPENERS)
def test_an_artifact_with_another_hash_is_not_run(edgedet: Command, command: str, damaged: Path) -> None:
    for artifact in (damaged / "fp32").iterdir():
        artifact.write_bytes(artifact.read_bytes()[:-7])
    check_refusal(edgedet(command, damaged, *OPENERS[command]), 2, "sha256")


@pytest.mark.parametrize("command", OPENERS)
def test_a_manifest_that_points_outside_the_bundle_is_refused(
    edgedet: Command, command: str, damaged: Path
) -> None:
    manifest = json.loads((damaged / "bundle.json").read_text())
    for artifact in manifest["artifacts"]:
        artifact["files"][0]["path"] = "../" + artifact["files"][0]["path"]
    (damaged / "bundle.json").write_text(json.dumps(manifest))
    check_refusal(edgedet(command, damaged, *OPENERS[command]), 2, "outside itself")


@pytest.mark.parametrize("command", ["inspect", "detect", "evaluate"])
@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_lone_artifact_that_was_cut_is_refused(
    edgedet: Command, command: str, name: str, share: float, bundle: Path, tmp_path: Path
) -> None:
    whole = (bundle / "fp32" / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    check_refusal(edgedet(command, tmp_path / name, *OPENERS[command]), 2, name)


@pytest.mark.parametrize("command", ["detect", "evaluate"])
@pytest.mark.parametrize(
    ("option", "value"), [("--runtime", "onnx"), ("--precision", "int4"), ("--runtime", "tensorrt")]
)
def test_a_wrong_name_lists_the_right_ones(
    edgedet: Command, command: str, option: str, value: str, bundle: Path
) -> None:
    result = edgedet(command, bundle, *OPENERS[command], option, value)
    check_refusal(result, 2, value, "int8" if option == "--precision" else "ort")


@pytest.mark.parametrize("command", ["parity", "benchmark"])
@pytest.mark.parametrize(
    ("option", "value"), [("--runtimes", "ort,nope"), ("--precisions", "fp64"), ("--runtimes", ",")]
)
def test_a_wrong_name_in_a_list_lists_the_right_ones(
    edgedet: Command, command: str, option: str, value: str, bundle: Path
) -> None:
    result = edgedet(command, bundle, *OPENERS[command], option, value)
    check_refusal(result, 2, "fp32" if option == "--precisions" else "openvino")


def _without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make a package look as if it were not installed."""
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.startswith(("edgedet_runtimes.", "edgedet_export."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", guarded)


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("onnxruntime", "onnx", ("detect", "BUNDLE", "picture.jpg", "--runtime", "ort")),
        ("openvino", "openvino", ("detect", "BUNDLE/fp32/model.xml", "picture.jpg")),
        ("faster_coco_eval", "evaluate", ("evaluate", "BUNDLE", "--data", "builtin", "--split", "test")),
        (
            "torch",
            "export",
            ("export", "BUNDLE/fp32/model.safetensors", "--to", "onnx", "--output", "new"),
        ),
        (
            "litert_torch",
            "export",
            ("export", "BUNDLE/fp32/model.safetensors", "--to", "tflite", "--output", "new"),
        ),
    ],
)
def test_an_extra_that_is_not_installed_is_named_with_its_pip_install(
    edgedet: Command,
    package: str,
    extra: str,
    arguments: tuple[str, ...],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _without(monkeypatch, package)
    result = edgedet(*(word.replace("BUNDLE", str(bundle)) for word in arguments))
    check_refusal(result, 3, package, install_command(extra))


@pytest.mark.parametrize(
    "arguments",
    [
        ("detcet",),
        ("detect",),
        ("detect", "bundle", "image.jpg", "--nope"),
        ("detect", "bundle", "image.jpg", "--threads", "0"),
        ("export", "checkpoint.safetensors"),
        ("export", "checkpoint.safetensors", "--output", "new", "--to", "caffe"),
        ("export", "checkpoint.safetensors", "--output", "new", "--precision", "int3"),
        ("train",),
        ("models", "extra-word"),
        ("models", "--json", "."),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(edgedet: Command, arguments: tuple[str, ...]) -> None:
    check_refusal(edgedet(*arguments), 2)


def test_a_place_that_cannot_be_written_is_named(edgedet: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_refusal(edgedet("models", "--json", tmp_path / "file" / "models.json"), 2, str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["missing.safetensors", "folder.safetensors", "broken.safetensors"])
def test_a_checkpoint_that_cannot_be_read_is_refused_and_no_bundle_is_left(
    edgedet: Command, name: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 20)
    result = edgedet("export", tmp_path / name, "--to", "onnx", "--output", tmp_path / "new")
    check_refusal(result, 2, name)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.safetensors", "broken.safetensors"}


def test_a_fault_of_ours_says_so_and_shows_no_traceback(
    edgedet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedet.cli.models.open_output", lambda json: 1 / 0)
    check_refusal(edgedet("models"), 4, "bug", "ZeroDivisionError", "EDGEDET_DEBUG=1")


def test_the_traceback_of_a_fault_is_shown_when_it_is_asked_for(
    edgedet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDET_DEBUG", "1")
    monkeypatch.setattr("edgedet.cli.models.open_output", lambda json: 1 / 0)
    result = edgedet("models")
    assert result.code == 4
    assert "Traceback" in result.stderr


def test_an_interrupted_command_ends_with_130(edgedet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(json: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgedet.cli.models.open_output", interrupt)
    result = edgedet("models")
    assert (result.code, result.stdout) == (130, "")
    assert result.stderr == "edgedet: interrupted\n"


def test_a_check_of_the_refusals_themselves_notices_a_missing_fix(edgedet: Command, monkeypatch: Any) -> None:
    def refuse(json: str | None) -> None:
        raise UsageError("no", got="a", expected="b")

    monkeypatch.setattr("edgedet.cli.models.open_output", refuse)
    with pytest.raises(AssertionError):
        check_refusal(edgedet("models"), 2)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("detect", "BUNDLE", "x.jpg", "--runtime", "onnx"), "did you mean ort?"),
        (("parity", "BUNDLE", "--data", "builtin", "--runtimes", "litert,pytorch"), "tflite, eager?"),
        (("export", "x.safetensors", "--to", "OpenVino,trt", "--output", "b"), "openvino, tensorrt?"),
        (("detect", "BUNDLE", "x.jpg", "--runtime", "coreml"), "use the listed runtime names"),
    ],
)
def test_a_name_of_something_else_gives_the_one_that_was_meant(
    edgedet: Command, bundle: Path, arguments: tuple[str, ...], meant: str
) -> None:
    words = [str(bundle) if word == "BUNDLE" else word for word in arguments]
    check_refusal(edgedet(*words), 2, meant)


def test_a_full_disk_is_not_taken_for_a_bug(
    edgedet: Command, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgedet.cli.inspect.open_bundle", write)
    check_refusal(edgedet("inspect", bundle), 2, "No space left on device")


def test_every_damaged_file_is_named_with_what_became_of_it(edgedet: Command, damaged: Path) -> None:
    (damaged / "fp32" / "model.onnx").write_bytes(b"x")
    (damaged / "fp32" / "model.bin").unlink()
    result = edgedet("inspect", damaged)
    check_refusal(result, 2, "fp32/model.onnx is changed", "fp32/model.bin is missing")
