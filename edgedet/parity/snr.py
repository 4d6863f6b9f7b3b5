"""Signal to noise in decibels, kept finite for reports."""

from __future__ import annotations

import math

# Identical tensors have this, incomparable ones its negative.
SNR_LIMIT_DB = 200.0


def snr_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two sums of squares, between -`SNR_LIMIT_DB` and `SNR_LIMIT_DB`."""
    if noise == 0:
        return SNR_LIMIT_DB
    if signal == 0 or not math.isfinite(noise):
        return -SNR_LIMIT_DB
    return max(min(10 * math.log10(signal / noise), SNR_LIMIT_DB), -SNR_LIMIT_DB)
