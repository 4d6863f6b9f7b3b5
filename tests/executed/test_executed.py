"""Which operators count as float between integers, on graphs that are written down here."""

from __future__ import annotations

from edgedet.executed import ExecutedGraph, ExecutedOperator, claims_integers, fallback_warning
from edgedet.spec import PRECISIONS


def operator(name: str, *inputs: str, on: str = "uint8", writes: str | None = None, **facts: object):
    role = "compute" if "role" not in facts else facts.pop("role")
    return ExecutedOperator(
        name=name,
        type=name.rstrip("0123456789"),
        role=role,
        precision=on,
        writes=writes or on,
        inputs=inputs,
        **facts,
    )


def graph(*operators: ExecutedOperator) -> ExecutedGraph:
    return ExecutedGraph(runtime="ort", operators=operators)


QUANTIZE = operator("Q1", on="float32", writes="uint8", role="convert", time_share=0.1)
ENDS = (
    QUANTIZE,
    operator("Conv1", "Q1", time_share=0.2),
    operator("DQ1", "Conv1", writes="float32", role="convert", time_share=0.1),
)


def test_boundaries_and_the_reshaping_of_outputs_are_no_chain():
    whole = graph(*ENDS, operator("Reshape1", "DQ1", on="float32", role="move", time_share=0.6))
    assert whole.float_chains == ()
    assert whole.integer_share == 1
    assert fallback_warning(whole) is None


def test_a_float_operator_between_integer_ones_is_an_island_with_its_conversions_and_time():
    whole = graph(
        *ENDS,
        operator("HardSwish1", "DQ1", on="float32", time_share=0.3),
        operator("Q2", "HardSwish1", on="float32", writes="uint8", role="convert", time_share=0.1),
        operator("Conv2", "Q2", time_share=0.2),
    )
    (island,) = whole.islands
    assert (island.operators, island.conversions, round(island.time_share, 6)) == (("HardSwish1",), 2, 0.5)
    assert str(island) == (
        "HardSwish HardSwish1 runs in float between integer operators: 50.0 % of the time with 2 conversions"
    )
    assert fallback_warning(whole) == (
        "1 of 3 operators that compute ran in float in 1 island between integer ones (HardSwish1), "
        "50.0 % of the runtime's time"
    )


def test_float_behind_the_last_integer_operator_is_a_fallback_and_no_island():
    whole = graph(*ENDS, operator("Sigmoid1", "DQ1", on="float32"))
    assert whole.islands == ()
    assert [chain.place for chain in whole.float_chains] == ["last"]
    assert "1 of 2 operators that compute ran in float (Sigmoid1)" in (fallback_warning(whole) or "")


def test_float_before_the_first_integer_operator_is_told_apart():
    whole = graph(operator("Conv1", on="float32"), operator("Conv2", "Conv1"))
    assert [chain.place for chain in whole.float_chains] == ["first"]


def test_an_artifact_that_runs_in_float_throughout_is_a_fallback():
    whole = graph(operator("Conv1", on="float32"), operator("Conv2", "Conv1", on="float32"))
    assert whole.integer_share == 0
    assert [chain.place for chain in whole.float_chains] == ["alone"]
    assert "2 of 2 operators that compute ran in float" in (fallback_warning(whole) or "")


def test_float_operators_that_pass_integers_to_each_other_are_two_islands():
    """An addition that quantizes its own sum ends its island, though the next one reads that sum."""
    whole = graph(
        operator("Conv1", writes="float32"),
        operator("Add1", "Conv1", on="float32", writes="uint8"),
        operator("Conv2", "Add1", writes="float32"),
        operator("Add2", "Add1", "Conv2", on="float32", writes="uint8"),
        operator("Conv3", "Add2"),
    )
    assert [island.operators for island in whole.islands] == [("Add1",), ("Add2",)]


def test_moves_join_the_operators_of_a_chain():
    whole = graph(
        *ENDS,
        operator("Mul1", "DQ1", on="float32"),
        operator("Reshape1", "Mul1", on="float32", role="move"),
        operator("Mul2", "Reshape1", on="float32"),
        operator("Q2", "Mul2", on="float32", writes="uint8", role="convert"),
        operator("Conv2", "Q2"),
    )
    assert [island.operators for island in whole.islands] == [("Mul1", "Mul2")]


def test_kinds_add_up_to_all_operators_and_all_time():
    whole = graph(*ENDS, operator("Conv2", "Conv1", time_share=0.6))
    assert [(kind.type, kind.count) for kind in whole.kinds] == [("Conv", 2), ("Q", 1), ("DQ", 1)]
    assert sum(kind.time_share for kind in whole.kinds) == 1


def test_only_integer_precisions_claim_integers():
    claiming = [precision for precision in PRECISIONS if claims_integers(precision)]
    assert claiming == ["int8", "int8-a16"], "dynamic INT8 reads and writes floats"
