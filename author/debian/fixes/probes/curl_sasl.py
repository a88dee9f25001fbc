# A web server sends the client on to a mail server under another name. A token
# that was given for the first is no business of the second.
import socket, threading


def answer(listener, there, heard):
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        b"".join(iter(lines.readline, b"\r\n"))
        connection.sendall(there)
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"* OK ready\r\n")
        for line in lines:
            heard.append(line)
            tag, command = line.split()[:2]
            if command == b"CAPABILITY":
                connection.sendall(b"* CAPABILITY IMAP4rev1 SASL-IR AUTH=OAUTHBEARER\r\n%s OK done\r\n" % tag)
            else:
                connection.sendall(b"%s NO not here\r\n" % tag)


def probe():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        port = listener.getsockname()[1]
        there = b"HTTP/1.1 302 Found\r\nLocation: imap://somebody@localhost:%d/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % port
        heard = []
        server = threading.Thread(target=answer, args=(listener, there, heard))
        server.start()
        easy = pointer("curl_easy_init")
        lib.curl_easy_setopt.argtypes = [ctypes.c_void_p, ctypes.c_int]
        lib.curl_easy_setopt(easy, 10002, ctypes.c_char_p(b"http://127.0.0.1:%d/" % port))
        lib.curl_easy_setopt(easy, 52, ctypes.c_long(1))  # follow
        lib.curl_easy_setopt(easy, 182, ctypes.c_long(-1))  # to every protocol
        lib.curl_easy_setopt(easy, 10220, ctypes.c_char_p(b"secret"))
        lib.curl_easy_setopt(easy, 10177, ctypes.c_char_p(b"*"))  # no proxy
        lib.curl_easy_perform(p(easy))
        lib.curl_easy_cleanup(p(easy))
        server.join()
    if not heard:
        return "no mail server was asked"
    return "vulnerable" if any(b"AUTHENTICATE OAUTHBEARER" in line for line in heard) else "fixed"
