"""Rules of alerts: the kinds of events, alert routing, and the messages and reminders of an alert."""
