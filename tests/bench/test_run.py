"""A benchmark of real artifacts in ONNX Runtime: what is measured and what is refused, not how fast it is."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgedet.bench import BenchmarkReport, run, run_benchmark, stopwatch, turns, worker
from edgedet.bench.cold_start import measure_cold_start
from edgedet.bench.contenders import Contender
from edgedet.bench.run import forecast
from edgedet.bench.stopwatch import Times
from edgedet.bench.turns import Lane, blocks_of, order_of
from edgedet.bench.worker import peak_rss_mb
from edgedet.bench.workers import Order, Turn, Worker
from edgedet.data import open_dataset
from edgedet.errors import BundleError, DataError, InternalError, MissingExtraError, UsageError, VendorError
from edgedet.executed import ExecutedGraph, ExecutedOperator
from edgedet.pipeline import load
from edgedet.registry import install_command


@pytest.fixture(scope="module")
def report(bundle) -> BenchmarkReport:
    return run_benchmark(bundle.root, threads=(1, 2), duration_s=0.4)


def test_every_artifact_is_measured_with_every_number_of_threads(report):
    rows = [(row.runtime, row.precision, row.threads) for row in report.rows]
    assert rows == [("ort", "fp32", 1), ("ort", "fp32", 2), ("ort", "int8", 1), ("ort", "int8", 2)]
    assert report.skipped == ()


def test_a_report_says_which_images_of_which_split_were_shown(bundle, report):
    assert report.images.startswith("the first 8 images of builtin test, shown in turn, ")
    split = open_dataset("builtin", "val")
    other = run_benchmark(bundle.root, precisions=["FP32"], dataset=split, duration_s=0.1)
    assert other.images.startswith("the first 8 images of builtin val, shown in turn, ")


def test_each_batch_has_a_row_whose_frames_are_images(batched):
    report = run_benchmark(batched.root, threads=(1,), duration_s=0.4, batches=(1, 16), least_frames=400)
    rows = {(row.precision, row.batch): row for row in report.rows}
    assert list(rows) == [("fp32", 1), ("fp32", 16), ("int8", 1), ("int8", 16)]
    for (precision, batch), row in rows.items():
        assert row.frames % batch == 0
        assert row.frames >= 400
        assert row.detections_per_frame == rows[precision, 1].detections_per_frame, "of an image"
        assert (row.gain_over_batch_1 is None, row.gain_interval is None) == (batch == 1,) * 2
        assert row.model_bytes == batched.artifact("ort", precision, batch).bytes
    assert BenchmarkReport.model_validate_json(report.model_dump_json()) == report
    assert report.scenario.batches == (1, 16)


def test_a_batch_of_nothing_but_its_first_image_would_be_seen(batched, monkeypatch):
    """Objects of all images of a batch are counted, so that images that were left out show."""
    decode = stopwatch.decode_batch
    monkeypatch.setattr(stopwatch, "decode_batch", lambda o, spec, g: decode(o, spec, g[:1]))
    with load(batched.root, "ort", "fp32", batch=16) as pipeline:
        images = [np.zeros((40, 40, 3), np.uint8)]
        counted = stopwatch.Stopwatch(pipeline, images).measure(0.01).detections
        found = pipeline.detect_batch(images * 16)
    assert counted[0] * 16 == sum(map(len, found)) > 0


def test_without_a_batch_only_artifacts_of_one_image_are_measured(batched):
    report = run_benchmark(batched.root, duration_s=0.1)
    assert [(row.precision, row.batch) for row in report.rows] == [("fp32", 1), ("int8", 1)]
    assert report.skipped == ()
    with pytest.raises(UsageError, match=r"no artifact for that batch; got 3; expected some of 1, 2, 16"):
        run_benchmark(batched.root, batches=(1, 3))


def test_a_lone_artifact_of_a_batch_is_measured_in_its_batch(batched, tmp_path: Path):
    shutil.copy(batched.root / "int8" / "batch2" / "model.onnx", tmp_path / "lone.onnx")
    report = run_benchmark(tmp_path / "lone.onnx", duration_s=0.1, cold_starts=1)
    (row,) = report.rows
    assert (row.batch, row.gain_over_batch_1) == (2, None)
    assert row.cold_start.total_ms > 0
    assert report.scenario.name == "batched"
    assert run_benchmark(tmp_path / "lone.onnx", duration_s=0.1, batches=[2]).rows[0].batch == 2
    with pytest.raises(UsageError, match="is one artifact; got batch 1; expected ort int8 batch 2"):
        run_benchmark(tmp_path / "lone.onnx", batches=[1])


def test_the_rule_of_a_single_stream_is_said_of_one_image_at_a_time_only(batched, monkeypatch):
    def turn(worker: Worker, seconds: float, least_frames: int = 1, *, settle: bool = True) -> Turn:
        count = -(-least_frames // worker.order.batch)
        times = Times([0.1] * count, [0.7] * count, [0.2] * count, [1] * count)
        return Turn(times, seconds if worker.order.batch == 1 else 0.9 * seconds)

    monkeypatch.setattr(Worker, "measure", turn)
    monkeypatch.setattr(Worker, "restart", lambda _: None)
    both = run_benchmark(batched.root, precisions=["fp32"], duration_s=60, batches=(1, 16)).scenario
    assert both.name == "single-stream"
    assert "s a row of batch 1; MLPerf's 1024 and 60 s held there, and are not for larger batches" in str(
        both
    )
    alone = run_benchmark(batched.root, precisions=["fp32"], duration_s=60, batches=(16,)).scenario
    assert alone.name == "batched"
    assert str(alone).endswith("MLPerf's 1024 and 60 s are for one image at a time")
    assert "held" not in str(alone)


def test_a_batch_that_does_not_open_costs_its_own_row_and_is_named(batched, monkeypatch):
    start = Worker.__init__

    def fail(worker: Worker, order: Order):
        if order.batch == 16:
            raise InternalError("no memory", got="a", expected="b", fix="c")
        start(worker, order)

    monkeypatch.setattr(Worker, "__init__", fail)
    report = run_benchmark(batched.root, precisions=["fp32"], duration_s=0.1, batches=(1, 16))
    assert [row.batch for row in report.rows] == [1]
    assert [one.reason for one in report.skipped] == [
        "with 1 thread and a batch of 16, no memory; got a; expected b. Fix: c"
    ]


def test_every_block_goes_there_and_back_and_begins_with_another_lane():
    assert order_of(3, 3) == [0, 1, 2, 2, 1, 0, 1, 2, 0, 0, 2, 1, 2, 0, 1, 1, 0, 2]
    assert order_of(1, 2) == [0, 0, 0, 0]


def test_a_longer_measurement_has_more_turns_and_the_shortest_enough_for_an_interval():
    assert [blocks_of(seconds) for seconds in (0.1, 2, 5, 60, 1800)] == [6, 10, 10, 60, 1800]


def test_each_artifact_is_shown_at_least_so_many_frames_however_short_its_time(bundle):
    report = run_benchmark(bundle.root, precisions=["fp32"], duration_s=0.1, least_frames=900)
    assert report.rows[0].frames >= 900
    assert report.scenario.least_frames == 900
    assert report.scenario.least_measured_frames == report.rows[0].frames


def test_a_minute_asks_for_the_frames_of_mlperf_s_single_stream(bundle, monkeypatch):
    asked = []

    def turn(worker: Worker, seconds: float, least_frames: int = 1, *, settle: bool = True) -> Turn:
        asked.append((seconds, least_frames))
        times = Times([0.1] * least_frames, [0.7] * least_frames, [0.2] * least_frames, [1] * least_frames)
        return Turn(times, seconds)

    monkeypatch.setattr(Worker, "measure", turn)
    monkeypatch.setattr(Worker, "restart", lambda _: None)
    report = run_benchmark(bundle.root, precisions=["fp32"], duration_s=60)
    assert len(asked) == 120
    assert sum(seconds for seconds, _ in asked) == pytest.approx(60)
    assert report.rows[0].frames == sum(frames for _, frames in asked) >= 1024
    assert report.scenario.name == "single-stream"
    assert "MLPerf's 1024 and 60 s held" in str(report.scenario)
    quick = run_benchmark(bundle.root, precisions=["fp32"], duration_s=59)
    assert quick.scenario.name == "quick"
    assert "MLPerf's 1024 and 60 s not held" in str(quick.scenario)


def test_what_is_done_and_for_how_long_is_announced_before_anything_is_measured(bundle, monkeypatch):
    said = []
    measure = Worker.measure

    def announced(worker: Worker, *arguments, **options) -> Turn:
        assert len(said) == 1
        return measure(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "measure", announced)
    run_benchmark(bundle.root, duration_s=0.1, announce=said.append)
    assert said == ["2 measurements of at least 0.1 s each, in turns: about 8 s"]
    assert "7 measurements of at least 60 s and 1,024 frames each, in turns: about 10 min" in forecast(
        7, 60, 1024
    )
    assert "longer where a frame takes more than 59 ms" in forecast(7, 60, 1024)
    assert "one after another: about 3.5 h" in forecast(7, 1800, 1, sustained=True)


def test_the_same_artifact_twice_is_no_row_of_its_own_and_gives_the_noise(bundle):
    report = run_benchmark(bundle.root, duration_s=0.4, noise=True)
    assert [row.precision for row in report.rows] == ["fp32", "int8"]
    noise = report.noise
    assert (noise.runtime, noise.precision, noise.threads) == ("ort", "int8", 1)
    assert 0.5 < noise.ratio.low <= noise.ratio.ratio <= noise.ratio.high < 2
    assert BenchmarkReport.model_validate_json(report.model_dump_json()) == report
    assert run_benchmark(bundle.root, precisions=["fp32"], duration_s=0.1).noise is None


def test_each_artifact_has_several_processes_one_after_another_where_there_is_time(bundle, monkeypatch):
    monkeypatch.setattr(turns, "_TIME_FOR_PROCESSES_S", 0.0)
    monkeypatch.setattr(turns, "_PROCESSES", 2)
    restart, restarted = Worker.restart, []

    def note(worker: Worker) -> None:
        before = worker._process.pid
        restart(worker)
        restarted.append((before, worker._process.pid))

    monkeypatch.setattr(Worker, "restart", note)
    report = run_benchmark(bundle.root, ["ort"], ["fp32"], duration_s=0.1)
    ((before, after),) = restarted
    assert before != after
    (row,) = report.rows
    assert row.processes == 2
    assert row.frames >= 12


def test_a_second_worker_of_the_same_artifact_that_fails_costs_nothing_but_the_noise(bundle, monkeypatch):
    measure, seen = Worker.measure, []

    def fail(worker: Worker, *arguments, **options):
        if worker not in seen:
            seen.append(worker)
        if len(seen) == 3 and worker is seen[2]:
            ended(worker)
        return measure(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "measure", fail)
    report = run_benchmark(bundle.root, ["ort"], duration_s=0.1, noise=True)
    assert (len(report.rows), report.skipped, report.noise) == (2, (), None)


def test_a_second_worker_that_cannot_be_opened_costs_nothing_but_the_noise(bundle, monkeypatch):
    opened = []

    def fail(order: Order) -> Worker:
        opened.append(order)
        if len(opened) == 2:
            raise InternalError("no memory", got="a", expected="b", fix="c")
        return Worker(order)

    monkeypatch.setattr("edgedet.bench.run.Worker", fail)
    report = run_benchmark(bundle.root, ["ort"], ["fp32"], duration_s=0.1, noise=True)
    assert (len(report.rows), report.noise) == (1, None)
    assert any(
        "the noise is not known: a second process could not be opened: no memory" in w
        for w in report.warnings
    )


def test_alone_each_runs_for_the_whole_time_and_is_compared_with_itself(bundle):
    report = run_benchmark(bundle.root, duration_s=2.0, sustained=True)
    assert report.scenario.name == "sustained"
    for row in report.rows:
        assert row.speedup_vs_fp32 is None
        assert row.measured_s >= 2
        assert (row.sustained.window_s, len(row.series)) == (pytest.approx(1, abs=0.3), 2)
        assert row.sustained.ratio == pytest.approx(
            row.sustained.last_p50_ms / row.sustained.first_p50_ms, abs=1e-3
        )
        assert row.series[0].t_s < row.series[-1].t_s < 4, "the time of each begins with itself"


def test_a_cold_start_is_timed_from_the_start_of_a_fresh_process(bundle):
    report = run_benchmark(bundle.root, precisions=["fp32"], duration_s=0.1, cold_starts=1)
    cold = report.rows[0].cold_start
    assert cold.processes == 1
    parts = (cold.interpreter_ms, cold.import_ms, cold.open_ms, cold.first_frame_ms)
    assert min(parts) > 0
    assert cold.total_ms == pytest.approx(sum(parts), abs=1)
    assert cold.first_inference_ms <= cold.first_frame_ms
    assert cold.interpreter_ms > 50, "Python, numpy, cv2 and pydantic are imported before anything else"


def test_a_cold_start_that_fails_is_said_with_its_reason(bundle, tmp_path: Path, monkeypatch):
    np.savez(tmp_path / "images.npz", np.zeros((40, 40, 3), np.uint8))
    order = Order(bundle.root, "ort", "fp16", 1, tmp_path / "images.npz")
    why = measure_cold_start(order, 1)
    assert isinstance(why, str)
    assert "exit status" in why
    assert "fp16" in why
    monkeypatch.setattr("edgedet.bench.run.measure_cold_start", lambda *_: why)
    report = run_benchmark(bundle.root, ["ort"], ["fp32"], duration_s=0.1, cold_starts=1)
    assert report.rows[0].cold_start is None
    assert f"ort fp32 failed when it was started cold: {why}" in report.warnings


@pytest.fixture
def own_threads():
    """OpenCV's number of threads is one for the process: put back afterwards."""
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("own_threads")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_worker_gives_runtime_and_resize_the_threads_of_its_order(bundle, monkeypatch, tmp_path, threads):
    np.savez(tmp_path / "images.npz", np.zeros((40, 40, 3), np.uint8))
    order = json.loads(Order(bundle.root, "ort", "fp32", threads, tmp_path / "images.npz").to_json())
    opened = []

    def load(*arguments, **options):
        opened.append(original(*arguments, **options))
        return opened[-1]

    original = worker.load
    monkeypatch.setattr(worker, "load", load)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    cv2.setNumThreads(2)
    worker._serve(order, io.StringIO())
    assert [pipeline.runtime.threads for pipeline in opened] == [threads]
    assert cv2.getNumThreads() == threads


def test_a_row_holds_together(report, bundle):
    for row in report.rows:
        assert row.frames > 10
        assert 0 < row.preprocess_ms < row.total_ms.p99
        assert 0 < row.inference_ms <= row.total_ms.p50 <= row.total_ms.p90 <= row.total_ms.p99
        assert 0 < row.host_share < 1
        assert row.detections_per_frame > 5, "the network sees objects, so that postprocessing is not idle"
        assert row.model_bytes == bundle.artifact("ort", row.precision).bytes
        assert row.speedup_vs_fp32 > 0


def test_peak_memory_is_that_of_a_process_that_does_nothing_else(report):
    ballast = bytearray(300_000_000)  # of the measuring process, which must not be counted
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert peak_rss_mb() > 300
    assert all(20 < row.peak_rss_mb < 300 for row in report.rows)


def test_a_worker_forked_from_a_large_process_counts_only_its_own_memory(bundle, tmp_path: Path):
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    np.savez(tmp_path / "images.npz", np.zeros((40, 40, 3), np.uint8))
    order = Order(bundle.root, "ort", "fp32", 1, tmp_path / "images.npz")
    with Worker(order) as worker:
        worker.measure(0.01)
        assert worker.peak_rss_mb < 300


def test_a_lone_artifact_is_measured(bundle, tmp_path: Path):
    shutil.copy(bundle.root / "int8" / "model.onnx", tmp_path / "lone.onnx")
    (row,) = run_benchmark(tmp_path / "lone.onnx", duration_s=0.1).rows
    assert (row.runtime, row.precision, row.speedup_vs_fp32) == ("ort", "int8", None)
    with pytest.raises(UsageError, match="one artifact"):
        run_benchmark(tmp_path / "lone.onnx", precisions=["fp32"])


def test_a_report_survives_its_file(report, tmp_path: Path):
    report.save(tmp_path / "benchmark.json")
    assert BenchmarkReport.load(tmp_path / "benchmark.json") == report


def test_what_cannot_be_measured_is_refused(bundle, tmp_path: Path):
    with pytest.raises(UsageError, match="threads"):
        run_benchmark(bundle.root, threads=(0,))
    with pytest.raises(UsageError, match="seconds"):
        run_benchmark(bundle.root, duration_s=0)
    with pytest.raises(UsageError, match="no runtime of that name"):
        run_benchmark(bundle.root, runtimes=["onnx"])
    with pytest.raises(BundleError, match="no such path"):
        run_benchmark(tmp_path / "none.onnx")
    with pytest.raises(DataError, match="nothing to detect in"):
        run_benchmark(bundle.root, dataset=_Nothing())


class _Nothing:
    root, summary = Path("nowhere"), "0 images, 0 boxes"

    def __len__(self):
        return 0

    def __iter__(self):
        return iter(())


def test_a_changed_artifact_is_refused_as_the_worker_says_it(bundle, tmp_path: Path):
    shutil.copytree(bundle.root, tmp_path / "bundle")
    (tmp_path / "bundle" / "fp32" / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        run_benchmark(tmp_path / "bundle", precisions=["fp32"], duration_s=0.1)


def test_a_runtime_that_is_not_installed_is_skipped_or_refused(bundle, monkeypatch, tmp_path: Path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=re.escape(install_command("onnx"))):
        run_benchmark(bundle.root, runtimes=["ort"], duration_s=0.1)


def test_a_worker_that_dies_is_named_with_what_it_said(bundle, tmp_path: Path):
    order = Order(bundle.root, "ort", "fp32", 1, tmp_path / "no such file.npz")
    with pytest.raises(InternalError, match="No such file"):
        Worker(order)


def test_an_executed_graph_that_cannot_be_read_is_no_failure_and_is_said(bundle, monkeypatch):
    def fail(worker: Worker):
        raise VendorError("no profile", got="a", expected="b", fix="c")

    monkeypatch.setattr(Worker, "executed", fail)
    report = run_benchmark(bundle.root, ["ort"], ["int8"], duration_s=0.1)
    assert report.rows[0].coverage.verdict == "unknown"
    (said,) = [warning for warning in report.warnings if "not known" in warning]
    assert said == (
        "whether ort int8 ran on integers is not known: the executed graph could not be read: "
        "no profile; got a; expected b. Fix: c"
    )


def test_a_reading_that_fails_is_no_reading_of_a_graph_without_floats():
    floats = ExecutedOperator(
        name="a", type="Conv", role="compute", precision="float32", writes="float32", time_share=1.0
    )
    graph = ExecutedGraph(runtime="ort", operators=(floats,))
    readings = iter([graph, *[InternalError("it ended", got="a", expected="b", fix="c")] * 4])

    def executed() -> ExecutedGraph:
        found = next(readings)
        if isinstance(found, InternalError):
            raise found
        return found

    contender = Contender(Path("bundle"), "ort", "int8", 1)
    found, coverage = run._judged(Lane(contender, SimpleNamespace(executed=executed)))
    assert (found, coverage.verdict) == (graph, "fallback")


def ended(worker: Worker) -> None:
    worker._process.kill()
    worker._process.wait()


def test_a_benchmark_of_which_nothing_is_left_is_an_error_and_no_empty_report(bundle, monkeypatch):
    measure = Worker.measure

    def fail(worker: Worker, *arguments, **options):
        ended(worker)
        return measure(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "measure", fail)
    with pytest.raises(InternalError, match=r"measures ort fp32 ended; got exit status -9"):
        run_benchmark(bundle.root, duration_s=0.1)


def test_a_worker_that_fails_costs_its_own_row_only(bundle, monkeypatch):
    measure = Worker.measure

    def fail(worker: Worker, *arguments, **options):
        if worker.order.precision == "int8":
            ended(worker)
        return measure(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "measure", fail)
    report = run_benchmark(bundle.root, duration_s=0.1)
    assert [row.precision for row in report.rows] == ["fp32"]
    ((runtime, precision, reason),) = [(one.runtime, one.precision, one.reason) for one in report.skipped]
    assert (runtime, precision) == ("ort", "int8")
    assert reason.startswith("with 1 thread, the process that measures ort int8 ended; got exit status -9")


def test_a_worker_that_fails_is_an_error_where_its_runtime_was_asked_for(bundle, monkeypatch):
    measure = Worker.measure

    def fail(worker: Worker, *arguments, **options):
        if worker.order.precision == "int8":
            ended(worker)
        return measure(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "measure", fail)
    with pytest.raises(InternalError, match="measures ort int8 ended"):
        run_benchmark(bundle.root, runtimes=["ort"], duration_s=0.1)


def test_a_worker_that_does_not_open_says_with_how_many_threads(bundle, monkeypatch):
    start = Worker.__init__

    def fail(worker: Worker, order: Order):
        if order.precision == "fp32" and order.threads > 1:
            raise InternalError("no memory", got="a", expected="b", fix="c")
        start(worker, order)

    monkeypatch.setattr(Worker, "__init__", fail)
    report = run_benchmark(bundle.root, threads=(1, 2, 3), precisions=["fp32"], duration_s=0.1)
    assert [row.threads for row in report.rows] == [1]
    assert [one.reason for one in report.skipped] == [
        "with 2 and 3 threads, no memory; got a; expected b. Fix: c"
    ]


def test_a_worker_that_ends_after_its_last_turn_keeps_its_row(bundle, monkeypatch):
    measure, turns_of = Worker.measure, Counter[int]()

    def measure_and_end(worker: Worker, *arguments, **options):
        times = measure(worker, *arguments, **options)
        turns_of[id(worker)] += 1
        if turns_of[id(worker)] == 12:  # as many as the shortest benchmark has
            ended(worker)
        return times

    monkeypatch.setattr(Worker, "measure", measure_and_end)
    rows = run_benchmark(bundle.root, duration_s=0.1).rows
    assert [(row.precision, row.peak_rss_mb is None) for row in rows] == [("fp32", False), ("int8", False)]


def test_a_worker_that_hangs_is_not_waited_for_without_end(bundle, monkeypatch, tmp_path: Path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edgedet.bench.workers._OPEN_LIMIT_S", 0.5)
    with pytest.raises(InternalError, match=r"measures ort fp32 ended; got no answer in 0\.5 s"):
        run_benchmark(bundle.root, duration_s=0.1)
