"""What several stages share: records, the model folder, reads of the lake, cost, trust, alerts."""
