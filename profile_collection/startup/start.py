"""The session of a beamline, for ``ipython -i start.py`` and for the queue server's ``--startup-script``.

The environment says which: ``MISTRAL_TXM_DATA`` is the data folder (./mistral-txm-data), ``MISTRAL_TXM_CONFIG`` the
configuration (the packaged one), and with ``MISTRAL_TXM_SIMULATED=1`` a simulated beamline is started.

The queue server gets `RE`, the devices, and what `queue_plans` makes for it; IPython gets all that `start` gives.
"""

import os

from bluesky_queueserver import is_re_worker_active

from mistral_txm.profile_collection.queue_plans import CONFIG_VARIABLE, SIMULATED_VARIABLE, serve
from mistral_txm.profile_collection.session import start

session = start(
    os.environ.get(SIMULATED_VARIABLE) == "1", config=os.environ.get(CONFIG_VARIABLE) or None
)
globals().update(serve(session) if is_re_worker_active() else session)
