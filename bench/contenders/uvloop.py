"""asyncio's programs on uvloop."""

import uvloop

from contenders import asyncio

USES = asyncio.USES
LEFT_OUT = asyncio.LEFT_OUT
MOST = asyncio.MOST
OPERATIONS = asyncio.operations(uvloop.run)
