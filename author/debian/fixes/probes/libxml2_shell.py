# Lines of blanks in the shell: each was forgotten with its memory.
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]


libc.mallinfo2.restype = Info
libc.strdup.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
LINES = 2000


def probe():
    left = [LINES]

    def read(prompt):
        left[0] -= 1
        return libc.strdup(b"   " + b" " * 500) if left[0] >= 0 else 0

    callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(read)
    out = libc.fopen(b"/dev/null", b"w")
    doc = pointer("xmlNewDoc", b"1.0")
    before = libc.mallinfo2().uordblks
    lib.xmlShell(p(doc), b"x", callback, p(out))
    grown = libc.mallinfo2().uordblks - before
    libc.fclose(p(out))
    return "vulnerable" if grown > LINES * 400 else "fixed"
