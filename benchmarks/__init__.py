"""Speed of the reconstruction against peers in the same run, of simulation and acquisition against limits."""
