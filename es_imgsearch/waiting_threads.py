"""What libraries' threads do while they wait for work; the environment says it to them."""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Those of torch and of NumPy's OpenBLAS would spin and take the cores from reading workers.

    For libraries that are not imported yet; what the environment says already holds.  On two busy
    cores `sync` of 600 small pictures took 15.0 s with OpenBLAS as it is and 11.7 s so (set
    OPENBLAS_THREAD_TIMEOUT=26 to compare), and with a model in torch 29 s instead of 17 s for 200.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The least it takes: 2 to the power of it, in cycles.  The default is 26, some 25 ms.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
