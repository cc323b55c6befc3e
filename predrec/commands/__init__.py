"""One `main(argv)` per command."""
