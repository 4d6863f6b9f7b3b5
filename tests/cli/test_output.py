"""Tables for readers, JSON for programs, and nothing between them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import Command, check_refusal

import edgedet as package
from edgedet.cli.output import open_output

COMMANDS = [
    "demo",
    "models",
    "train",
    "export",
    "sensitivity",
    "detect",
    "evaluate",
    "parity",
    "benchmark",
    "recommend",
    "inspect",
    "doctor",
]


def run(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedet", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_the_module_runs_as_the_command_does() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"edgedet {package.__version__}\n", "")


def test_help_is_shown_when_no_command_is_given(edgedet: Command) -> None:
    result = edgedet()
    assert result.code == 0
    commands = re.findall(r"^  (\w+) +[A-Z]", result.stdout.partition("Commands:")[2], re.MULTILINE)
    assert commands == COMMANDS


def test_the_models_are_listed_with_what_they_cost(edgedet: Command) -> None:
    result = edgedet("models")
    assert result.code == 0
    assert "ssdlite320_mobilenetv2" in result.stdout


def test_json_on_standard_output_stands_alone(edgedet: Command) -> None:
    rows = edgedet("models", "--json", "-").json["rows"]
    assert {"name", "backbone", "params_m", "macs_m", "summary"} <= set(rows[0])


def test_json_in_a_file_comes_beside_the_table(edgedet: Command, tmp_path: Path) -> None:
    result = edgedet("models", "--json", tmp_path / "models.json")
    rows = json.loads((tmp_path / "models.json").read_text())["rows"]
    assert all(row["name"] in result.stdout for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["models.json"]


def test_json_into_a_folder_that_is_not_there_is_refused_before_any_work(
    edgedet: Command, tmp_path: Path
) -> None:
    result = edgedet("models", "--json", tmp_path / "nowhere" / "models.json")
    assert (result.code, result.stdout) == (2, "")
    assert "make the folder" in result.stderr
    assert not any(tmp_path.iterdir())


def test_what_vendors_print_does_not_get_into_the_json(capfd: pytest.CaptureFixture[str]) -> None:
    with open_output("-") as output:
        print("from Python")
        os.write(1, b"from C\n")
        output.line("from the table")
        output.json({"a": 1})
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {"a": 1}
    assert "from Python" in captured.err
    assert "from C" in captured.err
    assert "from the table" not in captured.out + captured.err
    print("afterwards")
    assert capfd.readouterr().out == "afterwards\n"


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("models", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_json_goes_into_a_pipe_and_leaves_it_there(edgedet: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    assert edgedet("models", "--json", tmp_path / "pipe").code == 0
    reader.join(10)
    assert json.loads(read[0])["rows"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("path", ["/proc/models.json", "."])
def test_json_that_cannot_be_written_is_refused_before_any_work_by_the_users_path(
    edgedet: Command, path: str
) -> None:
    result = edgedet("models", "--json", path)
    check_refusal(result, 2, f"cannot write {path};")
    assert result.stdout == ""


def test_a_table_that_is_not_read_on_a_terminal_keeps_a_row_on_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_output(None) as output:
        output.table(("name", "note"), [("n" * 150, "a note of several words " * 10)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("of several words")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_names_that_a_terminal_cannot_show_or_would_obey_are_written_out(encoding: str) -> None:
    words = [sys.executable, "-m", "edgedet", "inspect", "\u56fe\x1b[31m\u202e"]
    done = subprocess.run(
        words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False
    )
    assert done.returncode == 2
    said = done.stderr.decode(encoding)
    assert ("\u56fe" if encoding == "utf-8" else "\\u56fe") + "\\x1b[31m\\u202e" in said
    assert "Fix:" in said


def test_results_with_names_that_a_terminal_cannot_show_are_printed(bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40, 3), 90, np.uint8))
    path = (tmp_path / "a.png").rename(tmp_path / "\u56fe.png")
    words = [sys.executable, "-m", "edgedet", "detect", str(bundle), str(path)]
    done = subprocess.run(
        words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u56fe.png" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_that_is_no_utf_8_loses_no_results(edgedet: Command, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9\x1b[31m.png")
    cv2.imwrite(str(folder / "a.png"), np.full((40, 40, 3), 90, np.uint8))
    (folder / "a.png").rename(folder / name)
    result = edgedet("detect", bundle, folder, "--json", tmp_path / "found.json")
    assert result.code == 0, result
    (found,) = json.loads((tmp_path / "found.json").read_text())["images"]
    assert Path(found["path"]).name == name
    assert "\x1b" not in result.stdout + result.stderr
    parity = ["parity", bundle, "--data", folder, "--runtimes", "ort", "--layers"]
    for option, suffix in (("--html", "html"), ("--markdown", "md"), ("--json", "json")):
        parity += [option, tmp_path / f"report.{suffix}"]
    assert edgedet(*parity).code in (0, 1)
    assert {path.suffix for path in tmp_path.glob("report.*")} == {".html", ".md", ".json"}
