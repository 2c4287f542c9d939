"""HTTP: accepts requests, tells their results."""
