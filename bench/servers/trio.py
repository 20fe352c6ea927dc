"""trio: streams, a task a connection."""

import trio

from servers import wire


async def echo(stream):
    async with stream:
        while data := await stream.receive_some(wire.CHUNK):
            await stream.send_all(data)


async def http(stream):
    async with stream:
        data = b""
        stays = True
        while stays:
            while wire.END not in data:
                more = await stream.receive_some(wire.CHUNK)
                if not more:
                    return
                data += more
            head, _, data = data.partition(wire.END)
            response, stays = wire.answer(head)
            await stream.send_all(response)


async def main():
    listener = wire.listen()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    await trio.serve_listeners({"echo": echo, "http": http}[wire.kind()], [listener])


trio.run(main)
