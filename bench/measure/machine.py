"""This knows the machine: its processes, what they have cost, and how to start and end them."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

LOOPBACK = "127.0.0.1"

# The server that is measured has a core of its own; whoever asks it, and what stands behind it, have the rest.
SERVER_CORE = "0"
OTHER_CORES = "1" if (os.cpu_count() or 1) == 2 else f"1-{(os.cpu_count() or 2) - 1}"

PATIENCE = 30
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A measurement cannot be made."""


def wait_until(what, holds, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            raise Failure(f"waited {patience} s in vain: {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return found.getsockname()[1]


def listens(port):
    with socket.socket() as tried:
        return tried.connect_ex((LOOPBACK, port)) == 0


# As many as descriptors allow where each connection of a client takes another one behind the front.
_, DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)
CONNECTIONS = min(20_000, (DESCRIPTORS - 200) // 2)
resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


class Process:
    """A server with its children, on cores of its own."""

    def __init__(self, command, log, cores=SERVER_CORE, environment=None, cwd=None):
        self.log = Path(log)
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                ["taskset", "-c", cores, *map(str, command)], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )

    def ids(self):
        """All processes of it that run."""
        found, looked_at = [self.child.pid], 0
        while looked_at < len(found):
            for task in Path(f"/proc/{found[looked_at]}/task").glob("*/children"):
                try:
                    found.extend(int(child) for child in task.read_text().split())
                except OSError:
                    pass
            looked_at += 1
        return found

    def cpu(self):
        """Seconds of CPU so far, in user and kernel mode, by the kernel's accounting."""
        total = 0
        for process in self.ids():
            try:
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self):
        """Bytes of memory that are its own (PSS), all processes together."""
        total = 0
        for process in self.ids():
            try:
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total * 1024

    def serves(self, port):
        def holds():
            if self.child.poll() is not None:
                raise Failure(f"it ended at once:\n{self.log.read_text(errors='replace')[-2000:]}")
            return listens(port)

        wait_until(f"port {port}", holds)

    def end(self):
        for process in reversed(self.ids()):
            try:
                os.kill(process, signal.SIGTERM)
            except ProcessLookupError:
                pass
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


def describe():
    """The machine and the kernel, for people to read."""
    cpu = "an unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return f"{cpu}, {os.cpu_count()} cores, Linux {os.uname().release}"


def version(*command):
    """The first line that a program says about itself."""
    if not shutil.which(str(command[0])):
        return "not there"
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    return (said.stdout + said.stderr).strip().splitlines()[0]
