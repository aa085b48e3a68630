"""Threads on machines that allow only a few of them."""

import os
import threading

from spectag.system.worker_pool import n_usable_cores

_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def use_few_threads_if_needed() -> None:
    """Let NumPy and others use one thread if the system does not allow one per core. Call it before they are imported.

    OpenBLAS starts its threads at the import of NumPy. If it cannot, it interrupts the process as Ctrl-C does.
    """
    finish = threading.Event()
    threads = []
    try:
        for _ in range(n_usable_cores()):
            thread = threading.Thread(target=finish.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        for variable in _VARIABLES:
            os.environ.setdefault(variable, "1")
    finally:
        finish.set()
        for thread in threads:
            thread.join()
