# A header whose value goes on in a second line.
def probe():
    headers = (ctypes.c_void_p * 2)()
    headers[1] = ctypes.addressof(headers)
    result = lib.evhttp_add_header(headers, b"One", b"Two\r\n Three")
    lib.evhttp_clear_headers(headers)
    return {0: "vulnerable", -1: "fixed"}.get(result, "result %d" % result)
