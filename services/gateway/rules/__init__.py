"""From what a git host says to what is to be run: payloads read strictly, rules, and the report back."""
