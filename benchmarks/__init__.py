"""Benchmarks, each a module that prints its tables."""
