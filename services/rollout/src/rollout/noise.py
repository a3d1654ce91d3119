"""Noise that remembers itself: sequences whose values at one decision depend on those before."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gaitfleet.trajectory import Float32

CORRELATION_DECISIONS = 5.0
"""Time constant of correlated noise in decisions: 0.2 s at four steps of 10 ms each, about a third of a stride."""


class OrnsteinUhlenbeck:
    """Noise that forgets itself within `CORRELATION_DECISIONS`; its deviation is 1 at every decision."""

    def __init__(self, normal: Callable[[], Float32]) -> None:
        self._keep = np.float32(math.exp(-1 / CORRELATION_DECISIONS))
        self._fresh = np.float32(math.sqrt(1 - self._keep**2))
        self._normal = normal
        self._value = normal()  # begins in its stationary distribution, not at zero

    def __call__(self) -> Float32:
        value = self._value
        self._value = self._keep * value + self._fresh * self._normal()
        return value


def pink_noise(decisions: int, action_size: int, generator: np.random.Generator) -> Float32:
    """Gaussian noise whose power falls like 1/f, with a deviation of 1: float32 [decisions, A], columns independent.

    Between white noise, which a body averages out, and a random walk, which soon leaves the task (Eberhard et al. 2023,
    https://openreview.net/forum?id=hQ9V5QN27eS). Drawn as a spectrum for the whole episode (Timmer and Koenig 1995).

    Parameters
    ----------
    decisions
        Length of the sequence, which is also its longest period.
    action_size
        A.
    generator
        What it is drawn from.
    """
    length = max(decisions, 2)
    frequency = np.fft.rfftfreq(length)
    frequency[0] = frequency[1]  # the mean of an episode varies as its slowest oscillation does
    amplitude = frequency**-0.5
    spectrum = amplitude * (generator.standard_normal((2, action_size, len(amplitude))) * [[[1]], [[1j]]]).sum(0)
    power = 4.0 * np.square(amplitude)
    for alone in (0, -1) if length % 2 == 0 else (0,):  # frequencies without a conjugate are real
        spectrum[:, alone] = math.sqrt(2.0) * spectrum[:, alone].real
        power[alone] *= 0.5
    noise = np.fft.irfft(spectrum, n=length) * (length / math.sqrt(power.sum()))
    return np.ascontiguousarray(noise.T[:decisions], np.float32)
