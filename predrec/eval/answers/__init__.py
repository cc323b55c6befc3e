"""Verdicts on what a language model answers."""
