"""Speed of the reconstruction, against peers in the same run."""
