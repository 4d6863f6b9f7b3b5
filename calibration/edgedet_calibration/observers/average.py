"""The mean of the smallest and of the largest value of each image.

The moving average of Jacob et al. (Quantization and Training of Neural Networks, CVPR 2018, section 3.1),
which one unusual image cannot widen by much. Its exponential weights favour the images that happen to come
last, for it was made for training, where weights change on the way. Here they do not: every image has the
same weight, and the sums are exact, so that no order or batching of the images changes a bit of the range.
"""

from __future__ import annotations

from edgedet.errors import BundleError
from edgedet_calibration.recipe import Recipe
from edgedet_calibration.stats import Histogram


def choose(histogram: Histogram, recipe: Recipe) -> tuple[float, float]:  # noqa: ARG001
    """Mean extremes; of tensors that share a range, those of the widest.

    Raises:
        BundleError: The calibration was collected before extremes were kept image by image.
    """
    if not histogram.images:
        raise BundleError(
            "the calibration cannot be used with the observer average",
            got="a file without the extremes of each image",
            expected="a calibration of this version of edgedet",
            fix="calibrate again: export with --calibration DIR, or choose another observer in the recipe",
        )
    return histogram.mean_extremes()
