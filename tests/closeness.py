"""How tests compare floats: with an absolute tolerance beside the relative one, so that they pass on any processor.

Two processors, thread counts or builds of oneDNN sum float32 products in other orders. A value near 0 that is the sum
of larger terms then differs by more than any relative tolerance allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_close(actual: Any, expected: Any, *, rtol: float = 1e-5, atol: float = 1e-6, **named: Any) -> None:
    """Asserts |actual - expected| <= atol + rtol * |expected|, element by element; NaN equals NaN.

    The defaults fit float32 values of about 1. Give atol=1e-12 for float64, and a larger one for larger terms.
    """
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, **named)
