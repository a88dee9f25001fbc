# Answers each line on its input with what probe() finds: "vulnerable", "fixed",
# or "used" where only running the code is safe.
import ctypes, os, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 1, 0, 0, 0)  # dumpable whatever started it
lib = ctypes.CDLL(sys.argv[1])
tmp = sys.argv[2]


def pointer(name, *arguments):
    """A function of the library that returns a pointer."""
    f = getattr(lib, name)
    f.restype = ctypes.c_void_p
    return f(*arguments)


def p(value):
    return ctypes.c_void_p(value)


def write(name, text):
    path = os.path.join(tmp, name)
    with open(path, "wb") as f:
        f.write(text)
    return path.encode()


def survives(action, seconds=0):
    """Runs action in a forked child, which has the live patch like its parent."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(seconds)
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return status == 0
