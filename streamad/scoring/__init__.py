"""From raw score to decision, per key: tail calibration and episodes."""
