# A request that says twice, and differently, where its body ends.
def probe():
    server = Server(lambda request: lib.evhttp_send_reply(p(request), 200, b"OK", None))
    answer = server.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    server.close()
    return {b"200": "vulnerable", b"400": "fixed", b"": "fixed"}.get(answer[9:12], repr(answer[:40]))
