"""The simulated beamline: an EPICS control server and the physics behind it."""
