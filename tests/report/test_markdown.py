"""The summary says the verdict first, and no name can break its tables."""

from __future__ import annotations

from edgedet.report import markdown_of
from edgedet.selection import Skipped


def test_the_verdict_comes_first_and_every_artifact_has_a_line(parity):
    text = markdown_of(parity)
    assert text.startswith("### Failed: 1 of 2 artifacts that could be compared is outside the budget\n")
    assert "| ort fp32 | 2.35 MB | 50.00 | -1.00 | 99.99 % | 0 / 0 | 35.0 dB | within budget |" in text
    assert "| fails at raw outputs |" in text
    assert "<details><summary>ort int8: why it fails</summary>\n\n- because " in text
    assert "| cell | 50.00 | 0.00 | -8.00 |" in text
    assert "tflite int8 was not compared: " in text
    passed = parity.model_copy(update={"rows": parity.rows[:1], "passed": True, "skipped": ()})
    assert markdown_of(passed).startswith(
        "### Passed: The artifact detects what PyTorch detects, within budget\n"
    )


def test_a_fall_below_the_baseline_fails_and_is_named(regressed):
    text = markdown_of(regressed)
    assert "1 figure is worse than in the baseline by more than is allowed" in text.splitlines()[0]
    assert "| ort int8 | mAP | &lt;script&gt;" in text
    assert "- not in the baseline: ort fp16" in text
    rows = tuple(row.model_copy(update={"passed": True, "reasons": ()}) for row in regressed.rows)
    alone = markdown_of(regressed.model_copy(update={"rows": rows, "passed": True}))
    assert alone.startswith("### Failed: All 2 artifacts that could be compared detect")


def test_what_a_device_could_not_run_is_said_of_that_device(parity):
    skipped = (
        Skipped(runtime="ort", precision="fp32", reason="onnxruntime is not installed"),
        Skipped(runtime="tflite", precision="fp32", reason="ssh://pi: litert is not installed"),
        Skipped(runtime="openvino", precision="fp32", reason="not in the bundle"),
    )
    rows = (parity.rows[0].model_copy(update={"device": "ssh://pi"}), parity.rows[1])
    devices = {"ssh://pi": parity.environment}
    text = markdown_of(parity.model_copy(update={"rows": rows, "skipped": skipped, "devices": devices}))
    assert "\n\nort fp32 on local was not compared: onnxruntime is not installed\n\n" in text
    assert "\n\ntflite fp32 on ssh://pi was not compared: litert is not installed\n\n" in text
    assert text.endswith("\n\nopenvino fp32 was not compared: not in the bundle\n")


def test_what_each_processor_means_for_int8_is_said(parity, on_old_processor):
    report = on_old_processor(parity)
    text = markdown_of(report.model_copy(update={"devices": {"ssh://pi": report.environment}}))
    assert "\n\nx86\\_64: AVX2; no AVX-512" in text
    assert "\n\nssh://pi: x86\\_64: AVX2; no AVX-512" in text
    assert "AVX" not in markdown_of(parity)


def test_names_from_outside_are_words_in_one_cell(parity):
    name = "a|b\nc`d` <img src=x> *bold* [link](x)"
    image = parity.rows[1].differing_images[0].model_copy(update={"image_id": name})
    row = parity.rows[1].model_copy(update={"differing_images": (image,)})
    (line,) = [
        line
        for line in markdown_of(parity.model_copy(update={"rows": (row,)})).splitlines()
        if "bold" in line
    ]
    assert line.startswith("| a\\|b c\\`d\\` &lt;img src=x&gt; \\*bold\\* \\[link\\](x) | detections | ")
    assert line.replace("\\|", "").count("|") == 6
    assert "<script" not in markdown_of(parity)
