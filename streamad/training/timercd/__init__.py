"""Pretrain TimeRCD on the synthetic corpus, export it for serving, read the authors' checkpoints."""
