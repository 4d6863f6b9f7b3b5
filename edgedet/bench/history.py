"""What was measured before, in one SQLite file of this user: how speed changes with models and versions.

A run is one transaction: another run at the same time waits for it, and what is killed leaves the file as it
was. A file that this program did not make is refused and never written to.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedet.bench.report import BenchmarkReport, BenchmarkRow
from edgedet.errors import UsageError
from edgedet.spec import Value

VARIABLE = "EDGEDET_HISTORY"

SCHEMA_VERSION = 3

# Bytes 68 to 71 of the file: "edge", so that it is told from other databases.
_APPLICATION_ID = 0x65646765

# Seconds that a run waits for another one that is being written.
_WAIT_S = 30.0

_SCHEMA = """
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  started TEXT NOT NULL,
  device TEXT NOT NULL,
  cpu TEXT NOT NULL,
  cores INTEGER NOT NULL,
  os TEXT NOT NULL,
  detector TEXT NOT NULL,
  checkpoint_sha256 TEXT NOT NULL,
  images TEXT NOT NULL,
  scenario TEXT NOT NULL,
  noise_floor REAL,
  packages TEXT NOT NULL
);
CREATE TABLE rows (
  run INTEGER NOT NULL REFERENCES runs (id),
  runtime TEXT NOT NULL,
  precision TEXT NOT NULL,
  threads INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  frames INTEGER NOT NULL,
  measured_s REAL NOT NULL,
  p50_ms REAL NOT NULL,
  p90_ms REAL NOT NULL,
  p99_ms REAL NOT NULL,
  p50_low_ms REAL,
  p50_high_ms REAL,
  fps REAL NOT NULL,
  ratio REAL,
  low REAL,
  high REAL,
  verdict TEXT NOT NULL,
  processes INTEGER,
  batch INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX rows_of_run ON rows (run);
"""

# From each earlier version to the next.
_STEPS = {
    1: "ALTER TABLE rows ADD COLUMN processes INTEGER",
    2: "ALTER TABLE rows ADD COLUMN batch INTEGER NOT NULL DEFAULT 1",
}

_OF_RUN = (
    "started, device, cpu, cores, os, detector, checkpoint_sha256, images, scenario, noise_floor, packages"
)
_OF_ROW = (
    "runtime, precision, threads, model_sha256, frames, measured_s, p50_ms, p90_ms, p99_ms, "
    "p50_low_ms, p50_high_ms, fps, ratio, low, high, verdict, processes, batch"
)


class Entry(Value):
    """One row of one run.

    Attributes:
        started: Date and time of the run in UTC, ISO 8601.
        device: "local", or what the device was reached by.
        cpu: Model of the processor, with `cores` and `os` as in `edgedet.environment.Environment`.
        detector: Name of the detector, of the checkpoint with `checkpoint_sha256`.
        images: What was detected in.
        scenario: As in `edgedet.bench.report.Scenario`.
        noise_floor: What two measurements of one artifact differed by in that run; None if not measured.
        packages: Versions of what took part.
        p50_low_ms: Between this and `p50_high_ms` the median lies with 95 % confidence; None if too short.
        ratio: Time of fp32 over this one's, between `low` and `high`; None without one.
        verdict: Of its coverage, "" where there is none.
        processes: That took its turns one after another; None in runs of versions that did not keep it.
        batch: Images of one inference.
    """

    started: str
    device: str
    cpu: str
    cores: int
    os: str
    detector: str
    checkpoint_sha256: str
    images: str
    scenario: str
    noise_floor: float | None
    packages: dict[str, str]
    runtime: str
    precision: str
    threads: int
    model_sha256: str
    frames: int
    measured_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p50_low_ms: float | None
    p50_high_ms: float | None
    fps: float
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str
    processes: int | None
    batch: int = 1


def default_path() -> Path:
    """`$EDGEDET_HISTORY`, or `edgedet/history.sqlite` where the user's data lies."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "edgedet" / "history.sqlite"


class History:
    """A file of measurements, made where there is none.

    Args:
        path: The file; folders above it are made.

    Raises:
        UsageError: It is something else, is damaged, was written by a later version, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise self._unusable(f"a folder that cannot be made ({exc.strerror})") from exc
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._check(connection)

    def append(self, report: BenchmarkReport) -> None:
        """Keep all rows of a report, or none of them.

        Raises:
            UsageError: The file cannot be written.
        """
        machine = report.environment
        run = (
            report.started,
            report.rows[0].device if report.rows else "local",
            machine.cpu,
            machine.cores,
            machine.os,
            report.detector,
            report.checkpoint_sha256,
            report.images,
            report.scenario.name if report.scenario else "",
            report.noise.floor if report.noise else None,
            json.dumps(machine.packages),
        )
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._check(connection)
            marks = ", ".join("?" * len(run))
            cursor = connection.execute(f"INSERT INTO runs ({_OF_RUN}) VALUES ({marks})", run)  # noqa: S608
            rows = [(cursor.lastrowid, *_cells(row)) for row in report.rows]
            marks = ", ".join("?" * (1 + len(_OF_ROW.split(","))))
            connection.executemany(f"INSERT INTO rows (run, {_OF_ROW}) VALUES ({marks})", rows)  # noqa: S608

    def entries(self) -> list[Entry]:
        """Everything that was kept, oldest first.

        Raises:
            UsageError: The file cannot be read.
        """
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                f"SELECT {_OF_RUN}, {_OF_ROW} FROM rows JOIN runs ON rows.run = runs.id "  # noqa: S608
                "ORDER BY runs.id, rows.rowid"
            ).fetchall()
        return [Entry.model_validate({**dict(one), "packages": json.loads(one["packages"])}) for one in found]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction: it is kept when the block ends well, and left when it does not."""
        try:
            connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
            try:
                yield connection
                if connection.in_transaction:
                    connection.execute("COMMIT")
            finally:
                connection.close()  # which takes back what was not committed
        except sqlite3.Error as exc:
            raise self._unusable(str(exc)) from exc

    def _check(self, connection: sqlite3.Connection) -> None:
        """Make the tables in an empty file, bring older ones up; refuse what is not of this program."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == _APPLICATION_ID and version == SCHEMA_VERSION:
            return
        if application == _APPLICATION_ID and version in _STEPS:
            for step in range(version, SCHEMA_VERSION):
                connection.execute(_STEPS[step])
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        if application == _APPLICATION_ID:
            raise self._unusable(
                f"a history of schema version {version}, where this edgedet knows {SCHEMA_VERSION}"
            )
        if tables or application or version:
            raise self._unusable("a database of another program")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _unusable(self, got: str) -> UsageError:
        return UsageError(
            f"cannot keep the history of benchmarks in {self.path}",
            got=got,
            expected="a file that `edgedet benchmark` made, or a path where one can be made",
            fix=f"name another with --history or {VARIABLE}, or pass --no-history; nothing was changed",
        )


def _cells(row: BenchmarkRow) -> tuple[object, ...]:
    interval, p50 = row.speedup_interval, row.p50_interval
    return (
        row.runtime,
        row.precision,
        row.threads,
        row.model_sha256,
        row.frames,
        row.measured_s,
        row.total_ms.p50,
        row.total_ms.p90,
        row.total_ms.p99,
        *(p50 or (None, None)),
        row.fps,
        row.speedup_vs_fp32,
        *(interval or (None, None)),
        row.coverage.verdict if row.coverage else "",
        row.processes,
        row.batch,
    )
