"""Score challenger and champion on the frozen holdout and reach a verdict."""
