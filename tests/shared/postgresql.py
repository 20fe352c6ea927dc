"""A PostgreSQL server of one's own, with passwords by scram, as one that is set up today has it."""

import contextlib
import signal
from pathlib import Path

from shared import servers

USER, PASSWORD, DATABASE = "someone", "secret", "postgres"
HOST = "127.0.0.1"
OTHERS = (  # how many connections the server has, but the one that asks
    "select count(*) from pg_stat_activity "
    "where backend_type = 'client backend' and pid <> pg_backend_pid()"
)


@contextlib.contextmanager
def serving(**settings):
    """Its port."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb = servers.needed("initdb", "postgresql", *places)
    program = servers.needed("postgres", "postgresql", *places)
    port = servers.free_port()
    with servers.folder("postgres") as (folder, options):
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        servers.run(
            *[initdb, "--pgdata", folder / "data", "--auth", "scram-sha-256", "--no-sync"],
            *["--username", USER, "--pwfile", folder / "password", "--encoding", "utf8"],
            cwd=folder,
            **options,
        )
        settings = {
            "fsync": "off",
            "listen_addresses": HOST,
            "unix_socket_directories": folder,
            **settings,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [program, "-D", folder / "data", "-p", port, *words]
        with servers.serving(port, *command, cwd=folder, **options) as process:
            yield port
            process.send_signal(signal.SIGINT)  # it waits for no client
