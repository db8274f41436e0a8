"""The page about one model: what serves, how it fares, and what is due, as one file that needs no server."""
