"""How many replicas of which variant: pure functions of what was observed."""
