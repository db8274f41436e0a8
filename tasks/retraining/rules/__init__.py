"""Rules of automatic retraining: the guards that an alert must pass before it starts a retraining."""
