"""Load tests for Trierarch, or any OpenAI-compatible endpoint.

Run from the repository root, with OPENAI_BASE_URL and OPENAI_API_KEY set:

    locust -f loadtests/locustfile.py --headless --scenario smoke

The scenario says what is sent, when, for how long and what passes; see
docs/guides/load-testing.md. Locust must be imported before anything else opens
a socket, because importing it makes the standard library cooperative.
"""

import locust  # isort: skip

from trierarch_loadtests.session import install
from trierarch_loadtests.shapes.open_loop import OpenLoopShape
from trierarch_loadtests.users.open_loop import OpenLoopUser

__all__ = ["OpenLoopShape", "OpenLoopUser"]

install(locust.events)
