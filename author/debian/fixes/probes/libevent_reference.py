# A buffer that begins with an empty piece takes a reference to another one.
def probe():
    one, two = pointer("evbuffer_new"), pointer("evbuffer_new")
    lib.evbuffer_add(p(one), b"x" * 46, ctypes.c_size_t(46))
    lib.evbuffer_add_buffer_reference(p(two), p(one))
    pulled = pointer("evbuffer_pullup", p(two), ctypes.c_ssize_t(-1))
    right = ctypes.string_at(pulled, 46) == b"x" * 46
    lib.evbuffer_free(p(two))
    lib.evbuffer_free(p(one))
    return "used" if right else "wrong"
