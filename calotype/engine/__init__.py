"""Runs a chunk worker over many items: in this process, or on every machine of a Ray cluster."""
