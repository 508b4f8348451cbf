"""ONNX Runtime as all detectors use it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from streamad.errors import ArtifactError


def open_session(path: str, *, what: str) -> onnxruntime.InferenceSession:
    """Open an ONNX file on one thread; raises ArtifactError where there is none, or it is none.

    what : names the file in the error, such as ``"ONNX encoder"``
    """
    options = onnxruntime.SessionOptions()
    # One thread: a job scales by processes, and sums split over threads would change with load.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not Path(path).is_file():
        msg = f"no {what} at {path}; name a directory that holds one, or 'shipped'"
        raise ArtifactError(msg)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
