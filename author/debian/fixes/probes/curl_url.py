# A transfer that fails at once goes through the code that looks for a connection.
def probe():
    easy = pointer("curl_easy_init")
    lib.curl_easy_setopt.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.curl_easy_setopt(easy, 10002, ctypes.c_char_p(b"http://127.0.0.1:9/"))
    result = lib.curl_easy_perform(p(easy))
    lib.curl_easy_cleanup(p(easy))
    return "used" if result == 7 else "result %d" % result
