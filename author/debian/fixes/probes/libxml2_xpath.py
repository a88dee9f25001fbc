# Any expression is evaluated by the code.
def probe():
    doc = pointer("xmlParseDoc", b"<a><b/><b/></a>")
    context = pointer("xmlXPathNewContext", p(doc))
    found = pointer("xmlXPathEvalExpression", b"count(/a/b)", p(context))
    lib.xmlXPathCastToNumber.restype = ctypes.c_double
    n = lib.xmlXPathCastToNumber(p(found))
    lib.xmlXPathFreeObject(p(found))
    lib.xmlXPathFreeContext(p(context))
    lib.xmlFreeDoc(p(doc))
    return "used" if n == 2 else "found %r" % n
