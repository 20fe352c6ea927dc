"""asyncio: streams; `asyncio KIND protocol` is a protocol instead, without a coroutine."""

import asyncio
import sys

from servers import wire


async def echo(reader, writer):
    while data := await reader.read(wire.CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()


async def http(reader, writer):
    stays = True
    try:
        while stays:
            head = await reader.readuntil(wire.END)
            response, stays = wire.answer(head[: -len(wire.END)])
            writer.write(response)
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    writer.close()


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.data = b""


class Echo(Protocol):
    def data_received(self, data):
        self.transport.write(data)


class Http(Protocol):
    def data_received(self, data):
        self.data += data
        while wire.END in self.data:
            head, _, self.data = self.data.partition(wire.END)
            response, stays = wire.answer(head)
            self.transport.write(response)
            if not stays:
                self.transport.close()


async def main():
    loop = asyncio.get_running_loop()
    listener = wire.listen()
    if sys.argv[2:] == ["protocol"]:
        server = await loop.create_server(
            {"echo": Echo, "http": Http}[wire.kind()], sock=listener, backlog=4096
        )
    else:
        handler = {"echo": echo, "http": http}[wire.kind()]
        server = await asyncio.start_server(handler, sock=listener, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
