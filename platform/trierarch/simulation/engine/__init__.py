"""The replicas of a fleet, stepped in compiled code.

Between two events a replica repeats one decode step: same requests, one token
each, and a step time that grows by a constant as the contexts grow. Such a run
is advanced in one go (its duration is an arithmetic series) and cut at the next
step boundary when a request is routed to the replica. ``maximum_run_steps=1`` turns
this off. The results are the same while room is plenty, which a test proves. On
full replicas a run sees its KV memory as of its start and tries waiting flex
requests at its end only, so single requests may start up to seconds apart.
"""
