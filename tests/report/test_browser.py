"""A headless Chromium opens the page from a file, on a phone and on a desk, and tells what a reader sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import DESK, PHONE, Browser, Seen

from edgedet.recommend import Candidate, recommend
from edgedet.report import Picture, pareto_plot, sensitivity_plot, write_report

MOST_BYTES = 2_000_000
LEAST_LETTER_PX = 9

DEVICES = ("ssh://pi", f"ssh://somebody@{'anunbrokenname' * 4}.example:2222")

EXPRESSIONS = {
    "width": "document.documentElement.scrollWidth",
    "verdict": "document.querySelector('.verdict').innerText.trim()",
    "verdict_bottom": "document.querySelector('.verdict').getBoundingClientRect().bottom",
    "images": "document.images.length",
    "blank": "[...document.images].filter(one => !one.complete || !one.naturalWidth).length",
    "letters": "Math.min(...[...document.querySelectorAll('.chart')].filter(one => one.clientWidth)"
    ".map(one => parseFloat(getComputedStyle(one).fontSize) * one.clientWidth / one.viewBox.baseVal.width))",
    "bars": "[...document.querySelectorAll('.charts rect')]"
    ".filter(one => one.getBoundingClientRect().height).length",
    "overflows": "[...document.querySelectorAll('.grid, .matrix')]"
    ".filter(one => one.parentElement.scrollWidth > one.parentElement.clientWidth).length",
    "devices": "[...document.querySelectorAll('.grid tr:nth-child(1) td[data-name]')]"
    ".map(one => getComputedStyle(one, '::before').content)",
    "text": "document.body.innerText",
}


@dataclass(frozen=True)
class Layer:
    """A row of a sensitivity report."""

    layer: str
    snr_db: dict[str, float]
    map_drop: float | None = None


@dataclass(frozen=True)
class Layers:
    """A sensitivity report, without torch."""

    layers: tuple[Layer, ...]
    encoding: str = "onnxruntime"
    images: int = 8


def problems(seen: Seen, page: Path, size: tuple[int, int]) -> set[str]:
    """What a reader would complain of."""
    values = seen.values
    found = {
        "the console shows errors": bool(seen.errors),
        "something else was asked for": seen.requests != (page.resolve().as_uri(),),
        "wider than the screen": values["width"] > size[0],
        "the verdict is not on the first screen": not values["verdict"] or values["verdict_bottom"] > size[1],
        "a line of an artifact does not fit": bool(values["overflows"]),
        "an image is blank": bool(values["blank"]),
        "letters too small": values["letters"] < LEAST_LETTER_PX,
        "too large to mail": page.stat().st_size >= MOST_BYTES,
    }
    return {name for name, is_so in found.items() if is_so}


def noise(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 20])[1].tobytes()


@pytest.fixture
def page(tmp_path: Path, spec, regressed, benchmark) -> Path:
    """Everything that a page can hold: three devices, a baseline, times, pictures, plots."""
    remote = [row.model_copy(update={"device": name}) for name in DEVICES for row in regressed.rows]
    report = regressed.model_copy(
        update={
            "rows": (*regressed.rows, *remote),
            "devices": {
                name: regressed.environment.model_copy(update={"cpu": f"processor {number}"})
                for number, name in enumerate(DEVICES)
            },
        }
    )
    pictures = [Picture(f"ort int8 {index}", "1 lost", noise(640, 480), (480, 640)) for index in range(3)]
    layers = Layers(
        tuple(Layer(f"backbone.blocks.{i}.conv", {"a": 30.0 + i, "b": 90.0}, 0.01) for i in range(60))
    )
    candidates = [
        Candidate(
            runtime=runtime,
            precision=precision,
            latency_ms=latency,
            latency_ratio=latency / 15,
            ratio_interval=(latency / 16, latency / 14),
            map=0.62,
            model_bytes=int(latency * 1e5),
        )
        for runtime in ("ort", "openvino")
        for precision, latency in (("fp32", 15.0), ("int8", 7.5))
    ]
    plots = [sensitivity_plot(layers), pareto_plot(recommend(candidates, 0.01))]
    path = tmp_path / "report.html"
    write_report(path, spec, report, benchmark, pictures, plots)
    return path


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_browser_finds_nothing_to_complain_of(browser: Browser, page: Path, size: tuple[int, int]):
    seen = browser.open(page, size, EXPRESSIONS)
    assert problems(seen, page, size) == set()
    assert seen.values["verdict"].startswith("3 of 6 artifacts that could be compared are outside the budget")
    assert seen.values["images"] == 3
    assert seen.values["bars"] > 20
    decoded = cv2.imdecode(np.frombuffer(seen.screenshot, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape[:2] == size[::-1]
    assert decoded.std() > 10, "the screen is not empty"


def test_on_a_phone_every_verdict_has_its_device_beside_it(browser: Browser, page: Path):
    shown = browser.open(page, PHONE, EXPRESSIONS).values["devices"]
    assert shown == [f'"{name}"' for name in ("local", *DEVICES)]
    assert set(browser.open(page, DESK, EXPRESSIONS).values["devices"]) == {"none"}


def test_a_reader_sees_every_section_of_the_page(browser: Browser, page: Path):
    text = browser.open(page, DESK, EXPRESSIONS).values["text"]
    headings = (
        "Artifacts by device",
        "Against the baseline",
        "Average precision by class",
        "How far detections move",
        "The images that differ most",
        "Time from image to detections",
        "What quantizing each layer alone costs",
        "Which artifact to ship",
        "Where this comes from",
    )
    places = [text.find(heading) for heading in headings]
    assert -1 not in places, dict(zip(headings, places, strict=True))
    assert places == sorted(places)
    assert f"ort int8 on {DEVICES[1]}" in text
    for number, name in enumerate(DEVICES):
        assert f"{name}\nprocessor {number}, 2 cores, Linux, Python 3.11; numpy 2.0" in text
    assert "worse <script>alert(1)</script>" in text


BREAKS = {
    "wider than the screen": lambda text: text.replace("<main>", '<main><div style="width:600px">x</div>'),
    "a line of an artifact does not fit": lambda text: text.replace(
        "overflow-wrap: anywhere", "white-space: nowrap"
    ),
    "the console shows errors": lambda text: text.replace("<main>", "<main><script>throw 1</script>"),
    "an image is blank": lambda text: text.replace("<main>", '<main><img src="data:image/jpeg;base64,AAAA">'),
    "the verdict is not on the first screen": lambda text: text.replace(
        "<main>", '<main style="margin-top:900px">'
    ),
    "too large to mail": lambda text: text + "<!--" + "x" * MOST_BYTES + "-->",
    "letters too small": lambda text: text.replace("font: 12px", "font: 8px"),
    "something else was asked for": lambda text: text.replace("http-equiv", "data-off").replace(
        "<main>", '<main><img src="beside.png">'
    ),
}


@pytest.mark.parametrize("complaint", BREAKS)
def test_a_page_that_is_broken_is_complained_of(browser: Browser, page: Path, complaint: str):
    page.write_text(BREAKS[complaint](page.read_text("utf-8")), "utf-8")
    assert complaint in problems(browser.open(page, PHONE, EXPRESSIONS), page, PHONE)


def test_without_its_viewport_a_phone_would_show_the_page_of_a_desk(browser: Browser, page: Path):
    page.write_text(page.read_text("utf-8").replace('name="viewport"', 'name="no"'), "utf-8")
    assert "wider than the screen" in problems(browser.open(page, PHONE, EXPRESSIONS), page, PHONE)
