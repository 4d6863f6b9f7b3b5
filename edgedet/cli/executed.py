"""`edgedet inspect --executed`: what each runtime really executes, read from the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedet import registry
from edgedet.bundle import MANIFEST, open_bundle
from edgedet.cli.output import Output
from edgedet.errors import MissingError
from edgedet.executed import ExecutedGraph, OperatorKind, claims_integers
from edgedet.pipeline import load
from edgedet.selection import FLOAT, Skipped, cannot_run, select
from edgedet.spec import Precision


def show_executed(model: Path, chosen: tuple[str, ...] | None, threads: int | None, output: Output) -> None:
    """Print one table of operators an artifact, and what of it runs in float that should not.

    Raises:
        UsageError: There is no runtime of that name, or the bundle has no artifact for it.
        MissingError: The runtime that was asked for is not installed.
    """
    skipped: list[Skipped] = []
    records: list[dict[str, Any]] = []
    for precision, name, graph in _graphs(model, chosen, threads, skipped):
        if records:
            output.line()
        _show(name, precision, graph, output)
        records.append(_record(name, precision, graph))
    for one in skipped:
        output.line(f"{one.runtime} {one.precision} was not read: {one.reason}")
    output.json(
        {
            "path": str(model),
            "artifacts": records,
            "skipped": [one.model_dump(mode="json") for one in skipped],
        }
    )


def _graphs(
    model: Path, chosen: tuple[str, ...] | None, threads: int | None, skipped: list[Skipped]
) -> Iterator[tuple[Precision, str, ExecutedGraph | None]]:
    if model.is_file() and model.name != MANIFEST:
        with load(model, chosen[0] if chosen else None, threads=threads, batch=None) as pipeline:
            runtime_open: Any = pipeline.runtime
            yield pipeline.spec.precision, runtime_open.name, runtime_open.executed()
        return
    bundle = open_bundle(model.parent if model.name == MANIFEST else model)
    artifacts, left_out = select(bundle, chosen, None, leave_out=(FLOAT,))
    skipped += left_out
    for artifact in artifacts:
        path, spec = bundle.path_of(artifact), bundle.spec_of(artifact)
        try:
            opened = registry.RUNTIMES.load(artifact.runtime)(path, spec=spec, threads=threads)
        except MissingError as exc:
            if chosen is not None:
                raise
            skipped.append(cannot_run(artifact, exc))
            continue
        with opened:
            yield artifact.precision, artifact.runtime, opened.executed()


def _show(runtime: str, precision: Precision, graph: ExecutedGraph | None, output: Output) -> None:
    if graph is None:
        output.line(f"{runtime} {precision}: this runtime does not tell what it executes")
        return
    share = graph.integer_share
    computing = (
        "nothing computes" if share is None else f"{100 * share:.1f} % of what computes is in integers"
    )
    output.line(f"{runtime} {precision}: {len(graph.operators)} operators, {computing}{_delegation(graph)}")
    output.line()
    output.table(
        ("operator", "does", "on", "count", "time %"),
        [(kind.type, kind.role, kind.precision, kind.count, _time(kind)) for kind in graph.kinds],
    )
    if claims_integers(precision):
        for chain in graph.float_chains:
            output.line(f"warning: {chain}")


def _delegation(graph: ExecutedGraph) -> str:
    if graph.partitions is None:
        return ""
    left = [operator for operator in graph.operators if not operator.delegated]
    parts = f"{graph.partitions} part{'s' * (graph.partitions != 1)}"
    outside = ", ".join(f"{operator.type} {operator.name}" for operator in left[:5])
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    return f"; a delegate takes {parts}" + (
        f" and leaves out {outside}{more}" if left else ", which is everything"
    )


def _time(kind: OperatorKind) -> str | None:
    return None if kind.time_share is None else f"{100 * kind.time_share:.1f}"


def _record(runtime: str, precision: Precision, graph: ExecutedGraph | None) -> dict[str, Any]:
    if graph is None:
        return {"runtime": runtime, "precision": precision, "executed": None}
    chains = graph.float_chains if claims_integers(precision) else ()
    return {
        "runtime": runtime,
        "precision": precision,
        "integer_share": graph.integer_share,
        "partitions": graph.partitions,
        "kinds": [kind.model_dump(mode="json") for kind in graph.kinds],
        "float_chains": [chain.model_dump(mode="json") for chain in chains],
        "warnings": [str(chain) for chain in chains],
        "executed": graph.model_dump(mode="json"),
    }
