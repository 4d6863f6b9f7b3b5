"""When an INT8 artifact counts as one that fell back: graphs as runtimes tell them, and a real one."""

from __future__ import annotations

import pytest

from edgedet.bench.coverage import ALLOWED_FLOAT_TIME, judge
from edgedet.executed import ExecutedGraph, ExecutedOperator


def graph(*operators: ExecutedOperator, runtime: str = "ort") -> ExecutedGraph:
    return ExecutedGraph(runtime=runtime, operators=operators)


def operator(
    name: str,
    precision: str = "int8",
    time_share: float | None = None,
    inputs: tuple[str, ...] = (),
    role: str = "compute",
    delegated: bool | None = None,
) -> ExecutedOperator:
    writes = precision
    return ExecutedOperator(
        name=name,
        type="Conv",
        role=role,
        precision=precision,
        writes=writes,
        inputs=inputs,
        time_share=time_share,
        delegated=delegated,
    )


def with_float(share: float | None, name: str = "conv2d_4_nchwc", runtime: str = "ort") -> ExecutedGraph:
    rest = None if share is None else 1 - share
    return graph(
        operator("first", time_share=rest),
        operator(name, "float32", share, inputs=("first",)),
        runtime=runtime,
    )


def test_all_in_integers_is_as_intended():
    found = judge(graph(operator("one", time_share=1.0)), "int8", ())
    assert (found.verdict, found.reason, found.float_time) == ("intended", "", 0)


@pytest.mark.parametrize(("share", "verdict"), [(0.09, "intended"), (0.11, "fallback")])
def test_what_floats_may_take_is_a_part_of_the_time(share, verdict):
    assert ALLOWED_FLOAT_TIME == 0.10
    found = judge(with_float(share), "int8", ())
    assert found.verdict == verdict
    assert found.float_time == pytest.approx(share)
    assert ("11.0 % of the time; 10 % may" in found.reason) is (verdict == "fallback")


def test_without_times_no_operator_may_run_in_float():
    found = judge(with_float(None, runtime="tflite"), "int8", ())
    assert found.verdict == "fallback"
    assert "1 of 2 operators that compute ran in float without being asked to" in found.reason


@pytest.mark.parametrize(
    ("name", "layers", "verdict"),
    [
        ("conv2d_4_nchwc", ("conv2d_4",), "intended"),
        ("node_conv2d_4/WithoutBiases", ("conv2d_4",), "intended"),
        ("conv2d_4_nchwc", ("conv2d*",), "intended"),
        ("conv2d_4_nchwc", ("conv2d",), "fallback"),
        ("conv2d_41", ("conv2d_4",), "fallback"),
        ("node_mul_3", ("conv2d_4",), "fallback"),
    ],
)
def test_a_layer_that_was_asked_to_stay_float_is_no_silent_fallback(name, layers, verdict):
    found = judge(with_float(0.5, name), "int8", layers)
    assert found.verdict == verdict
    assert found.asked_float_time == pytest.approx(0.5 if verdict == "intended" else 0)


def test_a_layer_that_was_asked_for_does_not_excuse_a_whole_network_beside_it():
    chain = [operator("conv2d_4", "float32", 0.1)]
    chain += [operator(f"more_{index}", "float32", 0.1, (chain[-1].name,)) for index in range(5)]
    assert judge(graph(*chain), "int8", ("conv2d_4",)).verdict == "fallback"
    assert judge(graph(*chain[:4]), "int8", ("conv2d_4",)).verdict == "intended"


def test_a_runtime_without_names_excuses_as_many_chains_as_layers_were_asked_for():
    two = graph(
        operator("a", "float32"),
        operator("b", inputs=("a",)),
        operator("c", "float32", inputs=("b",)),
        runtime="tflite",
    )
    islands = ExecutedGraph(
        runtime="tflite",
        operators=tuple(
            one.model_copy(update={"writes": "int8"}) if one.name == "a" else one for one in two.operators
        ),
    )
    assert len(islands.float_chains) == 2
    assert judge(islands, "int8", ("conv2d", "conv2d_7")).verdict == "intended"
    assert judge(islands, "int8", ("conv2d",)).verdict == "fallback"
    assert judge(islands, "int8", ("conv2d*",)).verdict == "intended"


def float_chain(count: int, start: str = "first") -> list[ExecutedOperator]:
    """So many operators in float, each behind the one before it, between two on integers."""
    chain = [operator(start)]
    for index in range(count):
        chain.append(operator(f"{start}_{index}", "float32", inputs=(chain[-1].name,)))
    return [*chain, operator(f"{start}_last", inputs=(chain[-1].name,))]


def test_a_layer_that_was_asked_for_does_not_excuse_a_whole_network_where_operators_bear_no_names():
    for count, layers, verdict in (
        (4, ("conv_stem",), "intended"),
        (5, ("conv_stem",), "fallback"),
        (5, ("conv_stem", "conv2d"), "intended"),  # neighbours are one chain
        (87, ("conv_stem",), "fallback"),
        (87, ("*",), "fallback"),
    ):
        found = judge(graph(*float_chain(count), runtime="tflite"), "int8", layers)
        assert (found.verdict, count, layers) == (verdict, count, layers)
    assert found.integer_share < 0.03
    assert "87 of 89 operators that compute ran in float without being asked to" in found.reason


def test_a_chain_that_is_too_long_does_not_take_the_excuse_of_a_layer_that_was_asked_for():
    both = graph(*float_chain(20, "long"), *float_chain(2, "asked"), runtime="tflite")
    found = judge(both, "int8", ("conv_stem",))
    assert found.verdict == "fallback"
    assert "20 of 26 operators" in found.reason


@pytest.mark.parametrize(("islands", "verdict"), [(25, "intended"), (26, "fallback")])
def test_patterns_excuse_a_quarter_of_the_operators_where_these_bear_no_names(islands, verdict):
    # Each island is a layer of four operators, of 400 in all.
    operators = [one for index in range(islands) for one in float_chain(4, f"island_{index}")]
    operators += [operator(f"rest_{index}") for index in range(400 - len(operators))]
    assert judge(graph(*operators, runtime="tflite"), "int8", ("conv*",)).verdict == verdict


def test_a_delegate_that_left_operators_out_is_a_fallback_where_one_is_meant_to_take_them():
    left = [operator(str(index), delegated=index < 8) for index in range(10)]
    found = judge(graph(*left, runtime="tflite"), "int8", ())
    assert (found.verdict, found.delegated_share) == ("fallback", 0.8)
    assert "the delegate took 80 % of the operators" in found.reason
    assert judge(graph(*left, runtime="tflite"), "int8-a16", ()).verdict == "intended"


def test_a_runtime_that_tells_nothing_is_unknown_and_no_fallback():
    found = judge(None, "int8", ())
    assert (found.verdict, found.integer_share) == ("unknown", None)
    assert found.reason == "the runtime does not tell what it executed"
    assert judge(None, "int8", (), "it ended").reason == "the executed graph could not be read: it ended"
