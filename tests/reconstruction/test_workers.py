import re

import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, InputError, TiltSeries, reconstruct
from mistral_txm.reconstruction.workers import in_process, spread_over


def scaled(item, shared):
    return item * shared


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        (0, "workers: 0, expected at least 1 or tcp://host:port"),
        ("many", "'many' is neither a number of processes nor a scheduler, tcp://host:port"),
    ],
)
def test_refuses_in_one_line(workers, words):
    with pytest.raises(InputError, match=re.escape(words)), spread_over(workers):
        pass


def test_one_worker_is_this_process():
    with spread_over("1") as spread:
        assert spread is in_process


@pytest.mark.slow
def test_processes_of_this_machine_and_a_scheduler_give_the_same_volume(monkeypatch):
    """Bit for bit: every lateral frequency is solved alone, wherever that is."""
    from distributed import LocalCluster

    monkeypatch.setattr("mistral_txm.reconstruction.workers.CONNECT_S", 3.0)
    rng = np.random.default_rng(0)
    theta = np.arange(-50.0, 51.0, 20.0)
    series = [
        TiltSeries(phi, theta, rng.normal(size=(6, 24, 24)), np.full(6, 0.3))
        for phi in (0.0, 102.0)
    ]
    grid = Grid((8, 24, 24), 10.5)
    alone = reconstruct(series, grid).m_czyx
    with spread_over(2) as spread:
        assert spread.parts > 2
        assert spread(scaled, [1, 2, 3], 10) == [10, 20, 30]
        np.testing.assert_array_equal(reconstruct(series, grid, spread=spread).m_czyx, alone)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        with spread_over(cluster.scheduler_address) as spread:
            np.testing.assert_array_equal(reconstruct(series, grid, spread=spread).m_czyx, alone)
        gone = cluster.scheduler_address
    with pytest.raises(InputError, match="no scheduler answers at tcp://"), spread_over(gone):
        pass
