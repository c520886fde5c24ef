"""Which replica serves a request, in what order requests wait, when to try again: pure."""
