"""Import this before anything runs on numba's threads: let them sleep while they wait.

GNU's OpenMP lets threads that wait for each other spin by default. Beside other busy processes (a simulated
beamline, the catalog, a plan) the spinning threads take the processor from the very thread they wait for: the
iterative solvers were 6 to 16 times slower on two busy cores. The runtime reads its setting once, when numba first
loads it; what the user has set stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
