"""Properties are about values, not time: a slow machine must not fail them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("edgedet", deadline=None)
settings.load_profile("edgedet")
