"""What every runtime promises, held over the table of runtimes: a new one is covered by its line there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedet import registry
from edgedet.bundle import Bundle
from edgedet.errors import BundleError, TensorError, UsageError
from edgedet.spec import OutputSpec


def test_inputs_and_outputs_are_those_of_the_spec(subject: Any) -> None:
    with subject.open() as runtime:
        assert runtime.inputs == (subject.spec.input.tensor,)
        assert [(t.name, t.shape, t.dtype) for t in runtime.outputs] == [
            (o.name, o.shape, o.dtype) for o in subject.spec.outputs
        ]


def test_a_run_gives_the_outputs_that_the_signature_names(subject: Any, feeds: Any) -> None:
    with subject.open() as runtime:
        outputs = runtime.run(feeds)
        assert outputs.keys() == {spec.name for spec in runtime.outputs}
        for spec in runtime.outputs:
            assert (outputs[spec.name].shape, outputs[spec.name].dtype.name) == (spec.shape, spec.dtype)
            assert np.isfinite(outputs[spec.name]).all()
            assert outputs[spec.name].std() > 0


def test_the_spec_in_the_lone_file_is_the_one_that_was_written(subject: Any) -> None:
    written = subject.spec
    found = subject.runtime.read_spec(subject.path)
    if subject.runtime.name == "eager":  # its provenance is of the checkpoint, the bundle's of the export
        written = written.model_copy(update={"provenance": found.provenance})
    assert found == written
    with subject.open() as runtime:
        assert runtime.spec == found


def test_every_runtime_agrees_with_torch_on_a_real_image(
    subject: Any, full_bundle: Bundle, feeds: Any
) -> None:
    reference = registry.RUNTIMES.load("eager")
    with reference(full_bundle.path_of(full_bundle.artifact("eager", "fp32"))) as eager:
        expected = eager.run(feeds)
    with subject.open() as runtime:
        found = runtime.run(feeds)
    for name, values in expected.items():
        error = found[name] - values
        if subject.spec.precision == "fp32":
            assert np.abs(error).max() <= 1e-4 * np.abs(values).max()
        else:  # how near an INT8 artifact is to its own reference is judged by the export and by parity
            assert np.square(error).mean() <= 0.05 * np.square(values).mean()


def test_the_same_input_gives_the_same_bits(subject: Any, feeds: Any) -> None:
    with subject.open() as runtime:
        first, second = runtime.run(feeds), runtime.run(feeds)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_number_of_threads_does_not_change_a_bit(subject: Any, feeds: Any) -> None:
    found = []
    for threads in (1, 2, 3):
        with subject.open(threads=threads) as runtime:
            found.append(runtime.run(feeds))
    if subject.runtime.name == "eager":  # PyTorch's sums are shared among its threads
        for name, values in found[0].items():
            np.testing.assert_allclose(found[1][name], values, rtol=1e-4, atol=1e-4)
        return
    for other in found[1:]:
        assert all(np.array_equal(found[0][name], other[name]) for name in other)


def test_outputs_belong_to_the_caller_and_survive_the_next_run_and_close(subject: Any, feeds: Any) -> None:
    with subject.open() as runtime:
        outputs = runtime.run(feeds)
        kept = {name: array.copy() for name, array in outputs.items()}
        other = runtime.run({name: feed * np.float32(0.5) + np.float32(0.1) for name, feed in feeds.items()})
    assert all(np.array_equal(outputs[name], kept[name]) for name in kept)
    assert not any(np.array_equal(other[name], kept[name]) for name in kept)
    for array in outputs.values():
        array += 1  # writable, and nobody else's


def test_a_run_leaves_its_feed_alone(subject: Any, feeds: Any) -> None:
    before = {name: feed.copy() for name, feed in feeds.items()}
    with subject.open() as runtime:
        runtime.run(feeds)
    assert all(np.array_equal(feeds[name], before[name]) for name in feeds)


def test_read_only_feeds_are_taken(subject: Any, feeds: Any) -> None:
    with subject.open() as runtime:
        expected = runtime.run(feeds)
        for feed in feeds.values():
            feed.setflags(write=False)
        found = runtime.run(feeds)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_feeds_that_are_not_contiguous_are_taken(subject: Any, feeds: Any) -> None:
    scattered = {name: np.asfortranarray(feed) for name, feed in feeds.items()}
    assert not any(feed.flags.c_contiguous for feed in scattered.values())
    with subject.open() as runtime:
        expected, found = runtime.run(feeds), runtime.run(scattered)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_wrong_feeds_are_refused_and_the_runtime_goes_on(subject: Any, feeds: Any) -> None:
    ((name, feed),) = feeds.items()
    _, channels, height, width = feed.shape
    wrong: dict[str, dict[str, Any]] = {
        "none": {},
        "other": {"x": feed},
        "x": {name: feed, "x": feed},
        "float64": {name: feed.astype(np.float64)},
        "uint8": {name: feed.astype(np.uint8)},
        ">f4": {name: feed.astype(">f4")},
        str([channels, height, width]): {name: feed[0]},
        str([2, channels, height, width]): {name: np.concatenate([feed, feed])},
        str([1, height, width, channels]): {name: feed.transpose(0, 2, 3, 1)},
        "a list": {name: feed.tolist()},
    }
    with subject.open() as runtime:
        expected = runtime.run(feeds)
        for what, mapping in wrong.items():
            with pytest.raises(TensorError) as caught:
                runtime.run(mapping)
            assert what in caught.value.got or name in caught.value.expected, what
        again = runtime.run(feeds)
    assert all(np.array_equal(again[key], expected[key]) for key in expected)


def test_one_thread_works_and_no_thread_is_refused(subject: Any, feeds: Any) -> None:
    with subject.open() as default, subject.open(threads=1) as single:
        expected, found = default.run(feeds), single.run(feeds)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4 * np.abs(values).max())
    with pytest.raises(UsageError, match="1 or more"):
        subject.open(threads=0)


def test_two_runtimes_can_be_open_on_one_file(subject: Any, feeds: Any) -> None:
    with subject.open() as one:
        with subject.open() as two:
            expected = two.run(feeds)
        found = one.run(feeds)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_closing_twice_is_harmless_and_a_closed_runtime_says_so(subject: Any, feeds: Any) -> None:
    runtime = subject.open()
    runtime.close()
    runtime.close()
    with pytest.raises(UsageError, match="closed"):
        runtime.run(feeds)


def test_an_artifact_that_has_other_outputs_than_its_spec_is_refused(subject: Any) -> None:
    boxes, logits = subject.spec.outputs
    narrow = OutputSpec(name=logits.name, shape=(*logits.shape[:2], 2), role=logits.role)
    renamed = OutputSpec(name="scores", shape=logits.shape, role=logits.role)
    for other in (narrow, renamed):
        with pytest.raises(BundleError, match=r"outputs of .* are not those of its spec"):
            subject.open(spec=subject.spec.model_copy(update={"outputs": (boxes, other)}))


def test_a_process_that_opens_and_runs_an_artifact_prints_nothing(subject: Any, tmp_path: Path) -> None:
    code = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from edgedet import registry\n"
        "with registry.RUNTIMES.load(sys.argv[1])(Path(sys.argv[2])) as runtime:\n"
        "    runtime.run({spec.name: numpy.zeros(spec.shape, spec.dtype) for spec in runtime.inputs})\n"
    )
    command = [sys.executable, "-c", code, subject.runtime.name, str(subject.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_made_or_changed(subject: Any, feeds: Any) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        files = (path for path in subject.path.parent.iterdir())
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = state()
    with subject.open() as runtime:
        runtime.run(feeds)
    assert state() == before


def test_a_path_with_spaces_and_letters_beyond_ascii_opens(subject: Any, feeds: Any, tmp_path: Path) -> None:
    folder = tmp_path / "Möbel & 物 体"
    folder.mkdir()
    for sibling in subject.path.parent.glob(subject.path.stem + ".*"):
        shutil.copy(sibling, folder / sibling.name)
    with subject.runtime(folder / subject.path.name) as runtime:
        runtime.run(feeds)


def _refuses(runtime: Any, path: Path, spec: Any) -> None:
    for attempt in (lambda: runtime(path), lambda: runtime(path, spec=spec)):
        with pytest.raises(BundleError) as caught:
            attempt()
        assert path.name in str(caught.value)
        assert caught.value.fix
    try:
        assert runtime.read_spec(path) == spec  # where the damage is elsewhere in the file
    except BundleError as exc:
        assert path.name in str(exc)  # noqa: PT017


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(subject: Any, tmp_path: Path, fraction: float) -> None:
    data = subject.path.read_bytes()
    path = tmp_path / f"cut{subject.suffix}"
    path.write_bytes(data[: int(len(data) * fraction)])
    weights = subject.path.with_suffix(".bin")
    if weights.is_file():
        shutil.copy(weights, path.with_suffix(".bin"))
    _refuses(subject.runtime, path, subject.spec)


@pytest.mark.parametrize("head", [0, 8, 64])
def test_random_bytes_are_refused(subject: Any, tmp_path: Path, head: int) -> None:
    path = tmp_path / f"noise{subject.suffix}"
    path.write_bytes(subject.path.read_bytes()[:head] + np.random.default_rng(1).bytes(20_000))
    _refuses(subject.runtime, path, subject.spec)
    with pytest.raises(BundleError, match="noise"):
        subject.runtime.read_spec(path)


def test_the_file_of_another_runtime_is_refused(subject: Any, full_bundle: Bundle, tmp_path: Path) -> None:
    for artifact in full_bundle.manifest.artifacts:
        is_other = artifact.runtime not in ("", subject.runtime.name)
        if is_other and artifact.precision == subject.spec.precision:
            path = tmp_path / f"{artifact.runtime}{subject.suffix}"
            shutil.copy(full_bundle.path_of(artifact), path)
            _refuses(subject.runtime, path, subject.spec)


def test_a_folder_and_a_missing_file_are_refused(runtime: Any, suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    for path, what in ((folder, "a folder"), (tmp_path / f"none{suffix}", "no such file")):
        with pytest.raises(BundleError, match=what):
            runtime.read_spec(path)
        with pytest.raises(BundleError, match=what):
            runtime(path)


def test_weights_that_are_missing_or_cut_are_refused(full_bundle: Bundle, tmp_path: Path) -> None:
    openvino = registry.RUNTIMES.load("openvino")
    model = full_bundle.path_of(full_bundle.artifact("openvino", "fp32"))
    path = tmp_path / model.name
    shutil.copy(model, path)
    with pytest.raises(BundleError, match=r"model\.xml"):
        openvino(path)
    weights = model.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(BundleError, match=r"model\.xml"):
        openvino(path)


def test_every_runtime_says_its_version(runtime: Any) -> None:
    assert runtime.version()[0].isdigit()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_xml_beside_the_weights_of_another_is_refused(
    full_bundle: Bundle, tmp_path: Path, precision: str
) -> None:
    runtime = registry.RUNTIMES.load("openvino")
    path = full_bundle.path_of(full_bundle.artifact("openvino", precision))
    lone = Path(shutil.copy(path, tmp_path))
    weights = bytearray(path.with_suffix(".bin").read_bytes())
    weights[len(weights) // 2] ^= 1  # of the same size, and so of a layout that fits
    lone.with_suffix(".bin").write_bytes(weights)
    for use in (runtime, runtime.read_spec, runtime.integer_layers):
        with pytest.raises(BundleError, match=r"model.bin is not the weights of model.xml"):
            use(lone)
