"""Embedded mode: the whole platform on one machine, under one supervisor.

The supervisor starts Ray, the controller and the gateway, watches them and ends
them. It stays light: it imports neither Ray nor an engine.
"""
