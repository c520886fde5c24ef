"""What the platform adds to vLLM: the same engine behind Ray Serve and the gateway, and bare.

One run, one machine, one model on disk, equal engine options and threads. The
contenders are all up and take turns, so that whatever else the machine does
meets all of them; figures are medians over the rounds.
"""
