"""What a queue server or IPython runs first."""
