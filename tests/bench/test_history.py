"""Results of earlier benchmarks: what is kept, what is refused, and what two runs at once leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from measurements import measured, turn

from edgedet.bench.history import History, default_path
from edgedet.bench.report import BenchmarkReport
from edgedet.bench.rows import benchmark_rows
from edgedet.environment import Environment
from edgedet.errors import UsageError

MACHINE = Environment(cpu="a processor", cores=2, os="Linux", python="3.11", packages={"onnxruntime": "1.2"})


def report(started: str = "2026-01-01T00:00:00+00:00", inference_ms: float = 8.0) -> BenchmarkReport:
    turns = [turn([ms, ms]) for ms in (inference_ms, 1.01 * inference_ms) * 6]
    rows = benchmark_rows([measured(turns=turns), measured(precision="int8", turns=turns, model_sha256="ab")])
    return BenchmarkReport(
        detector="detector",
        images="8 images",
        rows=rows,
        skipped=(),
        warnings=(),
        environment=MACHINE,
        started=started,
    )


def test_what_was_kept_comes_back_oldest_first(history: Path):
    for started, ms in (("2026-01-01T00:00:00+00:00", 8.0), ("2026-01-02T00:00:00+00:00", 9.0)):
        History(history).append(report(started, ms))
    entries = History(history).entries()
    assert [(e.started[:10], e.precision, round(e.p50_ms, 1)) for e in entries] == [
        ("2026-01-01", "fp32", 8.0),
        ("2026-01-01", "int8", 8.0),
        ("2026-01-02", "fp32", 9.0),
        ("2026-01-02", "int8", 9.0),
    ]
    last = entries[-1]
    assert (last.packages, last.model_sha256, last.device) == ({"onnxruntime": "1.2"}, "ab", "local")
    assert last.p50_low_ms <= last.p50_ms <= last.p50_high_ms
    assert (last.ratio, last.low, last.high) == (1, 1, 1)


def test_the_batch_of_a_row_is_kept_and_rows_of_the_second_schema_are_of_one_image(history: Path):
    History(history).append(report())
    with sqlite3.connect(history) as connection:
        connection.execute("ALTER TABLE rows DROP COLUMN batch")
        connection.execute("PRAGMA user_version = 2")
    rows = [row.model_copy(update={"batch": 4}) for row in report().rows]
    History(history).append(report().model_copy(update={"rows": tuple(rows)}))
    assert [entry.batch for entry in History(history).entries()] == [1, 1, 4, 4]


def test_the_user_s_history_is_where_their_data_lies_unless_another_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("EDGEDET_HISTORY", str(tmp_path / "named.sqlite"))
    assert default_path() == tmp_path / "named.sqlite"
    monkeypatch.delenv("EDGEDET_HISTORY")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "edgedet" / "history.sqlite"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local" / "share" / "edgedet" / "history.sqlite"


def test_a_history_of_the_first_schema_is_read_and_written_on(history: Path):
    History(history).append(report())
    with sqlite3.connect(history) as connection:
        connection.execute("ALTER TABLE rows DROP COLUMN processes")
        connection.execute("ALTER TABLE rows DROP COLUMN batch")
        connection.execute("PRAGMA user_version = 1")
    assert [(entry.processes, entry.batch) for entry in History(history).entries()] == [(None, 1)] * 2
    History(history).append(report())
    assert [entry.processes for entry in History(history).entries()] == [None, None, 1, 1]
    with sqlite3.connect(history) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def broken(path: Path) -> None:
    path.write_bytes(b"no database at all, and longer than the header of one" * 40)


def later(path: Path) -> None:
    History(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 4")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(foreign, "another program"), (broken, "not a database"), (later, "schema version 4")],
)
def test_a_file_that_is_no_history_is_refused_and_stays_as_it_is(tmp_path: Path, spoil, said):
    path = tmp_path / "file"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=said):
        History(path)
    assert path.read_bytes() == before


def test_a_folder_and_a_place_below_a_file_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot keep the history"):
        History(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        History(tmp_path / "file" / "history.sqlite")


def _append(path: str, count: int) -> None:
    for _ in range(count):
        History(Path(path)).append(report())


def test_two_runs_at_once_lose_nothing(history: Path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(str(history), 20)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(History(history).entries()) == 2 * 20 * 2


def test_what_is_killed_before_it_is_done_leaves_the_runs_that_were_whole(history: Path):
    History(history).append(report())
    program = (
        "import sys, time, pathlib, edgedet.bench.history as h\n"
        "with h.History(pathlib.Path(sys.argv[1]))._open() as connection:\n"
        "    connection.execute('BEGIN IMMEDIATE')\n"
        "    connection.execute('DELETE FROM rows')\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(history)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(History(history).entries()) == 2


def test_a_row_that_cannot_be_kept_takes_its_run_with_it(history: Path):
    kept = History(history)
    wrong = report()
    rows = (wrong.rows[0], wrong.rows[1].model_copy(update={"fps": None}))
    with pytest.raises(UsageError, match="NOT NULL"):
        kept.append(wrong.model_copy(update={"rows": rows}))
    assert kept.entries() == []
    with sqlite3.connect(history) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_run_waits_for_one_that_is_being_written(history: Path, monkeypatch):
    kept = History(history)
    monkeypatch.setattr("edgedet.bench.history._WAIT_S", 0.2)
    busy = sqlite3.connect(history, isolation_level=None)
    busy.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(UsageError, match="locked"):
        kept.append(report())
    assert time.monotonic() - started > 0.15
    busy.execute("ROLLBACK")
    busy.close()
    kept.append(report())
    assert len(kept.entries()) == 2
