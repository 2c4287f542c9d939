"""Prometheus, its alerts and their faults."""
