"""The commands, one module per subject. Heavy imports are made when a command runs, so that help is quick."""
