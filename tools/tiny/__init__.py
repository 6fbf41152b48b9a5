"""Makes the embedded model: renders its world, trains it, exports, scores and shows it. See `python -m tools.tiny --help`."""
