"""Requests to stop a run are heard, whatever happens to the exception that a signal's handler raises."""

import signal

import pytest
import torch

from cityscapes.errors import StoppedError
from dlv3p.training.interruption import Interruption


def test_a_second_interrupt_stops_at_once_even_if_a_library_swallowed_its_exception():
    with Interruption("mine") as interruption:
        interruption.after_steps()
        signal.raise_signal(signal.SIGINT)
        assert interruption.wanted(torch.device("cpu"))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interruption.wanted(torch.device("cpu"))
    assert interruption.kind is StoppedError
