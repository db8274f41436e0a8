"""Rules of ingestion: which rows are accepted, and how the others are quarantined."""
