"""A bundle with one artifact changed, and its hash in the manifest with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from edgedet.bundle import MANIFEST, Bundle, FileEntry, open_bundle


def with_changed_artifact(
    bundle: Bundle, folder: Path, runtime: str, precision: str, change: Callable[[Path], None]
) -> Bundle:
    """A copy of the bundle in `folder`, in which `change` has rewritten the file that the runtime opens."""
    shutil.copytree(bundle.root, folder)
    artifact = bundle.artifact(runtime, precision)
    path = folder / artifact.files[0].path
    change(path)
    files = (FileEntry.of(folder, path), *artifact.files[1:])
    artifacts = tuple(
        a.model_copy(update={"files": files}) if a is artifact else a for a in bundle.manifest.artifacts
    )
    manifest = bundle.manifest.model_copy(update={"artifacts": artifacts})
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return open_bundle(folder)
