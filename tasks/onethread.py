"""ONNX Runtime with one thread a process, wherever a library gives no choice.

PyMuPDF's layout network takes a thread a core, whose waiting for each other costs half as much CPU
again as their work; it has no setting for that, and makes its sessions as it is imported.
"""

from __future__ import annotations

import onnxruntime


class OneThreadOptions(onnxruntime.SessionOptions):  # type: ignore[misc]
    """Options of a session that computes in the thread that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.intra_op_num_threads = 1
        self.inter_op_num_threads = 1


def compute_in_one_thread() -> None:
    """From now on sessions of this process have one thread unless they are told otherwise."""
    onnxruntime.SessionOptions = OneThreadOptions
