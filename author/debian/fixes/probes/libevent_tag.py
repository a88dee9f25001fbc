# A tag of more bytes than one has: read without end before, refused in both.
def probe():
    buffer = pointer("evbuffer_new")
    lib.evbuffer_add(p(buffer), b"\x81\x01" + b"x" * 40, ctypes.c_size_t(42))
    tag = ctypes.c_uint32()
    lib.evtag_peek(p(buffer), ctypes.byref(tag))
    lib.evbuffer_free(p(buffer))
    return "used" if tag.value == 129 else "tag %d" % tag.value
