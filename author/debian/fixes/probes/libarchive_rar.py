import binascii, struct

def vint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def block(body):
    body = vint(len(body)) + body
    return struct.pack("<I", binascii.crc32(body)) + body


# The content of a stored file in an archive of the fifth format.
def probe():
    text = b"hello"
    header = vint(2) + vint(2) + vint(len(text)) + vint(4) + vint(len(text)) + vint(0o100644)
    header += struct.pack("<I", binascii.crc32(text)) + vint(0) + vint(1) + vint(1) + b"f"
    data = b"Rar!\x1a\x07\x01\x00" + block(vint(1) + vint(0) + vint(0)) + block(header) + text + block(vint(5) + vint(0) + vint(0))
    a = pointer("archive_read_new")
    lib.archive_read_support_format_rar5(p(a))
    lib.archive_read_open_memory(p(a), data, ctypes.c_size_t(len(data)))
    e = ctypes.c_void_p()
    result = lib.archive_read_next_header(p(a), ctypes.byref(e))
    buffer = ctypes.create_string_buffer(16)
    lib.archive_read_data.restype = ctypes.c_ssize_t
    n = lib.archive_read_data(p(a), buffer, ctypes.c_size_t(16))
    lib.archive_read_free(p(a))
    return "used" if buffer.raw[:n] == text else "result %d, %d" % (result, n)
