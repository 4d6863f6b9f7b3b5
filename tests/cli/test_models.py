"""`edgedet models`: the zoo, and a configuration to start from."""

from __future__ import annotations

from pathlib import Path

from command import Command, check_refusal

from edgedet.models.zoo import ZOO
from edgedet.training.config import read_train_config


def test_without_a_name_the_zoo_is_listed(edgedet: Command) -> None:
    result = edgedet("models")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["name", *ZOO]


def test_with_a_name_a_whole_configuration_is_printed_and_nothing_else(
    edgedet: Command, tmp_path: Path
) -> None:
    result = edgedet("models", "ssdlite320_mobilenetv2")
    assert (result.code, result.stderr) == (0, "")
    file = tmp_path / "detector.toml"
    file.write_text(result.stdout.replace('["cat", "dog"]', '["circle"]'))
    config = read_train_config(file)
    assert (config.detector.name, config.detector.labels) == ("ssdlite320_mobilenetv2", ("circle",))


def test_the_configuration_as_json_is_the_one_that_is_printed(edgedet: Command) -> None:
    printed = edgedet("models", "ssdlite320_lcnet").stdout
    values = edgedet("models", "ssdlite320_lcnet", "--json", "-").json
    assert values == {"name": "ssdlite320_lcnet", "config": printed}


def test_a_name_that_the_zoo_does_not_have_lists_close_ones(edgedet: Command) -> None:
    check_refusal(edgedet("models", "ssdlite320_mobilnetv2"), 2, "ssdlite320_mobilenetv2")
