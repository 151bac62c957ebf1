"""The Locust side: users, arrivals, retry, recorder, self-audit, event hooks.

Importing this registers with Locust, as Locust's plugins do.
"""

import locust  # isort: skip - first, because it patches the standard library

from bltybench.load.client import ChatClient
from bltybench.load.locust_plugin.plugin import PLUGIN
from bltybench.load.reply import Reply
from bltybench.load.users import ChatUser, ScenarioUser

PLUGIN.register(locust.events)

__all__ = ["ChatClient", "ChatUser", "Reply", "ScenarioUser"]
