"""velollm-NAME keeps VeloLLM's contracts."""

import velollm_NAME
from velollm_core.testing import BackendContract, PluginContract, document, openai_routes


class TestServer(BackendContract):
    backend = velollm_NAME.Server
    routes = openai_routes() | {"GET /info": document({"server": "NAME", "version": "1.2.3"})}


class TestPlugin(PluginContract):
    plugin = velollm_NAME
