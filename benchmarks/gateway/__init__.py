"""What the gateway adds to a request and to a token, next to other ways to pass bytes through.

One run measures every contender in turn on the same machine: nothing in between
(direct), HAProxy passing bytes through without looking, and our gateway doing
all of its work (keys, limits, routing, metering, charges, a real ledger, access
log). The contender has one core, the engine mock and the clients the other.
"""
