# XML_ParseBuffer with a negative length: only the refusal that the fix brings
# counts as fixed, a crash does not.
def probe():
    parser = pointer("XML_ParserCreate", None)
    pointer("XML_GetBuffer", p(parser), 16)

    def parse():
        refused = lib.XML_ParseBuffer(p(parser), -1, 0) == 0 and lib.XML_GetErrorCode(p(parser)) == 41
        os._exit(0 if refused else 1)

    refused = survives(parse)
    lib.XML_ParserFree(p(parser))
    return "fixed" if refused else "vulnerable"
