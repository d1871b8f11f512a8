"""The `tiebeam` command's expansion service, started when it is first needed."""

import atexit
import os
import shutil
import subprocess
import threading

BINARY = 'TIEBEAM_BIN'
_READY = 'expansion service '


class ServiceError(RuntimeError):
    """The service cannot be started."""


def find_binary() -> str:
    """The `tiebeam` command: what TIEBEAM_BIN names, or what is on the PATH."""
    named = os.environ.get(BINARY)
    if named:
        if not os.access(named, os.X_OK):
            raise ServiceError(f'{BINARY} is `{named}`, which is no program')
        return named
    found = shutil.which('tiebeam')
    if found is None:
        raise ServiceError(f'there is no `tiebeam` on the PATH; install it, or set {BINARY} to its path')
    return found


class ExpansionService:
    """A running `tiebeam expansion-service`; also a context manager."""

    def __init__(self, *arguments: str, binary: str | None = None):
        """
        :param arguments: more of the command's flags, such as `--environment=external=HOST:PORT`.
        """
        command = [binary or find_binary(), 'expansion-service', *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        # It prints where it listens once it does, and nothing but that; when it ends, the line is empty.
        line = self._process.stdout.readline()
        if not line.startswith(_READY):
            code = self._process.wait()
            self._process.stdout.close()
            raise ServiceError(f'`{" ".join(command)}` ended with code {code} and did not say where it listens')
        self.address = line[len(_READY):].strip()
        atexit.register(self.stop)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends it, with the models that it holds. Does nothing when it has ended."""
        atexit.unregister(self.stop)
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> 'ExpansionService':
        return self

    def __exit__(self, *_) -> None:
        self.stop()


_lock = threading.Lock()
_shared: ExpansionService | None = None


def shared_address() -> str:
    """The address of the one service that this process has; starts it."""
    global _shared
    with _lock:
        if _shared is None or not _shared.is_running():
            _shared = ExpansionService()
        return _shared.address
