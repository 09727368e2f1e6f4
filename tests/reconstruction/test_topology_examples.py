"""The examples in the docstrings are true."""

import doctest

from mistral_txm.reconstruction import topology


def test_examples():
    result = doctest.testmod(topology)
    assert result.attempted > 0
    assert result.failed == 0
