"""What a fleet could have cost had the future been known.

Two different things, and both are reported. The *schedule* is a plan made with
the whole trace, the prices, the market and even the draws of the cold starts at
hand, run through the same simulator as every policy: reachable, close to the
best, and by construction never dearer than any run it is compared with. The
*fluid bound* is a proof that no schedule at all costs less; nothing reaches it.
"""
