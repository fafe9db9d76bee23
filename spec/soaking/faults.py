"""This knows what goes wrong in the long run, one fault at a time."""

import os
import signal
import time

from failclosed.stack import wait_until

from .stack import end


def _signal(pid, number):
    if pid:
        os.kill(pid, number)


def kill_server(stack):
    _signal(stack.server_pid(), signal.SIGKILL)
    time.sleep(1)


def stop_server(stack):
    pid = stack.server_pid()
    _signal(pid, signal.SIGSTOP)
    time.sleep(8)
    _signal(pid, signal.SIGCONT)


def remove_socket(stack):
    stack.socket.unlink(missing_ok=True)
    time.sleep(3)


def reload_kong(stack):
    stack.reload()
    time.sleep(1)


def kill_shim(stack):
    _signal(stack.shim_pid(stack.watching_shim_port), signal.SIGKILL)
    time.sleep(1)
    stack.start_shim(stack.watching_shim_port)


def replace_shim(stack):
    port = stack.watching_shim_port
    old = stack.shim_pid(port)
    _signal(old, signal.SIGUSR2)
    wait_until("another shim takes over", lambda: stack.shim_pid(port) not in (None, old))


def hang_up_shims(stack):
    for port in (stack.plain_shim_port, stack.watching_shim_port):
        _signal(stack.shim_pid(port), signal.SIGHUP)
    time.sleep(1)


def break_configuration(stack):
    stack.break_declarative_config()
    time.sleep(5)
    stack.write_declarative_config()


def admin_api_away(stack):
    stack.admin.mode = "refuse"
    time.sleep(8)
    stack.admin.mode = "pass"


def admin_api_hangs(stack):
    stack.admin.mode = "swallow"
    time.sleep(8)
    stack.admin.mode = "pass"


def admin_api_flaps(stack):
    for _ in range(8):
        stack.admin.mode = "refuse"
        time.sleep(0.4)
        stack.admin.mode = "pass"
        time.sleep(0.6)


def responder_dies(stack):
    end(stack.responder)
    time.sleep(8)
    stack.start_responder()


def responder_hangs(stack):
    os.kill(stack.responder.pid, signal.SIGSTOP)
    time.sleep(8)
    os.kill(stack.responder.pid, signal.SIGCONT)


def log_is_stuck(stack):
    """A pipe that nobody reads takes the place of the access log: a disk that takes nothing."""
    port = stack.watching_shim_port
    log, pid = stack.folder / f"access-{port}.log", stack.shim_pid(port)
    log.rename(log.with_suffix(".old"))
    os.mkfifo(log)
    # Somebody has to have it open, or it could not be opened.
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    _signal(pid, signal.SIGHUP)
    time.sleep(8)
    log.unlink()
    _signal(pid, signal.SIGHUP)
    time.sleep(2)
    os.close(reader)


def disk_is_slow(stack):
    """Each call to a file takes a second, while all that is read is to be read again."""
    stack.set_disk_slow(True)
    stack.write_declarative_config()
    for port in (stack.plain_shim_port, stack.watching_shim_port):
        _signal(stack.shim_pid(port), signal.SIGHUP)
    time.sleep(12)
    stack.set_disk_slow(False)


def start_from_slow_disk(stack):
    stack.set_disk_slow(True)
    _signal(stack.server_pid(), signal.SIGKILL)
    time.sleep(8)
    stack.set_disk_slow(False)


def clock_goes_ahead(stack):
    stack.set_clock(120)
    time.sleep(5)
    stack.set_clock(0)


def clock_goes_back(stack):
    stack.set_clock(-120)
    time.sleep(5)
    stack.set_clock(0)


def clock_is_years_ahead(stack):
    stack.set_clock(30 * 365 * 86400)
    time.sleep(3)
    stack.set_clock(0)


# What is done, and what is said of it.
FAULTS = {
    "kill": (kill_server, "kill -9 of the plugin server"),
    "stop": (stop_server, "SIGSTOP of the plugin server for 8 s"),
    "socket": (remove_socket, "the plugin server's socket is removed"),
    "reload": (reload_kong, "kong reload"),
    "shim-kill": (kill_shim, "kill -9 of a shim, which is started again"),
    "shim-takeover": (replace_shim, "SIGUSR2: another process takes over from a shim"),
    "shim-hup": (hang_up_shims, "SIGHUP to both shims"),
    "configuration": (break_configuration, "half of kong.yml for 5 s"),
    "admin-refuses": (admin_api_away, "the Admin API refuses connections for 8 s"),
    "admin-hangs": (admin_api_hangs, "the Admin API says nothing for 8 s"),
    "admin-flaps": (admin_api_flaps, "the Admin API comes and goes"),
    "responder-dies": (responder_dies, "the OCSP responder is away for 8 s"),
    "responder-hangs": (responder_hangs, "the OCSP responder says nothing for 8 s"),
    "log": (log_is_stuck, "a shim's access log takes nothing for 8 s"),
}

# With a C compiler.
DISK_FAULTS = {
    "disk": (disk_is_slow, "each call to a file takes the plugin server and the shims a second, for 12 s, while the shims reload"),
    "disk-kill": (start_from_slow_disk, "the same for 8 s, while the plugin server starts after a kill -9"),
}

# With libfaketime.
CLOCK_FAULTS = {
    "clock-ahead": (clock_goes_ahead, "the plugin server's clock is 2 minutes ahead for 5 s"),
    "clock-behind": (clock_goes_back, "the plugin server's clock is 2 minutes behind for 5 s"),
    "clock-years": (clock_is_years_ahead, "the plugin server's clock is 30 years ahead for 3 s"),
}
