"""Whether a table meets its suite of expectations, measured in pandas or by SQL; fails closed."""
