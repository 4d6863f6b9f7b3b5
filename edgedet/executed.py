"""What a runtime really executed, and where an artifact that should compute on integers computes in float.

A vendor fuses, splits and rewrites operators when it loads an artifact, and falls back to float without a
word where it has no integer kernel. So the graph is read from the runtime after it has loaded the artifact
(`edgedet_runtimes.shell.Runtime.executed`), and never inferred from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from edgedet.spec import CALIBRATED, Value

Role = Literal["compute", "convert", "move"]
Place = Literal["between", "first", "last", "alone"]

_PLACES: dict[Place, str] = {
    "between": "between integer operators",
    "first": "before the first integer operator",
    "last": "behind the last integer operator",
    "alone": "apart from all integer operators",
}


class ExecutedOperator(Value):
    """One operator as the runtime executes it, with whatever it fused into it.

    Attributes:
        name: Unique in the graph, as the runtime names it.
        type: The runtime's name of its kind.
        role: "compute"; "convert" between integers and floats; "move" for what copies values as they are.
        precision: What it computes on, such as "int8", "uint8" or "float32": the widest that it reads, scales
            and parameters left out.
        writes: What it writes.
        inputs: Names of the operators whose results it reads.
        time_share: Part of the time of all operators, 0..1; None where the runtime does not tell.
        delegated: Whether a delegate of the runtime took it; None where there is no such thing.
    """

    name: str
    type: str
    role: Role
    precision: str
    writes: str
    inputs: tuple[str, ...] = ()
    time_share: float | None = None
    delegated: bool | None = None

    @property
    def is_integer(self) -> bool:
        """Whether it computes on integers."""
        return _is_integer(self.precision)


class OperatorKind(Value):
    """Operators of one type, role and precision; `time_share` is that of all of them."""

    type: str
    role: Role
    precision: str
    count: int
    time_share: float | None


class FloatChain(Value):
    """Operators in float that pass floats to each other.

    Attributes:
        place: "between" integer operators: an island; "first" before all of them, "last" behind all of them,
            "alone" where neither.
        operators: Names of those that compute, in order of execution.
        types: Their types.
        conversions: Operators that convert between integers and floats at its ends.
        time_share: Of the chain and these conversions, 0..1; None where the runtime does not tell.
    """

    place: Place
    operators: tuple[str, ...]
    types: tuple[str, ...]
    conversions: int
    time_share: float | None

    def __str__(self) -> str:
        named = [f"{kind} {name}" for kind, name in zip(self.types, self.operators, strict=True)]
        shown = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        runs = "runs" if len(named) == 1 else "run"
        return f"{shown} {runs} in float {_PLACES[self.place]}{self._cost()}"

    def _cost(self) -> str:
        costs = [] if self.time_share is None else [f"{100 * self.time_share:.1f} % of the time"]
        if self.conversions:
            costs.append(f"{self.conversions} conversion{'s' * (self.conversions > 1)}")
        return f": {' with '.join(costs)}" if costs else ""


class ExecutedGraph(Value):
    """All operators that a runtime executes for one inference.

    Attributes:
        runtime: Its name.
        operators: In order of execution; constants and what is computed once at loading are left out.
        partitions: Parts that a delegate of the runtime took; None where there is no such thing.
    """

    runtime: str
    operators: tuple[ExecutedOperator, ...]
    partitions: int | None = None

    @property
    def kinds(self) -> tuple[OperatorKind, ...]:
        """Operators by role, type and precision, in order of their first execution."""
        groups: dict[tuple[Role, str, str], list[ExecutedOperator]] = {}
        for role in ("compute", "convert", "move"):
            for operator in self.operators:
                if operator.role == role:
                    groups.setdefault((role, operator.type, operator.precision), []).append(operator)
        return tuple(
            OperatorKind(
                type=kind, role=role, precision=precision, count=len(members), time_share=_time(members)
            )
            for (role, kind, precision), members in groups.items()
        )

    @property
    def integer_share(self) -> float | None:
        """Part of the operators that compute which do so on integers, 0..1; None where none computes."""
        computing = [operator for operator in self.operators if operator.role == "compute"]
        return sum(operator.is_integer for operator in computing) / len(computing) if computing else None

    @property
    def float_chains(self) -> tuple[FloatChain, ...]:
        """Chains of float operators that compute, in order of execution.

        The quantization of inputs, the dequantization of outputs and the reshaping of either compute nothing,
        and are no chain.
        """
        links = _Links(self.operators)
        integers = {o.name for o in self.operators if o.role == "compute" and o.is_integer}
        chains, seen = [], set[str]()
        for operator in self.operators:
            if operator.is_integer or operator.role == "convert" or operator.name in seen:
                continue
            members = _reach([operator.name], links.floats_beside)
            seen |= members
            if any(links.operators[member].role == "compute" for member in members):
                before = not integers.isdisjoint(_reach(members, links.sources.__getitem__))
                after = not integers.isdisjoint(_reach(members, links.readers.__getitem__))
                chains.append(_chain(links, members, _place(before, after)))
        return tuple(chains)

    @property
    def islands(self) -> tuple[FloatChain, ...]:
        """Float chains between integer operators: each costs two conversions and the speed of integers."""
        return tuple(chain for chain in self.float_chains if chain.place == "between")


class _Links:
    """Who reads whom, by name."""

    def __init__(self, operators: Iterable[ExecutedOperator]) -> None:
        self.operators = {operator.name: operator for operator in operators}
        self.sources = {
            name: [source for source in operator.inputs if source in self.operators]
            for name, operator in self.operators.items()
        }
        self.readers: dict[str, list[str]] = {name: [] for name in self.operators}
        for name, sources in self.sources.items():
            for source in sources:
                self.readers[source].append(name)

    def floats_beside(self, name: str) -> list[str]:
        """Operators in float that pass floats to this one, or that it passes floats to."""
        before = [source for source in self.sources[name] if not _is_integer(self.operators[source].writes)]
        after = [] if _is_integer(self.operators[name].writes) else self.readers[name]
        near = [self.operators[other] for other in (*before, *after)]
        return [other.name for other in near if not other.is_integer and other.role != "convert"]


def claims_integers(precision: str) -> bool:
    """Whether an artifact of that precision is meant to compute on integers.

    Dynamic INT8 reads and writes floats, whatever its kernels do in between.
    """
    return precision in CALIBRATED


def fallback_warning(graph: ExecutedGraph) -> str | None:
    """What to say of an artifact that is meant to compute on integers; None where it does throughout."""
    chains = graph.float_chains
    if not chains:
        return None
    computing = sum(operator.role == "compute" for operator in graph.operators)
    floats = sum(len(chain.operators) for chain in chains)
    islands = len(graph.islands)
    where = f" in {islands} island{'s' * (islands != 1)} between integer ones" if islands else ""
    shares = [chain.time_share for chain in chains]
    known = [share for share in shares if share is not None]
    cost = f", {100 * sum(known):.1f} % of the runtime's time" if len(known) == len(shares) else ""
    shown = ", ".join(chain.operators[0] for chain in chains[:3]) + (", …" if len(chains) > 3 else "")
    return f"{floats} of {computing} operators that compute ran in float{where} ({shown}){cost}"


def _is_integer(dtype: str) -> bool:
    return dtype.removeprefix("u").startswith("int")


def _reach(start: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    """What can be reached from names, themselves included."""
    found, pending = set(start), list(start)
    while pending:
        for name in following(pending.pop()):
            if name not in found:
                found.add(name)
                pending.append(name)
    return found


def _place(before: bool, after: bool) -> Place:
    if before and after:
        return "between"
    return "last" if before else "first" if after else "alone"


def _chain(links: _Links, members: set[str], place: Place) -> FloatChain:
    operators = links.operators
    computing = [o for o in operators.values() if o.name in members and o.role == "compute"]
    ends = {end for member in members for end in (*links.sources[member], *links.readers[member])}
    conversions = [operators[end] for end in ends if operators[end].role == "convert"]
    return FloatChain(
        place=place,
        operators=tuple(operator.name for operator in computing),
        types=tuple(operator.type for operator in computing),
        conversions=len(conversions),
        time_share=_time([*(operators[name] for name in members), *conversions]),
    )


def _time(operators: Iterable[ExecutedOperator]) -> float | None:
    shares = [operator.time_share for operator in operators]
    known = [share for share in shares if share is not None]
    return sum(known) if known and len(known) == len(shares) else None
