"""Exports: a Program as something that other people's software runs."""
