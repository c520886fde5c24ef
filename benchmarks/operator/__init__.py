"""How fast the operator follows changes, with a thousand model deployments on a real API server.

``python -m benchmarks.operator`` starts the API tier of the test cluster and the operator as a
process of its own, creates, changes and deletes model deployments at a steady rate, and
watches when the RayService of each is written. KubeRay's own step from a RayService to its
RayCluster is measured beside it, at the same rate.
"""
