"""Experiments: what is to be run, the small files that finished runs leave, and what they say together."""
