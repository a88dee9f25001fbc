# Every question to a name server goes through the code.
def probe():
    base = pointer("event_base_new")
    dns = pointer("evdns_base_new", p(base), 0)
    lib.evdns_base_nameserver_ip_add(p(dns), b"127.0.0.1:9")
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *a: None)
    asked = pointer("evdns_base_resolve_ipv4", p(dns), b"livemend.invalid", 1, callback, None)
    lib.evdns_base_free(p(dns), 0)
    lib.event_base_free(p(base))
    return "used" if asked else "not asked"
