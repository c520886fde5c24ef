"""Which replica serves a request, in what order waiting requests go, and when to try again: pure."""
