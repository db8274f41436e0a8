"""Programs that leave this process and import nothing else of ours: training, scoring, verification, logging."""
