"""The tracker: what a record, an announce and a choice cost, and whether its choices are good."""
