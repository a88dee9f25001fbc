# A buffer that begins with an empty piece takes a reference to another one. It
# runs under MALLOC_PERTURB_, which fills freed memory.
def probe():
    def add():
        one, two = pointer("evbuffer_new"), pointer("evbuffer_new")
        lib.evbuffer_add_reference(p(two), b"", ctypes.c_size_t(0), None, None)
        lib.evbuffer_add(p(one), b"x" * 46, ctypes.c_size_t(46))
        lib.evbuffer_add_buffer_reference(p(two), p(one))
        pulled = pointer("evbuffer_pullup", p(two), ctypes.c_ssize_t(-1))
        if ctypes.string_at(pulled, 46) != b"x" * 46:
            os._exit(1)

    return "fixed" if survives(add) else "vulnerable"
