"""Reports carry the processor, and those of earlier versions are read without it."""

from __future__ import annotations

from edgedet.environment import Environment, read_environment
from edgedet.processor import read_processor


def test_this_machine_tells_what_its_processor_means_for_int8() -> None:
    found = read_environment()
    assert found.processor == read_processor()
    assert found.int8 == found.processor.description
    assert Environment.model_validate_json(found.model_dump_json()) == found


def test_an_environment_of_an_earlier_version_says_nothing_of_it() -> None:
    text = '{"cpu": "a processor", "cores": 2, "os": "Linux", "python": "3.11", "packages": {}}'
    earlier = Environment.model_validate_json(text)
    assert (earlier.processor, earlier.int8) == (None, "")
