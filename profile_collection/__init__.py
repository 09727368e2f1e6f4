"""The one place that wires everything: the RunEngine, the IPython namespace, the command line."""
