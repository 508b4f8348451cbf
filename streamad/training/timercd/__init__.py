"""Pretrain TimeRCD on the synthetic corpus, export it, and read the authors' checkpoints."""
