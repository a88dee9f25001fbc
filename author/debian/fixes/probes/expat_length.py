# XML_ParseBuffer with a negative length.
def probe():
    parser = pointer("XML_ParserCreate", None)
    pointer("XML_GetBuffer", p(parser), 16)
    out = []
    fine = survives(lambda: os._exit(7 if lib.XML_ParseBuffer(p(parser), -1, 0) == 0 and lib.XML_GetErrorCode(p(parser)) == 41 else 0))
    lib.XML_ParserFree(p(parser))
    return "vulnerable" if fine else "fixed"
