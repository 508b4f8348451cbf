"""From records to windows, one modality a file; pure, per key, in the key's own event time."""
