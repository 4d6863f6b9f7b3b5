"""Threads of an application share one opened detector; none gets what belongs to another."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet.bundle import Bundle
from edgedet.errors import UsageError
from edgedet.pipeline import Pipeline

THREADS, ROUNDS = 4, 6


@pytest.fixture
def images(image_bgr: Any) -> list[Any]:
    """Images with other detections each."""
    return [np.roll(image_bgr, 37 * shift, axis=shift % 2) for shift in range(THREADS)]


def same(one: Any, other: Any) -> bool:
    return np.array_equal(one.boxes_xyxy, other.boxes_xyxy) and np.array_equal(one.scores, other.scores)


def test_threads_that_share_a_pipeline_get_the_objects_of_their_own_image(subject: Any, images: Any) -> None:
    with subject.open(threads=1) as runtime:
        pipeline = Pipeline(runtime)
        low = {"score_threshold": 0.05}  # something is found in each
        expected = [pipeline(image, **low) for image in images]
        assert len({tuple(one.scores) for one in expected}) == len(images)
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [
                (k, pool.submit(pipeline, images[k], **low)) for _ in range(ROUNDS) for k in range(THREADS)
            ]
            wrong = [k for k, job in jobs if not same(job.result(), expected[k])]
    assert not wrong


def test_closing_waits_for_what_another_thread_computes(subject: Any, feeds: Any) -> None:
    runtime = subject.open(threads=1)
    expected = runtime.run(feeds)
    inside, go_on, run = threading.Event(), threading.Event(), runtime._run

    def slow(given: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return run(given)

    runtime._run = slow
    with ThreadPoolExecutor(2) as pool:
        inference = pool.submit(runtime.run, feeds)
        assert inside.wait(60)
        closing = pool.submit(runtime.close)
        with pytest.raises(TimeoutError):
            closing.result(0.2)
        with pytest.raises(UsageError, match="closed"):
            runtime.run(feeds)
        go_on.set()
        closing.result(60)
        found = inference.result(60)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_an_inference_that_is_interrupted_to_close_frees_what_it_holds(subject: Any, feeds: Any) -> None:
    runtime, freed = subject.open(threads=1), []
    run, close = runtime._run, runtime._close

    def interrupted(given: Any) -> Any:
        runtime.close()  # as the handler of a signal does
        assert not freed
        return run(given)

    runtime._run, runtime._close = interrupted, lambda: (freed.append(True), close())
    runtime.run(feeds)
    runtime.close()
    assert freed == [True]


@pytest.mark.parametrize("subject", ["fp32"], indirect=True)
def test_a_file_that_is_replaced_changes_nothing_of_what_is_open(
    subject: Any, images: Any, tmp_path: Path
) -> None:
    """Later openings, for further threads, are of the file that was opened first."""
    for file in subject.path.parent.glob(f"{subject.path.stem}.*"):
        shutil.copy(file, tmp_path)
    with subject.runtime(tmp_path / subject.path.name, threads=1) as runtime:
        pipeline = Pipeline(runtime)
        expected = [pipeline(image, score_threshold=0.05) for image in images]
        for file in tmp_path.iterdir():
            file.unlink()
            file.write_bytes(b"another model")
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda image: pipeline(image, score_threshold=0.05), images * ROUNDS))
        assert all(same(one, expected[k % THREADS]) for k, one in enumerate(found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_to_open_its_own(subject: Any, feeds: Any) -> None:
    with subject.open(threads=1) as runtime:
        runtime.run(feeds)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                runtime.run(feeds)
                said = "ran"
            except UsageError as exc:
                said = exc.fix
            runtime.close()
            os.write(writing, said.encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            said = answer.read()
        os.waitpid(child, 0)
        assert "spawn" in said
        runtime.run(feeds)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_pytorch_runs_in_a_forked_process_that_opens_its_own(full_bundle: Bundle, feeds: Any) -> None:
    """On one thread: those of OpenMP stay with the parent, and waiting for them would never end."""
    path = full_bundle.path_of(full_bundle.artifact("eager", "fp32"))
    program = (
        "import os, sys, numpy as np; from pathlib import Path; from edgedet import registry\n"
        "open_one = registry.RUNTIMES.load('eager'); feeds = dict(np.load(sys.argv[2]))\n"
        "expected = open_one(Path(sys.argv[1]), threads=2).run(feeds)\n"
        "if os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "found = open_one(Path(sys.argv[1]), threads=2).run(feeds)\n"
        "os._exit(0 if all(np.allclose(found[n], v, atol=1e-4) for n, v in expected.items()) else 1)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "feeds.npz", **feeds)
        command = [sys.executable, "-c", program, str(path), str(Path(folder) / "feeds.npz")]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            assert process.wait(60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
