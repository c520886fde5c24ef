"""Serving: the Ray Serve application whose replicas run vLLM, and the models they load.

The only package that may import ``vllm``, ``torch`` and (with the Ray adapters)
``ray``; its modules import them inside functions, so that the command line,
which asks for models here, starts fast.
"""
