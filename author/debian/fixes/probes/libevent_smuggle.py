# A request with two different lengths.
def probe():
    server = Server(lambda request: lib.evhttp_send_reply(p(request), 200, b"OK", None))
    answer = server.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nhello")
    server.close()
    return {b"200": "vulnerable", b"400": "fixed"}.get(answer[9:12], repr(answer[:40]))
