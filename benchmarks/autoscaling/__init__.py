"""How fast the simulator is, and what policies cost on both fleets beside each other."""
