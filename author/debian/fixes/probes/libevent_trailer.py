# A trailer behind a chunked body becomes a header of the request, or not.
def probe():
    seen = []

    def handle(request):
        headers = pointer("evhttp_request_get_input_headers", p(request))
        seen.append(pointer("evhttp_find_header", p(headers), b"X-Trailer"))
        lib.evhttp_send_reply(p(request), 200, b"OK", None)

    server = Server(handle)
    server.ask(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Trailer: yes\r\n\r\n")
    server.close()
    return "no request" if not seen else "vulnerable" if seen[0] else "fixed"
