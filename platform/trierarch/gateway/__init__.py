"""The front door: authenticates, queues, routes, meters; passes bytes through."""
