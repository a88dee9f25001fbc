# A server sends the client on to another name of the same machine, for which it
# has a password in a file. A token that was given for the first name is no
# business of the second.
import socket, threading


def answer(listener, answers, heard):
    for text in answers:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            heard.append(b"".join(iter(lines.readline, b"\r\n")))
            connection.sendall(text)


def probe():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        port = listener.getsockname()[1]
        end = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        there = b"HTTP/1.1 302 Found\r\nLocation: http://localhost:%d/\r\n" % port + end
        heard = []
        server = threading.Thread(target=answer, args=(listener, [there, b"HTTP/1.1 200 OK\r\n" + end], heard))
        server.start()
        passwords = write("netrc", b"machine localhost login somebody password word\n")
        easy = pointer("curl_easy_init")
        lib.curl_easy_setopt.argtypes = [ctypes.c_void_p, ctypes.c_int]
        lib.curl_easy_setopt(easy, 10002, ctypes.c_char_p(b"http://127.0.0.1:%d/" % port))
        lib.curl_easy_setopt(easy, 52, ctypes.c_long(1))  # follow
        lib.curl_easy_setopt(easy, 107, ctypes.c_long(1 << 6))  # authenticate by a token
        lib.curl_easy_setopt(easy, 10220, ctypes.c_char_p(b"secret"))
        lib.curl_easy_setopt(easy, 51, ctypes.c_long(1))  # passwords from a file
        lib.curl_easy_setopt(easy, 10118, ctypes.c_char_p(passwords))
        lib.curl_easy_setopt(easy, 10177, ctypes.c_char_p(b"*"))  # no proxy
        result = lib.curl_easy_perform(p(easy))
        lib.curl_easy_cleanup(p(easy))
        server.join()
    if result != 0 or len(heard) != 2 or b"secret" not in heard[0]:
        return "result %d, heard %r" % (result, heard)
    return "vulnerable" if b"secret" in heard[1] else "fixed"
