"""Rules of monitoring: compare current data with the reference data, and draw conclusions."""
