"""Two processes write what one writes, and a fault of the other one is told or made up for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedet.bundle import open_bundle
from edgedet.errors import CheckError, VerificationError
from edgedet_calibration.recipe import Recipe
from edgedet_export import beside as module
from edgedet_export.exporter import ExportRequest, export_bundle
from edgedet_export.target import Target
from edgedet_export.writer import Job, Writer, Written

TARGETS = ("onnx", "openvino")


def request(checkpoint: Path, output: Path, processes: int) -> ExportRequest:
    from edgedet.data import open_dataset

    return ExportRequest(
        checkpoint,
        output,
        TARGETS,
        ("fp32", "int8"),
        calibration=open_dataset("builtin", split="val"),
        recipe=Recipe(images=4),
        processes=processes,
    )


def test_two_processes_write_the_same_files(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[Job] = []
    write = Writer.write

    def counted(self: Writer, job: Job, target: Target) -> Written:
        here.append(job)
        return write(self, job, target)

    monkeypatch.setattr(Writer, "write", counted)
    reports = []
    for processes in (1, 2):
        here.clear()
        reports.append(export_bundle(request(checkpoint, tmp_path / str(processes), processes)))
    assert len(here) < 4, "the other process did nothing"
    assert reports[1].warnings == reports[0].warnings
    bundles = [open_bundle(tmp_path / str(n)) for n in (1, 2)]
    one, two = ([(a.target, a.precision, a.files) for a in b.manifest.artifacts] for b in bundles)
    assert one == two
    rows = [[(row.target, row.precision, row.status) for row in report.rows] for report in reports]
    assert rows[0] == rows[1] == [(t, p, "ok") for p in ("fp32", "int8") for t in TARGETS]


def test_what_the_other_process_raises_is_raised_here(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (
        b'{"error": "int8/model.onnx is too far", "kind": "VerificationError", "got": "1 dB", '
        b'"expected": "10 dB", "fix": "calibrate"}\n'
    )
    monkeypatch.setattr(module.sys, "executable", _program(tmp_path, answer))
    with pytest.raises(VerificationError, match="too far; got 1 dB; expected 10 dB") as seen:
        export_bundle(request(checkpoint, tmp_path / "b", 2))
    assert isinstance(seen.value, CheckError)
    assert not (tmp_path / "b").exists()


def test_jobs_of_a_process_that_is_gone_are_done_here(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", _program(tmp_path, b""))
    report = export_bundle(request(checkpoint, tmp_path / "b", 2))
    assert [row.status for row in report.rows] == ["ok"] * 4
    assert "the second process ended early: 1 of its artifacts were made by this one" in report.warnings


def test_the_other_process_ends_with_its_caller(tmp_path: Path, checkpoint: Path) -> None:
    given = request(checkpoint, tmp_path / "b", 2)
    with module.beside(given, [], tmp_path, []) as side:
        assert side.process.poll() is None
    assert side.process.poll() is not None


def _program(folder: Path, answer: bytes) -> str:
    """In the place of Python: gives one answer to the first job and ends."""
    (folder / "answer").write_bytes(answer)
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nread order\nread job\ncat {folder}/answer\n")
    program.chmod(0o755)
    return str(program)
