"""Average precision over a data set: COCO numbers are those of pycocotools' own route over files."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgedet.data.dataset import LabelledImage
from edgedet.detections import Detections
from edgedet.errors import DataError, MissingExtraError
from edgedet.evaluate import (
    AccuracyReport,
    Evaluator,
    evaluate,
    evaluation_spec,
    shared_classes,
    with_detector_classes,
)
from edgedet.pipeline import Pipeline
from edgedet.spec import DetectorSpec, InputSpec, OutputSpec, SsdDecoder, SsdPriors

LABELS = ("Platelets", "RBC", "WBC", "Not in the data")


def labelled(boxes, class_ids, ignore=None) -> LabelledImage:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore, bool)
    pixels = np.zeros((480, 640, 3), np.uint8)
    return LabelledImage("image", Path("image"), pixels, boxes, np.array(class_ids, np.int64), ignore)


def perturbed(image: LabelledImage, rng: np.random.Generator) -> Detections:
    """Boxes moved a little, some lost, some invented, some of a wrong class; scores at random, with ties."""
    keep = rng.random(len(image.boxes_xyxy)) > 0.15
    boxes = image.boxes_xyxy[keep] + rng.normal(0, 5, (keep.sum(), 4)).astype(np.float32)
    invented = rng.uniform(0, 300, (4, 4)).astype(np.float32)
    invented[:, 2:] += invented[:, :2]
    boxes = np.concatenate([boxes, invented])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    class_ids = np.concatenate([image.class_ids[keep], rng.integers(0, len(LABELS), 4)])
    class_ids = np.where(rng.random(len(class_ids)) < 0.1, (class_ids + 1) % 3, class_ids)
    scores = rng.choice(np.linspace(0.02, 1, 40), len(boxes)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order], class_ids[order])


@pytest.fixture(scope="module")
def real_images(test_data: Path) -> list[LabelledImage]:
    """Forty images of BCCD with their boxes, every ninth to be ignored, and an image without boxes."""
    images = []
    for number, path in enumerate(sorted((test_data / "data" / "bccd" / "Annotations").glob("*.xml"))[:40]):
        boxes, class_ids = [], []
        scale = 0.25 if number % 3 == 0 else 1.0  # small objects, of which the data has none
        for thing in ElementTree.parse(path).getroot().iter("object"):
            box = [float(thing.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")]
            if box[2] > box[0] and box[3] > box[1]:
                boxes.append(box)
                class_ids.append(LABELS.index(thing.findtext("name", "")))
        boxes = [[scale * side for side in box] for box in boxes]
        images.append(labelled(boxes, class_ids, [(number + index) % 9 == 0 for index in range(len(boxes))]))
    return [*images, labelled([], [])]


def evaluated(pairs: list[tuple[LabelledImage, Detections]]) -> AccuracyReport:
    evaluator = Evaluator(LABELS)
    for image, detections in pairs:
        evaluator.add(image, detections)
    return evaluator.report()


def evaluated_as_files(folder: Path, pairs: list[tuple[LabelledImage, Detections]]) -> COCOeval:
    """Ground truth and results written as COCO json, read and evaluated by pycocotools."""
    images, annotations, results = [], [], []
    for image_id, (image, detections) in enumerate(pairs, 1):
        images.append({"id": image_id, "width": 640, "height": 480, "file_name": f"{image_id}.jpg"})
        for box, class_id, ignore in zip(image.boxes_xyxy, image.class_ids, image.ignore, strict=True):
            x, y, w, h = (float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(class_id) + 1}
                | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": int(ignore)}
            )
        for box, score, class_id in zip(
            detections.boxes_xyxy, detections.scores, detections.class_ids, strict=True
        ):
            x, y, w, h = (float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
            results.append({"image_id": image_id, "category_id": int(class_id) + 1, "score": float(score)})
            results[-1]["bbox"] = [x, y, w, h]
    categories = [{"id": index, "name": label} for index, label in enumerate(LABELS, 1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_numbers_are_those_of_pycocotools_over_files(real_images, tmp_path: Path):
    rng = np.random.default_rng(7)
    pairs = [(image, perturbed(image, rng)) for image in real_images]
    report = evaluated(pairs)
    evaluation = evaluated_as_files(tmp_path, pairs)
    ours = [report.map, report.map50, report.map75, report.map_small, report.map_medium, report.map_large]
    assert 0.1 < report.map < 0.9
    assert ours == pytest.approx(list(evaluation.stats[:6]), abs=1e-9)
    for class_id, accuracy in enumerate(report.classes[:3]):
        precision = evaluation.eval["precision"][:, :, class_id, 0, 2]
        assert accuracy.ap == pytest.approx(precision.mean(), abs=1e-9)
        assert accuracy.ap50 == pytest.approx(precision[0].mean(), abs=1e-9)


def test_a_class_without_ground_truth_is_null_and_does_not_count(real_images):
    pairs = [(image, perturbed(image, np.random.default_rng(1))) for image in real_images]
    report = evaluated(pairs)
    assert report.classes[3].boxes == 0
    assert [report.classes[3].ap, report.classes[3].ap50, report.classes[3].voc07_ap50] == [None] * 3
    assert report.map == pytest.approx(np.mean([accuracy.ap for accuracy in report.classes[:3]]))


def test_the_ground_truth_itself_is_perfect(real_images):
    pairs = [
        (image, Detections(image.boxes_xyxy, np.ones(len(image.class_ids), np.float32), image.class_ids))
        for image in real_images
    ]
    report = evaluated(pairs)
    assert (report.map, report.voc07_map50) == pytest.approx((1, 1))
    assert report.boxes == sum(int((~image.ignore).sum()) for image in real_images)


def test_no_detections_at_all_score_zero(real_images):
    report = evaluated([(image, Detections.empty()) for image in real_images])
    assert (report.map, report.map50, report.voc07_map50, report.voc10_map50) == (0, 0, 0, 0)


def test_data_without_boxes_has_no_average_precision():
    invented = Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    for pairs in ([], [(labelled([], []), Detections.empty())], [(labelled([], []), invented)]):
        report = evaluated(pairs)
        assert (report.images, report.boxes) == (len(pairs), 0)
        assert (report.map, report.map_small, report.voc10_map50) == (None, None, None)


def test_only_the_best_hundred_detections_of_an_image_count():
    image = labelled([[0, 0, 50, 50]], [0])
    noise = np.tile(np.array([[300, 300, 350, 350]], np.float32), (100, 1))
    detections = Detections(
        np.concatenate([noise, image.boxes_xyxy]),
        np.linspace(1, 0.5, 101, dtype=np.float32),
        np.zeros(101, int),
    )
    assert evaluated([(image, detections)]).map == 0
    assert evaluated([(image, detections[1:])]).map > 0


def test_nothing_is_printed(real_images, capsys):
    evaluated([(real_images[0], Detections.empty())])
    assert capsys.readouterr() == ("", "")


def test_a_missing_evaluation_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtraError, match=r'pip install .*\[evaluate\]"'):
        evaluated([(labelled([[0, 0, 9, 9]], [0]), Detections.empty())])
    assert evaluated([(labelled([], []), Detections.empty())]).map is None


def test_a_report_survives_json():
    report = evaluated([(labelled([[0, 0, 50, 50]], [0]), Detections.empty())])
    assert AccuracyReport.model_validate_json(report.model_dump_json()) == report


def test_classes_are_joined_by_name_and_unknown_ones_left_out():
    mapping = shared_classes(("dog", "cat", "person"), ("person", "dog"))
    assert mapping.tolist() == [1, -1, 0]
    image = with_detector_classes(labelled([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], [1, 2, 0]), mapping)
    assert image.class_ids.tolist() == [0, 1]
    assert image.boxes_xyxy[:, 2].tolist() == [2, 3]


def test_a_detection_inside_a_crowd_is_neither_right_nor_wrong():
    image = labelled([[0, 0, 50, 50], [200, 200, 400, 400]], [0, 0], [False, True])
    boxes = np.array([[210, 210, 240, 240], [0, 0, 50, 50]], np.float32)
    report = evaluated([(image, Detections(boxes, np.array([0.9, 0.5], np.float32), np.zeros(2, int)))])
    assert (report.boxes, report.map) == (1, pytest.approx(1))
    report = evaluated([(image, Detections(boxes[1:], np.array([0.5], np.float32), np.zeros(1, int)))])
    assert report.map == pytest.approx(1), "a crowd is not missed"


class FixedRuntime:
    """Finds one box of class `a`, with a score that is fixed, in every image of 32x32 pixels."""

    name = "fixed"
    box = (4.8, 4.8, 11.2, 11.2)  # the first prior: of scale 0.2 in the first of 2x2 cells

    def __init__(self, score: float) -> None:
        priors = SsdPriors(feature_maps_hw=((2, 2),), scales=(0.2, 0.4), aspect_ratios=((2.0,),))
        self.spec = DetectorSpec(
            name="fixed",
            input=InputSpec(size_hw=(32, 32)),
            outputs=(
                OutputSpec(name="box_offsets", shape=(1, 16, 4), role="box_offsets"),
                OutputSpec(name="class_logits", shape=(1, 16, 3), role="class_logits"),
            ),
            decoder=SsdDecoder(priors=priors),
            labels=("a", "b"),
            score_threshold=0.4,
        )
        self.inputs, self.outputs = (self.spec.input.tensor,), self.spec.outputs
        self._logits = np.zeros((1, 16, 3), np.float32)
        self._logits[..., 0] = 30  # background
        self._logits[0, 0] = np.log([1 - score, score, 1e-9])

    def run(self, feeds):
        return {"box_offsets": np.zeros((1, 16, 4), np.float32), "class_logits": self._logits}

    def close(self) -> None:
        pass


class FixedDataset:
    """One image with one box for the runtime to find, and others of the class `c`."""

    labels = ("c", "a")

    def __init__(self, others: int = 0) -> None:
        boxes = [FixedRuntime.box, *([[0, 0, 9, 9]] * others)]
        pixels = np.zeros((32, 32, 3), np.uint8)
        ids, ignore = np.array([1] + [0] * others), np.array([False, *([True] + [False] * others)[:others]])
        self._image = LabelledImage("i", Path("i"), pixels, np.array(boxes, np.float32), ids, ignore)

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        yield self._image


@pytest.mark.parametrize(("score", "found"), [(0.9, 1), (0.05, 1), (0.005, 0)])
def test_detections_count_far_below_the_threshold_of_the_detector(score: float, found: int):
    report = evaluate(Pipeline(FixedRuntime(score)), FixedDataset())
    assert report.map == pytest.approx(found)


def test_average_precision_takes_as_many_detections_as_pycocotools_does():
    spec = FixedRuntime(0.9).spec.model_copy(update={"max_detections": 3})
    assert evaluation_spec(spec).max_detections == 100


def test_boxes_of_classes_that_the_detector_does_not_know_are_counted_and_named():
    report = evaluate(Pipeline(FixedRuntime(0.9)), FixedDataset(others=4))
    assert (report.boxes, report.left_out.boxes, report.left_out.labels) == (1, 3, ("c",)), "one is a crowd"
    assert report.left_out_line == (
        "1 of 4 boxes are of the detector's 2 classes; 3 of 1 other classes are left out: c"
    )
    assert evaluate(Pipeline(FixedRuntime(0.9)), FixedDataset()).left_out_line == ""


def test_of_many_left_out_classes_those_with_the_most_boxes_are_named():
    evaluator = Evaluator(("a",))
    names = [f"class{index}" for index in range(12)]
    for index in range(12):
        evaluator.add_left_out(labelled([[0, 0, 9, 9]] * (index + 1), [index] * (index + 1)), names)
    report = evaluator.report()
    assert report.left_out.labels == tuple(reversed(names))
    assert report.left_out_line.endswith("left out: " + ", ".join(names[:1:-1]) + " and 2 more")


def test_a_report_from_before_left_out_boxes_were_counted_is_read():
    values = evaluated([(labelled([[0, 0, 50, 50]], [0]), Detections.empty())]).model_dump()
    del values["left_out"]
    assert AccuracyReport.model_validate(values).left_out_line == ""


def test_data_of_other_classes_is_refused():
    with pytest.raises(DataError, match="none of the classes"):
        shared_classes(("dog",), ("person",))
    assert shared_classes((), ("person",)).tolist() == []
