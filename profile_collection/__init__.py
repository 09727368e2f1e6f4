"""The one place that wires everything: the RunEngine, the operator's namespace, the command line."""

from mistral_txm.profile_collection.session import Session, start

__all__ = ["Session", "start"]
