"""The commands of the front door, a module a subject; what is heavy is imported when a command runs."""
