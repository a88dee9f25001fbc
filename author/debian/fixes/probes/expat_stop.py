# XML_StopParser on a parser that has not started.
def probe():
    parser = pointer("XML_ParserCreate", None)
    stopped = lib.XML_StopParser(p(parser), 0)
    code = lib.XML_GetErrorCode(p(parser))
    lib.XML_ParserFree(p(parser))
    return "vulnerable" if stopped == 1 else "fixed" if code == 44 else "code %d" % code
