"""Readers, samplers and the suites."""
