"""Who asks: one module for each kind of user, and the open loop that lets them arrive."""
