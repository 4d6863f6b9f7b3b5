"""A detector's artifacts and what is known of them, as one folder that can be checked.

::

    NAME/bundle.json                      the manifest: spec, artifacts with sha256, tools, provenance
    NAME/fp32/model.onnx, model.xml, ...  artifacts by precision, of one image at a time
    NAME/fp32/batch4/model.onnx, ...      the same for four images at once
    NAME/calibration.json, recipe.toml    what the INT8 ones were made with
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgedet.embedded import plan_sidecar
from edgedet.errors import BundleError, MissingError, UsageError
from edgedet.files import inside, sha256_of
from edgedet.registry import RUNTIMES, install_command
from edgedet.spec import (
    SCHEMA_VERSION,
    Batch,
    DetectorSpec,
    Precision,
    QuantizationSpec,
    Value,
    first_problem,
)

MANIFEST = "bundle.json"

# Which runtime opens which file: also how a lone artifact is recognised.
RUNTIME_OF_SUFFIX = {
    ".engine": "tensorrt",
    ".onnx": "ort",
    ".rtx": "tensorrt-rtx",
    ".safetensors": "eager",
    ".tflite": "tflite",
    ".xml": "openvino",
}


def weights_beside(xml: Path) -> Path:
    """OpenVINO's weights, beside the .xml that reads them."""
    return xml.with_suffix(".BIN" if xml.suffix.isupper() else ".bin")


def companions(path: Path) -> tuple[Path, ...]:
    """The files that a runtime reads, where they exist, when it opens this one."""
    if path.suffix.lower() == ".xml":
        return (weights_beside(path),)
    return (plan_sidecar(path),) if path.suffix.lower() in (".engine", ".rtx") else ()


def runtime_of(path: Path) -> str:
    """Name of the runtime that opens a lone artifact, told from how its name ends.

    Raises:
        BundleError: There is no such file, or no runtime opens files of that name.
    """
    name = RUNTIME_OF_SUFFIX.get(path.suffix.lower())
    if name is None or not path.is_file():
        ending = f"a {path.suffix} file" if path.suffix else "a file whose name has no ending"
        raise BundleError(
            f"cannot open {path}",
            got=ending if path.is_file() else "no such path",
            expected=f"a bundle folder or a file ending in {', '.join(RUNTIME_OF_SUFFIX)}",
            fix="check the path, or make a bundle with `edgedet export`",
        )
    return name


class FileEntry(Value):
    """One file of a bundle; `path` is relative to the bundle, with forward slashes."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)

    @staticmethod
    def of(root: Path, path: Path) -> FileEntry:
        """The entry of a file that lies in `root`."""
        return FileEntry(
            path=path.relative_to(root).as_posix(), sha256=sha256_of(path), bytes=path.stat().st_size
        )


class Artifact(Value):
    """One exported model: `files[0]` is what its runtime opens, the others belong to it.

    `runtime` is empty where no runtime of this project opens the file as it is: the ONNX that TensorRT builds
    an engine from on the device. `batch` is how many images one inference takes.

    `verified_by` names the runtime that the export compared with the source where `runtime` is not the one:
    an engine that was built without its GPU was compared as the ONNX that it was built from.
    """

    target: str
    precision: Precision
    batch: Batch = 1
    runtime: str
    verified_by: str = ""
    files: tuple[FileEntry, ...] = Field(min_length=1)
    quantization: QuantizationSpec | None = None
    note: str = ""

    @property
    def bytes(self) -> int:
        """Size of what its runtime reads; the ONNX beside an engine is there to build it again."""
        first = Path(self.files[0].path)
        read = {path.as_posix() for path in (first, *companions(first))}
        return sum(file.bytes for file in self.files if file.path in read)


class Manifest(Value):
    """What `bundle.json` holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    spec: DetectorSpec
    artifacts: tuple[Artifact, ...]
    files: tuple[FileEntry, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    created: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: the manifest has been read, files are checked when they are asked for."""

    root: Path
    manifest: Manifest

    @property
    def spec(self) -> DetectorSpec:
        """The float detector's spec."""
        return self.manifest.spec

    def artifact(self, runtime: str, precision: str, batch: int = 1) -> Artifact:
        """The artifact that a runtime opens in a precision, for so many images at once.

        Raises:
            UsageError: There is none; the message lists what there is.
            MissingError: It could not be built where the bundle was exported.
        """
        for artifact in self.manifest.artifacts:
            if (artifact.runtime, artifact.precision, artifact.batch) == (runtime, precision, batch):
                return artifact
        raise self.no_artifact(runtime, precision, batch)

    def of_batch(self, batch: int) -> tuple[Artifact, ...]:
        """All artifacts that take so many images at once."""
        return tuple(artifact for artifact in self.manifest.artifacts if artifact.batch == batch)

    def not_built(self, runtime: str, precision: str | None = None, batch: int = 1) -> Artifact | None:
        """What the bundle has instead of an artifact that only the device of its runtime could build."""
        for artifact in self.of_batch(batch):
            is_this = artifact.target == runtime and precision in (None, artifact.precision)
            if is_this and not artifact.runtime:
                return artifact
        return None

    def no_artifact(
        self, runtime: str | None, precision: str | None, batch: int = 1
    ) -> UsageError | MissingError:
        """The error that lists what the bundle has, or says why it lacks what was asked for; None is any."""
        unbuilt = self.not_built(runtime, precision, batch) if runtime else None
        if unbuilt is not None:
            return MissingError(
                f"{self.root} has no {unbuilt.precision} engine for {runtime}",
                got="the engine was not built where the bundle was exported"
                + (f" ({unbuilt.note})" if unbuilt.note else ""),
                expected="an engine, which for tensorrt only the device that runs it can build",
                fix=f"there: {install_command(RUNTIMES.entry(unbuilt.target).extra)}, then export again with "
                f"--to {unbuilt.target}",
            )
        have = ", ".join(
            artifact_name(a.runtime, a.precision, a.batch) for a in self.manifest.artifacts if a.runtime
        )
        asked = artifact_name(runtime, precision, batch)
        return UsageError(
            f"{self.root} has no artifact {f'for {asked}' if asked else 'that can be run'}",
            got=asked or "files that no runtime opens as they are",
            expected=f"one of {have}" if have else "a bundle with an artifact that a runtime opens",
            fix="choose one of those, or export again with that target and precision"
            if have
            else "export again, on the device if the target is tensorrt",
        )

    def path_of(self, artifact: Artifact) -> Path:
        """The file that the artifact's runtime opens, after every one of its files was found whole.

        Raises:
            BundleError: One is missing or changed, or the runtime would read one that is not listed.
        """
        for entry in artifact.files:
            self.check(entry)
        path = inside(self.root, artifact.files[0].path)
        listed = {inside(self.root, entry.path) for entry in artifact.files}
        for companion in companions(path):
            if companion.exists() and companion not in listed:
                raise BundleError(
                    f"{self.root} holds a file that is not of it",
                    got=f"{companion.name}, which is read with {path.name} and is not in {MANIFEST}",
                    expected="no file beside an artifact that was not exported with it",
                    fix="remove it, or export again",
                )
        return path

    def check(self, entry: FileEntry) -> Path:
        """The path of a file of this bundle.

        Raises:
            BundleError: It is missing, outside the bundle, or not what the manifest says.
        """
        path = inside(self.root, entry.path)
        if not path.is_file():
            raise BundleError(
                f"{self.root} is not complete",
                got=f"no file {entry.path}",
                expected="every file that bundle.json lists",
                fix="copy the whole folder again, or export again",
            )
        found = sha256_of(path)
        if found != entry.sha256:
            raise BundleError(
                f"{path} is not the file that was exported",
                got=f"sha256 {found[:12]}… ({path.stat().st_size} bytes)",
                expected=f"sha256 {entry.sha256[:12]}… ({entry.bytes} bytes)",
                fix="copy the file again, or export again; edgedet does not run a file that was changed",
            )
        return path

    def spec_of(self, artifact: Artifact) -> DetectorSpec:
        """The spec as it is embedded in the artifact."""
        return self.spec.with_batch(artifact.batch).model_copy(
            update={"precision": artifact.precision, "quantization": artifact.quantization}
        )


def artifact_name(runtime: str | None, precision: str | None, batch: int = 1) -> str:
    """What sentences call an artifact: "ort int8", "ort int8 batch 4"; None is any and is left out."""
    return " ".join(filter(None, (runtime, precision, f"batch {batch}" if batch > 1 else "")))


def open_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest.

    Raises:
        BundleError: The folder is not a bundle, or its manifest does not validate.
    """
    root = Path(path)
    manifest = root / MANIFEST
    if not manifest.is_file():
        raise BundleError(
            f"{root} is not a bundle",
            got="a file"
            if root.is_file()
            else f"a folder without {MANIFEST}"
            if root.is_dir()
            else "no such path",
            expected=f"a folder with {MANIFEST}",
            fix=f"give {root.parent}, the bundle that this folder is in"
            if (root.parent / MANIFEST).is_file()
            else "make one with `edgedet export CHECKPOINT --output BUNDLE`",
        )
    try:
        return Bundle(root, Manifest.model_validate_json(manifest.read_bytes()))
    except ValidationError as exc:
        raise BundleError(
            f"cannot read {manifest}",
            got=first_problem(exc),
            expected=f"a manifest of schema version {SCHEMA_VERSION}",
            fix="export again with this version of edgedet",
        ) from exc
