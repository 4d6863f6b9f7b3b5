"""The page holds what was measured, and nothing that a name could smuggle in."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgedet.errors import MissingExtraError
from edgedet.parity.layers import LayerDifference, LayersReport
from edgedet.report import Picture, write_report
from edgedet.selection import Skipped

VOID = {"meta", "img", "br", "circle", "path"}


class Reader(HTMLParser):
    """Collects tags and attributes and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def page(tmp_path: Path, spec, parity, benchmark) -> Reader:
    pictures = [Picture("ort int8", 'caption <b> "', b"\xff\xd8jpeg", (90, 120))]
    write_report(tmp_path / "report.html", spec, parity, benchmark, pictures)
    return Reader((tmp_path / "report.html").read_text())


def test_the_verdict_and_the_reasons_come_first(page: Reader):
    assert "1 of 2 artifacts that could be compared is outside the budget" in page.text
    assert "because <script>alert(1)</script>" in page.text
    assert page.text.index("1 of 2") < page.text.index("Artifacts") < page.text.index("because")


def test_what_was_found_of_layers_is_said(tmp_path: Path, spec, parity):
    layer = LayerDifference(name="conv2d_3", module="stem<b>", local_snr_db=61.5, snr_db=40, max_steps=1)
    layers = LayersReport(images=2, quantized=9, missing=1, outputs_snr_db=200.0, layers=(layer,))
    first = parity.rows[0].model_copy(update={"layers": layers, "explanation": "it is rounding"})
    report = parity.model_copy(update={"rows": (first, *parity.rows[1:])})
    write_report(tmp_path / "report.html", spec, report, None, [])
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "9 layers, 1 of which the runtime does not have" in text
    assert "stem<b> (conv2d_3) differs most, 61.5 dB" in text
    assert "it is rounding" in text


def test_the_machines_of_devices_and_what_they_could_not_run_are_said(tmp_path: Path, spec, parity):
    devices = {"ssh://pi": parity.environment.model_copy(update={"cpu": "Cortex", "governor": "ondemand"})}
    rows = tuple(row.model_copy(update={"device": "ssh://pi"}) for row in parity.rows)
    skipped = (Skipped(runtime="tflite", precision="int8", reason="ssh://pi: it is not installed"),)
    report = parity.model_copy(update={"rows": rows, "devices": devices, "skipped": skipped})
    write_report(tmp_path / "report.html", spec, report)
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "Cortex, 2 cores, Linux, Python 3.11; numpy 2.0; frequency governor ondemand" in text
    assert "tflite int8 on ssh://pi was not compared: it is not installed" in text
    assert "ort fp32 on ssh://pi 2.35 MB" in text, "in the table of artifacts, of one device too"


def test_what_each_processor_means_for_int8_is_said_where_it_was_recorded(
    tmp_path: Path, page: Reader, spec, parity, on_old_processor
):
    assert "INT8 on" not in page.text
    report = on_old_processor(parity)
    report = report.model_copy(update={"devices": {"ssh://pi": report.environment}})
    write_report(tmp_path / "report.html", spec, report)
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "INT8 on this processor x86_64: AVX2; no AVX-512" in text
    assert "INT8 on ssh://pi x86_64: AVX2; no AVX-512" in text


def test_numbers_are_not_flattered(page: Reader):
    assert "99.99 %" in page.text
    assert "100 %" not in page.text
    assert "-1.00" in page.text


def test_every_stage_that_left_its_budget_is_marked(page: Reader):
    marked = {a.get("data-name") for tag, a in page.tags if tag == "td" and a.get("class") == "bad"}
    assert {"raw SNR", "Δ mAP"} <= marked
    assert None in marked, "the class whose AP fell by more than is allowed, in the table of classes"


def test_the_matrix_shows_the_fewest_threads_and_the_chart_all(page: Reader):
    assert "20.0 ms" in page.text
    assert "0.80 ×" in page.text
    assert page.text.count("2 threads") == 2


def test_the_fastest_artifact_is_chosen_among_those_that_pass(page: Reader):
    assert "Fastest within its budget on this machine: ort fp32, 20.0 ms a frame, 2.35 MB." in page.text


def test_names_from_outside_are_words_and_never_markup(page: Reader):
    names = {tag for tag, _ in page.tags}
    assert "script" not in names
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_asks_for_nothing_from_anywhere(page: Reader):
    policy = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for _, attributes in page.tags:
        assert "href" not in attributes
        assert (attributes.get("src") or "data:").startswith("data:")


def test_a_page_without_times_pictures_or_map_is_whole(tmp_path: Path, spec, parity):
    rows = tuple(
        row.model_copy(update={"map": None, "map_delta": None, "output_snr_db": None})
        for row in parity.rows[:1]
    )
    reference = parity.reference.model_copy(update={"map": None})
    report = parity.model_copy(update={"rows": rows, "passed": True, "reference": reference, "skipped": ()})
    write_report(tmp_path / "report.html", spec, report)
    page = Reader((tmp_path / "report.html").read_text())
    assert "The artifact detects what PyTorch detects" in page.text
    assert "Time from image" not in page.text
    assert "img" not in {tag for tag, _ in page.tags}


def test_a_missing_jinja2_is_named_with_its_extra(tmp_path: Path, spec, parity, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r'pip install .*\[report\]"'):
        write_report(tmp_path / "report.html", spec, parity)
    assert not (tmp_path / "report.html").exists()
