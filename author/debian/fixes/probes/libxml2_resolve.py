# An XML catalog that is its own next one, asked for an address.
def probe():
    name = write("self.xml", b'<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog"><nextCatalog catalog="self.xml"/></catalog>')

    def resolve():
        lib.xmlLoadCatalog(name)
        pointer("xmlCatalogResolveURI", b"http://livemend.invalid/x")

    return "fixed" if survives(resolve) else "vulnerable"
