import doctest
import re
from functools import partial

import numpy as np
import pytest

from mistral_txm.reconstruction import (
    Grid,
    InputError,
    TiltSeries,
    reconstruct,
    sweeps,
    tilt_series,
    workers,
)
from mistral_txm.reconstruction.resolution import half_set_resolution_nm
from mistral_txm.reconstruction.sweeps import sweep
from mistral_txm.reconstruction.uncertainty import bootstrap_std, views_drawn
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


def test_examples():
    for module in (workers, sweeps, tilt_series):
        assert doctest.testmod(module).failed == 0


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    theta = np.arange(-50.0, 51.0, 20.0)
    return [
        TiltSeries(phi, theta, rng.normal(size=(6, 24, 24)), np.full(6, 0.3))
        for phi in (0.0, 102.0)
    ]


GRID = Grid((8, 24, 24), 10.5)
SETTINGS = [
    {"method": "cgls", "iterations": 2},
    {"method": "cgls", "iterations": 5},
    {"prior": "layers", "layers_nm": ((-20.0, 20.0),)},
    {"delta_per_nm": 0.01},
]


def test_a_sweep_is_one_reconstruction_after_the_other(series):
    volumes = sweep(series, GRID, SETTINGS)
    for found, setting in zip(volumes, SETTINGS, strict=True):
        expected = reconstruct(series, GRID, **setting).m_czyx
        np.testing.assert_array_equal(found.m_czyx, expected)


def test_a_sweep_refuses_before_it_begins(series):
    with pytest.raises(InputError, match="setting 1: layers: given, but the prior 'none'"):
        sweep(series, GRID, [{}, {"layers_nm": ((-20.0, 20.0),)}])


@pytest.mark.slow
def test_processes_of_this_machine_and_a_scheduler_give_the_same(series, monkeypatch):
    """Bit for bit: every lateral frequency, every setting and every draw is solved alone, wherever that is."""
    from distributed import LocalCluster

    monkeypatch.setattr("mistral_txm.reconstruction.workers.CONNECT_S", 3.0)

    def everything(spread):
        solve = partial(reconstruct, grid=GRID)
        draws = views_drawn(series, 5, np.random.default_rng(1))  # several rounds
        return [
            reconstruct(series, GRID, spread=spread).m_czyx,
            bootstrap_std(draws, solve, spread=spread),
            *(one.m_czyx for one in sweep(series, GRID, SETTINGS, spread=spread)),
            np.array(list(half_set_resolution_nm(series, solve, spread=spread).values())),
        ]

    alone = everything(in_process)
    with spread_over(2) as spread:
        assert spread.workers == 2
        assert spread.parts > 2
        assert spread(scaled, [1, 2, 3], 10) == [10, 20, 30]
        for found, expected in zip(everything(spread), alone, strict=True):
            np.testing.assert_array_equal(found, expected)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        with spread_over(cluster.scheduler_address) as spread:
            for found, expected in zip(everything(spread), alone, strict=True):
                np.testing.assert_array_equal(found, expected)
        gone = cluster.scheduler_address
    with pytest.raises(InputError, match="no scheduler answers at tcp://"), spread_over(gone):
        pass
