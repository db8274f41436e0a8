"""Rules that several stages share: plain typed functions, no framework, no port, no clock."""
