"""Tracing: a PyTorch module is run once on addresses instead of numbers, and what it did becomes a SpikeGraph.

``registry``, ``frameworks`` and ``tape`` can be imported without PyTorch; the rest is loaded when something is traced.
"""
