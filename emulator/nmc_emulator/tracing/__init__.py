"""Traces of a run as files: tables (CSV, Parquet), VCD, Chrome-trace timelines, pictures (docs/traces.md).

Everything here takes a run chunk by chunk, so that memory does not grow with its length.
"""
