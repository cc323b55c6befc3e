"""Frozen-encoder evaluation: poolings and geometry."""
