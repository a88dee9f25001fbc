import io, tarfile

# A number in a tar header: reading any goes through the code.
def probe():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as t:
        info = tarfile.TarInfo("f")
        info.size = 5
        t.addfile(info, io.BytesIO(b"hello"))
    data = out.getvalue()
    a = pointer("archive_read_new")
    lib.archive_read_support_format_tar(p(a))
    lib.archive_read_open_memory(p(a), data, ctypes.c_size_t(len(data)))
    e = ctypes.c_void_p()
    lib.archive_read_next_header(p(a), ctypes.byref(e))
    lib.archive_entry_size.restype = ctypes.c_int64
    size = lib.archive_entry_size(e)
    lib.archive_read_free(p(a))
    return "used" if size == 5 else "size %d" % size
