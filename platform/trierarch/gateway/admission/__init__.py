"""The order a request walks before an engine sees it: key, limits, queue."""
