# Catalogs that each name the next one twice: every level doubles the work.
def probe():
    for i in range(28):
        write("c%d.xml" % i, b'<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">' + b'<nextCatalog catalog="c%d.xml"/>' % (i + 1) * 2 + b"</catalog>")
    write("c28.xml", b'<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog"/>')

    def resolve():
        lib.xmlLoadCatalog(os.path.join(tmp, "c0.xml").encode())
        pointer("xmlCatalogResolveURI", b"http://livemend.invalid/x")

    return "fixed" if survives(resolve, 3) else "vulnerable"
