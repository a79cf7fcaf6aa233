"""The web server of the pages."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette


class Server(uvicorn.Server):
    """Serves the pages until its process is interrupted; open streams end before the server does."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,  # addresses hold ids and what was searched for
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=1,
                lifespan="off",
            )
        )
        self._live = app.state.live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the server."""
        # Python 3.11 loses a connection that it has accepted, but not yet given to its protocol, when the
        # listener closes (gh-109564): accept no more first, and let those reach their protocols.
        with suppress(NotImplementedError):  # where the event loop has no readers, as on Windows
            for listener in (each for server in self.servers for each in server.sockets):
                asyncio.get_running_loop().remove_reader(listener.fileno())
        await self._live.close()  # gives way to the loop
        # uvicorn reports requests that it cancels as errors; their browsers lose their server anyway.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)
        # uvicorn asks the connections that it finds to close; a browser's that was being accepted at that
        # moment joins them after it looked.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
