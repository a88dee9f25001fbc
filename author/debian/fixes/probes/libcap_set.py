# A file is given capabilities, which needs no privilege to be tried.
def probe():
    name = write("f", b"")
    caps = pointer("cap_from_text", b"cap_net_raw=p")
    lib.cap_set_file(name, p(caps))
    lib.cap_free(p(caps))
    return "used"
