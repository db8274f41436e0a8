"""Rules of rows that are published as a data set of the lake."""
