"""Rules of sampling: publishing rows as a data set of the lake."""
