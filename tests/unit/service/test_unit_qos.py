"""Quality as an algebra: laws, and what it says of a swapped chain and of a pack."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.physics.bell import werner, swap_fidelity  # type: ignore[attr-defined]
from multiplane.service.control.qos import IDEAL, Qos, beside, gaps, series, together
