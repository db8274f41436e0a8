"""Records that ports and rules share: plain and frozen, importing no framework, no port and no cloud."""
