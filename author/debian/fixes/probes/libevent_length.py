# A tagged length beyond what an int holds, in a buffer that is so long.
MIB = ctypes.create_string_buffer(1 << 20)


def probe():
    buffer = pointer("evbuffer_new")
    lib.evtag_encode_tag(p(buffer), 7)
    lib.evtag_encode_int(p(buffer), ctypes.c_uint32(0x80000001))
    for _ in range(2100):
        lib.evbuffer_add_reference(p(buffer), MIB, ctypes.c_size_t(1 << 20), None, None)
    tag = ctypes.c_uint32()
    result = lib.evtag_unmarshal_header(p(buffer), ctypes.byref(tag))
    lib.evbuffer_free(p(buffer))
    return "fixed" if result == -1 else "vulnerable"
