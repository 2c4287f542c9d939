"""Celery: what executes what was accepted."""
