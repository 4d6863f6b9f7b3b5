"""Observers: how the range of a tensor is chosen from its histogram.

Each is a function `(histogram, recipe) -> (low, high)` in a file of its own, found through
`edgedet.registry.OBSERVERS`.
"""
