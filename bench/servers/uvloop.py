"""uvloop: asyncio's servers on its loop."""

import uvloop

from servers import asyncio as servers

uvloop.run(servers.main())
