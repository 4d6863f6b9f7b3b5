"""`edgedet models`: the names in the zoo."""

from __future__ import annotations

from dataclasses import asdict

from edgedet.cli.output import JsonOption, open_output


def run(json: JsonOption = None) -> None:
    """List the detectors of the zoo.

    Parameters and multiply-adds are those with 80 classes.
    """
    from edgedet.models.zoo import ZOO

    with open_output(json) as output:
        output.table(
            ("name", "backbone", "input", "params M", "MMACs", "good for"),
            [
                (name, e.backbone, f"{e.size}x{e.size}", f"{e.params_m:.2f}", f"{e.macs_m:.0f}", e.summary)
                for name, e in ZOO.items()
            ],
        )
        output.json({"rows": [{"name": name, **asdict(entry)} for name, entry in ZOO.items()]})
