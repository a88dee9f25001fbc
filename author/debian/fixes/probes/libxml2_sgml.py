# An SGML catalog that names itself.
def probe():
    name = write("self.sgml", b"CATALOG self.sgml\n")
    return "fixed" if survives(lambda: lib.xmlLoadCatalog(name)) else "vulnerable"
