"""How fast pre-training is, beside what a user would otherwise run."""
