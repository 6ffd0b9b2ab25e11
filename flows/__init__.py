"""Composition of the steps: what the command line calls and what Prefect runs."""
