"""Who may import whom: ARCHITECTURE.md gives the reasons."""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from source_tree import Import, imports, modules

BASE = {"numpy", "cv2", "pydantic"}
TORCH = {"torch", "torchvision", "timm", "safetensors"}
EXPORTERS = {
    "ai_edge_quantizer",
    "ai_edge_litert",
    "flatbuffers",
    "litert_torch",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "torchao",
}

# Packages of other people that a part may import, beside the standard library; the longest matching prefix
# decides.
THIRD_PARTY = {
    "edgedet": BASE,
    "edgedet.cli": BASE | {"rich", "typer"},
    "edgedet.models": BASE | TORCH,
    "edgedet.training": BASE | TORCH | {"matplotlib"},
    "edgedet_calibration": BASE | TORCH | {"torchao"},
    "edgedet_export": BASE | TORCH | EXPORTERS,
    "edgedet_runtimes": BASE,
    "edgedet_runtimes.eager": BASE | TORCH,
    "edgedet_runtimes.ort": BASE | {"onnxruntime"},
    "edgedet_runtimes.ov": BASE | {"openvino"},
    "edgedet_runtimes.ov_integer_layers": BASE | {"openvino"},
    "edgedet_runtimes.ov_intermediates": BASE | {"openvino"},
    "edgedet_runtimes.tflite": BASE | {"ai_edge_litert", "tflite_runtime"},
    "edgedet_runtimes.tflite_intermediates": BASE | {"ai_edge_litert", "flatbuffers"},
    "edgedet_runtimes.cuda_engine": BASE | {"cuda"},
    "edgedet_runtimes.rtx": BASE | {"tensorrt_rtx_bindings"},
    "edgedet_runtimes.trt": BASE | {"tensorrt"},
}

# What the base install may import inside a function, because only that function needs it.
LAZY = {
    "edgedet.data.voc_xml": {"defusedxml"},
    "edgedet.evaluate": {"faster_coco_eval"},
    "edgedet.parity.matching": {"scipy"},
    "edgedet.report": {"jinja2", "matplotlib"},
    "edgedet_calibration.sensitivity_plot": {"matplotlib"},
}

# Parts of this project that a part may import, itself included.
OURS = {
    "edgedet": {"edgedet"},
    "edgedet.cli": {"edgedet", "edgedet.cli"},
    "edgedet.models": {"edgedet", "edgedet.models"},
    "edgedet.training": {"edgedet", "edgedet.models", "edgedet.training"},
    "edgedet_calibration": {"edgedet", "edgedet.models", "edgedet_calibration"},
    "edgedet_export": {"edgedet", "edgedet.models", "edgedet_calibration", "edgedet_export"},
    "edgedet_runtimes": {"edgedet", "edgedet_runtimes"},
    "edgedet_runtimes.eager": {"edgedet", "edgedet.models", "edgedet_runtimes"},
    "edgedet.__main__": {"edgedet", "edgedet.cli"},
}

# The command line knows everything, but only inside the command that needs it: `edgedet --help` loads no
# framework.
LAZY_OURS = {
    "edgedet.cli": {
        "edgedet.models",
        "edgedet.training",
        "edgedet_calibration",
        "edgedet_export",
        "edgedet_runtimes",
    }
}


def rule(table: dict[str, set[str]], module: str) -> set[str]:
    """The entry of the longest prefix of a module's name."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:end])) in table:
            return table[prefix]
    return set()


def part_of(module: str) -> str:
    """The part of the project that a module belongs to."""
    for part in ("edgedet.cli", "edgedet.models", "edgedet.training"):
        if module == part or module.startswith(part + "."):
            return part
    return module.partition(".")[0]


def is_allowed(found: Import) -> bool:
    """Whether the tables above allow an import."""
    if found.package in sys.stdlib_module_names:
        return True
    if found.package in {"edgedet", "edgedet_calibration", "edgedet_export", "edgedet_runtimes"}:
        allowed, lazily = rule(OURS, found.importer), rule(LAZY_OURS, found.importer)
        return part_of(found.name) in allowed or (found.lazy and part_of(found.name) in lazily)
    allowed, lazily = rule(THIRD_PARTY, found.importer), rule(LAZY, found.importer)
    return found.package in allowed or (found.lazy and found.package in lazily)


def test_every_import_is_one_that_the_layers_allow() -> None:
    assert [str(found) for found in imports() if not is_allowed(found)] == []


def test_export_imports_calibration_only_inside_functions_so_that_float_export_works_without_it() -> None:
    early = [
        f for f in imports() if f.package == "edgedet_calibration" and part_of(f.importer) == "edgedet_export"
    ]
    assert [str(found) for found in early if not found.lazy] == []


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {
        name: {f.name for f in imports() if f.importer == name and not f.lazy and f.name in modules()}
        - {name}
        for name in modules()
        if name != "edgedet"  # the facade, which every import of a submodule runs first
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        (Import("edgedet.boxes", "torch", True), False),
        (Import("edgedet.boxes", "edgedet.models", True), False),
        (Import("edgedet.data.voc_xml", "defusedxml", False), False),
        (Import("edgedet.data.voc_xml", "defusedxml.ElementTree", True), True),
        (Import("edgedet.models.zoo", "edgedet.training", False), False),
        (Import("edgedet_runtimes.ort", "openvino", True), False),
        (Import("edgedet.cli.export", "edgedet_export", False), False),
        (Import("edgedet.cli.export", "edgedet_export.exporter", True), True),
    ],
)
def test_the_rule_itself_tells_right_from_wrong(found: Import, allowed: bool) -> None:
    assert is_allowed(found) is allowed
