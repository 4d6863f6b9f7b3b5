"""Threads of an application share one opened detector; none gets what belongs to another."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

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
        if subject.runtime.name != "eager":  # of which the sums differ by rounding with what else runs
            assert len({tuple(one.scores) for one in expected}) == len(images)
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [
                (k, pool.submit(pipeline, images[k], **low)) for _ in range(ROUNDS) for k in range(THREADS)
            ]
            wrong = [k for k, job in jobs if not same(job.result(), expected[k])]
    assert not wrong


def test_closing_waits_for_what_other_threads_compute(subject: Any, feeds: Any) -> None:
    runtime = subject.open(threads=1)
    expected, found, refused = runtime.run(feeds), [], []

    def work() -> None:
        while not refused:
            try:
                found.append(runtime.run(feeds))
            except UsageError as exc:
                refused.append(exc)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    while len(found) < 2:
        time.sleep(0.001)
    runtime.close()
    for worker in workers:
        worker.join(60)
    assert "closed" in str(refused[0])
    assert all(np.array_equal(one[name], expected[name]) for one in found for name in expected)


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
