"""Everything that a recipe needs to know of a detector's values: channels first, then ranges."""

from __future__ import annotations

from edgedet.models.capture import Captured
from edgedet.models.threads import one_thread
from edgedet.progress import Track, silent
from edgedet_calibration.collect import collect
from edgedet_calibration.equalization import equalized, measured_factors
from edgedet_calibration.images import CalibrationImages
from edgedet_calibration.placement import place
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Stats


@one_thread()
def calibrate(
    captured: Captured, calibration: CalibrationImages, recipe: Recipe, track: Track = silent
) -> Stats:
    """Measure a float graph on images; corrections come later, from `with_corrections`.

    Args:
        captured: The float graph.
        calibration: The images.
        recipe: Whether channels are equalized, and what stays float.
        track: Shows progress.

    Raises:
        DataError: Not one image could be read.
    """
    placement = place(captured.graph_module, recipe.keeps_float)
    factors = measured_factors(captured, calibration, track) if recipe.equalization else {}
    stats = collect(equalized(captured, factors), placement, calibration, track)
    return stats.model_copy(update={"equalization": recipe.equalization, "channel_factors": factors})
