"""Bluesky plans: what is done, in which order."""
