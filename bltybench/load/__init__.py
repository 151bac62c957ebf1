"""The Locust side: users and their client, the records, the capacity search, the probe, and the plugin.

Importing this package registers the plugin with Locust.
"""

import locust  # isort: skip - first, because it patches the standard library

from bltybench.load.client import ChatClient
from bltybench.load.locust_plugin.plugin import PLUGIN
from bltybench.load.reply import Reply
from bltybench.load.users import ChatUser, ScenarioUser

PLUGIN.register(locust.events)

__all__ = ["ChatClient", "ChatUser", "Reply", "ScenarioUser"]
