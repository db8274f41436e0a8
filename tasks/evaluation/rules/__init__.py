"""Rules of evaluation: predictions, metrics, slices, intervals, the comparison with the champion, and the gate."""
